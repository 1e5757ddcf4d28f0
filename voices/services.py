"""Changes to voices: made, renamed, learned, withdrawn, erased.

Objects are written before the rows that name them and deleted after those rows say so, never inside a transaction.
Rows are locked in the order job, voice: receivers of the signals below lock jobs before the voice is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypedDict, Unpack
from uuid import UUID

import structlog
from django.db import DatabaseError, transaction
from django.db.models import F
from django.db.models.functions import Now

from tenants.api import idempotency
from tenants.context import current_tenant_id
from tenants.ids import new_id
from tenants.scoping import tenant_scope
from tenants.services import record_audit_event
from tenants.storage import Kind, TenantStorage
from voices import consent, selectors, signals
from voices.consent import Statement
from voices.errors import VoiceNotFoundError
from voices.intake import InspectedClip
from voices.models import Consent, ConsentKind, PreparedVoice, ReferenceClip, Voice, VoiceKey, VoiceStatus
from voices.sealing import VoiceSeal

logger = structlog.get_logger(__name__)

FIRST_EPOCH: Final = 1
CREATE_ROUTE: Final = "POST /v1/voices"  # of idempotency records


@dataclass(frozen=True, slots=True)
class StoredClip:
    """One reference clip, opened. `language` and `transcript` are blank when nobody said."""

    wav: bytes  # 16-bit mono
    language: str
    transcript: str
    audio_digest: str  # SHA-256 of `wav`, hex


class VoiceChanges(TypedDict, total=False):
    """What a tenant may change of a voice. `labels` replaces all labels."""

    name: str
    description: str
    language: str
    labels: dict[str, str]
    model: str


def create_voice(
    *,
    tenant_id: UUID,
    name: str,
    clip: InspectedClip,
    actor: str,
    consent_statement: str = "",
    consent_speaker: str = "",
    remote_address: str | None = None,
    language: str = "",
    transcript: str = "",
    labels: Mapping[str, str] | None = None,
    description: str = "",
    model: str = "",
    original_filename: str = "",
    idempotency_key: str | None = None,
    fingerprint: bytes = b"",
) -> Voice:
    """Keep an inspected clip, encrypted with a new key, and the speaker's consent; preparing begins at commit.

    The caller has asked for consent: calling this is the claim that it was given, in `consent_statement` or, when that
    is blank, in our own words. Repeating `idempotency_key` returns the first voice and keeps nothing more; with another
    `fingerprint` it raises KeyReusedError.
    """
    seal = VoiceSeal.with_new_key(tenant_id=tenant_id, voice_id=new_id())
    statement = Statement(consent_statement) if consent_statement else consent.GIVEN
    with (
        _stored_object(
            seal, clip.wav, kind="clips", object_id=new_id(), epoch=FIRST_EPOCH, row_model=ReferenceClip
        ) as storage_key,
        tenant_scope(tenant_id),
    ):
        if idempotency_key is not None:
            record, is_first = idempotency.claim(
                tenant_id=tenant_id, route=CREATE_ROUTE, key=idempotency_key, fingerprint=fingerprint
            )
            if not is_first:
                assert record.resource_id is not None
                return selectors.get_voice(voice_id=record.resource_id)
            idempotency.finish(record, status=201, body=None, resource_id=seal.voice_id)
        voice: Voice = Voice.objects.create(
            id=seal.voice_id,
            tenant_id=tenant_id,
            name=name,
            description=description,
            language=language,
            labels=dict(labels or {}),
            model=model,
            key_epoch=FIRST_EPOCH,
        )
        VoiceKey.objects.create(tenant_id=tenant_id, voice=voice, wrapped_key=seal.wrapped_key)
        ReferenceClip.objects.create(
            tenant_id=tenant_id,
            voice=voice,
            storage_key=storage_key,
            key_epoch=FIRST_EPOCH,
            audio_digest=clip.sha256,
            reference_seconds=clip.duration_seconds,
            sample_rate_hz=clip.sample_rate_hz,
            original_filename=original_filename,
            transcript=transcript,
            quality=clip.quality.to_json(),
        )
        _record_consent(
            voice,
            kind=ConsentKind.GIVEN,
            statement=statement,
            speaker=consent_speaker,
            actor=actor,
            remote_address=remote_address,
        )
        _audit(voice, "voice.create", actor=actor)
        signals.voice_to_learn.send(sender=Voice, tenant_id=tenant_id, voice_id=voice.id)
    return voice


def update_voice(*, tenant_id: UUID, voice_id: UUID, actor: str, **changes: Unpack[VoiceChanges]) -> Voice:
    """Rename or relabel; with another model the voice is prepared anew. Raises VoiceNotFoundError."""
    with tenant_scope(tenant_id):
        if changes:
            before = _lock_voice(voice_id)
            Voice.objects.filter(id=voice_id).update(**changes)
            if changes.get("model", before.model) != before.model:
                Voice.objects.filter(id=voice_id).update(
                    status=VoiceStatus.PREPARING, failure_code="", failure_message=""
                )
                signals.voice_to_learn.send(sender=Voice, tenant_id=tenant_id, voice_id=voice_id)
            voice = selectors.get_voice(voice_id=voice_id)
            _audit(voice, "voice.update", actor=actor, fields=sorted(changes))
            return voice
        return selectors.get_voice(voice_id=voice_id)


def withdraw_consent(*, tenant_id: UUID, voice_id: UUID, actor: str, remote_address: str | None = None) -> Voice:
    """From now on nothing may be spoken in this voice or learned from it. A second call adds nothing.

    The audio stays until the voice is erased: withdrawing and erasing are two decisions. Raises VoiceNotFoundError.
    """
    with tenant_scope(tenant_id):
        voice = selectors.get_voice(voice_id=voice_id)
        signals.consent_withdrawn.send(sender=Voice, tenant_id=tenant_id, voice_id=voice_id)
        _lock_voice(voice_id)
        last = Consent.objects.filter(voice_id=voice_id).order_by("-recorded_at", "-id").first()
        if last is None or last.kind != ConsentKind.WITHDRAWN:
            _record_consent(
                voice,
                kind=ConsentKind.WITHDRAWN,
                statement=consent.WITHDRAWN,
                speaker=last.speaker if last is not None else "",
                actor=actor,
                remote_address=remote_address,
            )
            _audit(voice, "consent.withdraw", actor=actor)
        return selectors.get_voice(voice_id=voice_id)


def erase_voice(*, tenant_id: UUID, voice_id: UUID, actor: str) -> None:
    """Destroy the voice's key, then its clips and prepared voices. The row stays for jobs, consent rows as proof.

    What a failing object store leaves behind cannot be opened any more, and goes at this tenant's next erasure.
    Raises VoiceNotFoundError, also for a second call.
    """
    with tenant_scope(tenant_id):
        voice = selectors.get_voice(voice_id=voice_id)
        signals.voice_erased.send(sender=Voice, tenant_id=tenant_id, voice_id=voice_id)
        _lock_voice(voice_id)
        Voice.objects.filter(id=voice_id).update(
            status=VoiceStatus.ERASED,
            erased_at=Now(),
            key_epoch=F("key_epoch") + 1,
            failure_code="",
            failure_message="",
            description="",
            labels={},
        )
        VoiceKey.objects.filter(voice_id=voice_id).delete()
        ReferenceClip.objects.filter(voice_id=voice_id).update(original_filename="", transcript="", quality={})
        idempotency.forget(tenant_id=tenant_id, resource_id=voice_id)
        _audit(voice, "voice.erase", actor=actor)
        # Robust: the voice is erased when its key is, whatever the object store says.
        transaction.on_commit(lambda: _delete_erased_objects(tenant_id), robust=True)


def mark_voice_ready(*, tenant_id: UUID, voice_id: UUID, key_epoch: int) -> bool:
    """Note that the clips of this epoch were learned. False, and nothing changed, when the voice has moved on."""
    with tenant_scope(tenant_id):
        current = Voice.objects.filter(id=voice_id, key_epoch=key_epoch).exclude(status=VoiceStatus.ERASED)
        return bool(current.update(status=VoiceStatus.READY, failure_code="", failure_message=""))


def mark_voice_failed(*, tenant_id: UUID, voice_id: UUID, key_epoch: int, code: str, message: str) -> bool:
    """Note why the clips of this epoch could not be learned. A ready voice stays ready; see `mark_voice_ready`."""
    with tenant_scope(tenant_id):
        current = Voice.objects.filter(id=voice_id, key_epoch=key_epoch, status=VoiceStatus.PREPARING)
        return bool(
            current.update(
                status=VoiceStatus.FAILED,
                failure_code=code[: Voice._meta.get_field("failure_code").max_length],
                failure_message=message[: Voice._meta.get_field("failure_message").max_length],
            )
        )


def read_reference_clips(*, tenant_id: UUID, voice_id: UUID) -> list[StoredClip]:
    """The audio a voice is learned from, oldest first. Raises VoiceNotFoundError."""
    with tenant_scope(tenant_id):
        voice = selectors.get_voice(voice_id=voice_id)
        seal = _get_seal(tenant_id=tenant_id, voice_id=voice_id)
        clips = list(ReferenceClip.objects.filter(voice_id=voice_id).order_by("created_at", "id"))
    storage = TenantStorage(tenant_id)
    return [
        StoredClip(
            wav=seal.unseal(storage.read(clip.storage_key), kind="clips", epoch=clip.key_epoch),
            language=voice.language,
            transcript=clip.transcript,
            audio_digest=clip.audio_digest,
        )
        for clip in clips
    ]


def store_prepared_voice(
    *,
    tenant_id: UUID,
    voice_id: UUID,
    key_epoch: int,
    engine: str,
    engine_version: str,
    audio_digest: str,
    data: bytes,
) -> PreparedVoice:
    """Keep, sealed, what an engine learned. A second call for the same engine and audio returns the first.

    Raises VoiceNotFoundError when the voice was erased or its clips have changed since `key_epoch`.
    """
    learned = {
        "voice_id": voice_id,
        "engine": engine,
        "engine_version": engine_version,
        "key_epoch": key_epoch,
        "audio_digest": audio_digest,
    }
    with tenant_scope(tenant_id):
        seal = _get_seal(tenant_id=tenant_id, voice_id=voice_id)
        first: PreparedVoice | None = PreparedVoice.objects.filter(**learned).first()
    if first is not None:
        return first
    prepared_id = new_id()
    with (
        _stored_object(
            seal, data, kind="prepared", object_id=prepared_id, epoch=key_epoch, row_model=PreparedVoice
        ) as storage_key,
        tenant_scope(tenant_id),
    ):
        if _lock_voice(voice_id).key_epoch != key_epoch:
            raise VoiceNotFoundError
        # The lock makes twins wait, so the second finds the first's row.
        prepared, _ = PreparedVoice.objects.get_or_create(
            **learned,
            defaults={"id": prepared_id, "tenant_id": tenant_id, "storage_key": storage_key, "size_bytes": len(data)},
        )
    assert isinstance(prepared, PreparedVoice)
    return prepared


def read_sealed_prepared(prepared: PreparedVoice) -> bytes:
    """The stored bytes, still sealed: this form may be cached outside the process. Raises FileNotFoundError."""
    return TenantStorage(prepared.tenant_id).read(prepared.storage_key)


def unseal_prepared(*, prepared: PreparedVoice, sealed: bytes) -> bytes:
    """Open what `read_sealed_prepared` gave. Asks for the key each time: an erased voice raises VoiceNotFoundError."""
    with tenant_scope(prepared.tenant_id):
        seal = _get_seal(tenant_id=prepared.tenant_id, voice_id=prepared.voice_id)
    return seal.unseal(sealed, kind="prepared", epoch=prepared.key_epoch)


def _get_seal(*, tenant_id: UUID, voice_id: UUID) -> VoiceSeal:
    key = VoiceKey.objects.filter(voice_id=voice_id).first()
    if key is None:
        raise VoiceNotFoundError
    return VoiceSeal(tenant_id=tenant_id, voice_id=voice_id, wrapped_key=bytes(key.wrapped_key))


def _lock_voice(voice_id: UUID) -> Voice:
    """The row, which nobody else changes until commit. Raises VoiceNotFoundError."""
    # NO KEY: rows that point here (jobs) may still be added meanwhile.
    voices = Voice.objects.select_for_update(no_key=True).exclude(status=VoiceStatus.ERASED)
    voice: Voice | None = voices.filter(id=voice_id).first()
    if voice is None:
        raise VoiceNotFoundError
    return voice


def _record_consent(
    voice: Voice, *, kind: ConsentKind, statement: Statement, speaker: str, actor: str, remote_address: str | None
) -> None:
    Consent.objects.create(
        tenant_id=voice.tenant_id,
        voice=voice,
        kind=kind,
        statement=statement.text,
        statement_version=statement.version,
        statement_sha256=statement.sha256,
        speaker=speaker,
        actor=actor,
        remote_address=remote_address,
    )


def _audit(voice: Voice, action: str, *, actor: str, **details: Any) -> None:
    record_audit_event(
        tenant_id=voice.tenant_id, actor=actor, action=action, object_type="voice", object_id=voice.id, **details
    )


@contextmanager
def _stored_object(
    seal: VoiceSeal,
    data: bytes,
    *,
    kind: Kind,
    object_id: UUID,
    epoch: int,
    row_model: type[ReferenceClip | PreparedVoice],
) -> Iterator[str]:
    """Seal and store an object for the time of the block; it stays when a committed row of `row_model` names it."""
    assert current_tenant_id() is None, "storage is not written inside a transaction"
    storage = TenantStorage(seal.tenant_id)
    storage_key = storage.make_key(kind, object_id, "sealed")
    storage.save(storage_key, seal.seal(data, kind=kind, epoch=epoch))
    try:
        yield storage_key
    finally:
        # Asked rather than concluded: a commit whose answer got lost raises here and has happened all the same.
        try:
            with tenant_scope(seal.tenant_id):
                is_kept = row_model.objects.filter(storage_key=storage_key).exists()
        except DatabaseError:
            logger.warning("object_perhaps_orphaned", storage_key=storage_key)
        else:
            if not is_kept:
                storage.delete(storage_key)


def _delete_erased_objects(tenant_id: UUID) -> None:
    """Delete the objects of all erased voices, then the rows that remembered where they are."""
    storage = TenantStorage(tenant_id)
    for model in (ReferenceClip, PreparedVoice):
        with tenant_scope(tenant_id):
            rows = list(model.objects.filter(voice__status=VoiceStatus.ERASED).values_list("id", "storage_key"))
        for _, storage_key in rows:
            storage.delete(storage_key)
        with tenant_scope(tenant_id):
            model.objects.filter(id__in=[row_id for row_id, _ in rows]).delete()
