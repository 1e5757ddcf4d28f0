"""What other apps rely on: sealed storage, consent that stays, prepared voices, marks of readiness, walls."""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, IntegrityError, connections

from tenants.encryption import SealBrokenError
from tenants.errors import ApplicationError
from tenants.scoping import tenant_scope
from tenants.storage import TenantStorage
from tests.voices.conftest import Api, stored_files
from voices import selectors, services
from voices.errors import (
    ConsentWithdrawnError,
    VoiceNotFoundError,
    VoiceNotReadyError,
    VoicePreparationFailedError,
)
from voices.intake import InspectedClip
from voices.models import Consent, ConsentKind, PreparedVoice, ReferenceClip, Voice, VoiceKey
from voices.sealing import VoiceSeal

LEARNED = b"what an engine learned, which nobody else may read" * 20


@pytest.fixture
def voice(api: Api, clip: InspectedClip) -> Voice:
    return services.create_voice(tenant_id=api.tenant.id, name="Nadia", clip=clip, actor="test")


def store(voice: Voice, *, engine_version: str = "1", key_epoch: int = 1, data: bytes = LEARNED) -> PreparedVoice:
    with tenant_scope(voice.tenant_id):
        digest = selectors.learning_digest(voice=voice)
    return services.store_prepared_voice(
        tenant_id=voice.tenant_id,
        voice_id=voice.id,
        key_epoch=key_epoch,
        engine="parametric",
        engine_version=engine_version,
        audio_digest=digest,
        data=data,
    )


def erase(voice: Voice) -> None:
    services.erase_voice(tenant_id=voice.tenant_id, voice_id=voice.id, actor="test")


def ready_error(voice: Voice) -> ApplicationError | None:
    try:
        with tenant_scope(voice.tenant_id):
            selectors.get_ready_voice(voice_id=voice.id)
    except ApplicationError as error:
        return error
    return None


# --- encryption -----------------------------------------------------------------------------------------------------


def test_stored_bytes_hold_neither_audio_nor_embedding(voice: Voice, clip: InspectedClip) -> None:
    prepared = store(voice)
    files = {path.parts[-4]: path.read_bytes() for path in stored_files()}
    assert set(files) == {"clips", "prepared"}
    pcm = clip.wav[44:]
    pieces = [pcm[start : start + 32] for start in range(0, len(pcm) - 32, 4_096)]
    pieces = [piece for piece in pieces if len(set(piece)) > 8] + [LEARNED[:16], b"RIFF", b"WAVE"]
    assert len(pieces) > 10
    for piece in pieces:
        assert all(piece not in content for content in files.values())
    sealed = services.read_sealed_prepared(prepared)
    assert sealed == files["prepared"]
    assert services.unseal_prepared(prepared=prepared, sealed=sealed) == LEARNED
    (stored,) = services.read_reference_clips(tenant_id=voice.tenant_id, voice_id=voice.id)
    assert stored.wav == clip.wav


def test_what_was_sealed_opens_only_as_what_it_is(api: Api, voice: Voice, clip: InspectedClip) -> None:
    twin = services.create_voice(tenant_id=api.tenant.id, name="Nadia", clip=clip, actor="test")
    prepared, of_twin = store(voice), store(twin)
    sealed = services.read_sealed_prepared(prepared)
    with pytest.raises(SealBrokenError):
        services.unseal_prepared(prepared=of_twin, sealed=sealed)
    with pytest.raises(SealBrokenError):
        services.unseal_prepared(prepared=prepared, sealed=sealed[:-1] + bytes([sealed[-1] ^ 1]))
    prepared.key_epoch = 2
    with pytest.raises(SealBrokenError):
        services.unseal_prepared(prepared=prepared, sealed=sealed)
    with tenant_scope(api.tenant.id):
        key = bytes(VoiceKey.objects.get(voice=voice).wrapped_key)
        reference = ReferenceClip.objects.get(voice=voice)
    stored = TenantStorage(api.tenant.id).read(reference.storage_key)
    seal = VoiceSeal(tenant_id=api.tenant.id, voice_id=voice.id, wrapped_key=key)
    assert seal.unseal(stored, kind="clips", epoch=1) == clip.wav
    with pytest.raises(SealBrokenError):
        seal.unseal(stored, kind="prepared", epoch=1)
    with pytest.raises(SealBrokenError):
        VoiceSeal(tenant_id=api.tenant.id, voice_id=twin.id, wrapped_key=key).unseal(stored, kind="clips", epoch=1)


def test_a_copy_made_before_erasing_cannot_be_opened_after(voice: Voice) -> None:
    prepared = store(voice)
    copy = services.read_sealed_prepared(prepared)
    erase(voice)
    assert stored_files() == []
    with pytest.raises(VoiceNotFoundError):
        services.unseal_prepared(prepared=prepared, sealed=copy)
    with pytest.raises(VoiceNotFoundError):
        services.read_reference_clips(tenant_id=voice.tenant_id, voice_id=voice.id)
    with pytest.raises(VoiceNotFoundError):
        erase(voice)


def test_objects_that_storage_kept_go_at_the_next_erasure(
    api: Api, voice: Voice, clip: InspectedClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: TenantStorage, key: str) -> None:
        raise OSError("storage is away")

    with monkeypatch.context() as patched:
        patched.setattr(TenantStorage, "delete", fail)
        erase(voice)
    assert len(stored_files()) == 1
    with pytest.raises(VoiceNotFoundError):
        services.read_reference_clips(tenant_id=voice.tenant_id, voice_id=voice.id)
    erase(services.create_voice(tenant_id=api.tenant.id, name="another", clip=clip, actor="test"))
    assert stored_files() == []


# --- may it be used ---------------------------------------------------------------------------------------------------


def test_a_voice_is_usable_once_it_is_ready(voice: Voice) -> None:
    tenant_id, voice_id = voice.tenant_id, voice.id
    assert isinstance(ready_error(voice), VoiceNotReadyError)
    assert services.mark_voice_failed(
        tenant_id=tenant_id, voice_id=voice_id, key_epoch=1, code="no_pitch", message="x" * 600
    )
    error = ready_error(voice)
    assert isinstance(error, VoicePreparationFailedError)
    assert (error.code, error.status, error.details["failure_code"]) == ("voice_not_ready", 409, "no_pitch")
    assert services.mark_voice_ready(tenant_id=tenant_id, voice_id=voice_id, key_epoch=1)
    assert ready_error(voice) is None
    # A late failure of another attempt takes nothing away.
    assert not services.mark_voice_failed(
        tenant_id=tenant_id, voice_id=voice_id, key_epoch=1, code="late", message="late"
    )
    assert ready_error(voice) is None


def test_what_was_learned_of_an_older_voice_does_not_count(voice: Voice) -> None:
    assert not services.mark_voice_ready(tenant_id=voice.tenant_id, voice_id=voice.id, key_epoch=2)
    assert isinstance(ready_error(voice), VoiceNotReadyError)
    erase(voice)
    for epoch in (1, 2):
        assert not services.mark_voice_ready(tenant_id=voice.tenant_id, voice_id=voice.id, key_epoch=epoch)
    assert isinstance(ready_error(voice), VoiceNotFoundError)


def test_without_live_consent_a_ready_voice_is_not_usable(voice: Voice) -> None:
    services.mark_voice_ready(tenant_id=voice.tenant_id, voice_id=voice.id, key_epoch=1)
    services.withdraw_consent(tenant_id=voice.tenant_id, voice_id=voice.id, actor="test")
    assert isinstance(ready_error(voice), ConsentWithdrawnError)
    with tenant_scope(voice.tenant_id), pytest.raises(ConsentWithdrawnError):
        selectors.get_consented_voice(voice_id=voice.id)


@pytest.mark.parametrize(
    "statement", ["UPDATE voices_consent SET kind = 'given'", "DELETE FROM voices_consent", "TRUNCATE voices_consent"]
)
@pytest.mark.parametrize("role", ["default", "staff", "migrate"])
def test_consent_rows_are_added_never_changed(voice: Voice, role_connection: Any, role: str, statement: str) -> None:
    connection = role_connection(role)
    connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(voice.tenant_id)])
    assert connection.execute("SELECT count(*) FROM voices_consent").fetchone() == (1,)
    with pytest.raises(Exception, match=r"never changed|permission denied"):
        connection.execute(statement)
    connection.rollback()


# --- prepared voices -------------------------------------------------------------------------------------------------


def test_a_voice_is_learned_once_per_engine_version(voice: Voice) -> None:
    first = store(voice)
    again = store(voice, data=b"learned again, a little differently")
    assert again.id == first.id
    assert services.unseal_prepared(prepared=again, sealed=services.read_sealed_prepared(again)) == LEARNED
    newer = store(voice, engine_version="2")
    assert newer.id != first.id
    assert len(stored_files()) == 3  # the clip, and one for each version
    with tenant_scope(voice.tenant_id):
        current = selectors.get_voice(voice_id=voice.id)
        found = selectors.find_prepared_voice(voice=current, engine="parametric", engine_version="1")
        assert found is not None
        assert found.id == first.id
        assert selectors.find_prepared_voice(voice=current, engine="parametric", engine_version="3") is None
        current.key_epoch = 2
        assert selectors.find_prepared_voice(voice=current, engine="parametric", engine_version="1") is None


def test_two_workers_that_learn_the_same_keep_one_object(voice: Voice) -> None:
    stored: list[PreparedVoice] = []
    start = threading.Barrier(4)

    def learn() -> None:
        start.wait()
        try:
            stored.append(store(voice))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=learn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stored) == 4
    assert len({prepared.id for prepared in stored}) == 1
    assert len(stored_files()) == 2


def test_nothing_is_stored_for_a_voice_that_is_gone(voice: Voice) -> None:
    with pytest.raises(VoiceNotFoundError):
        store(voice, key_epoch=2)
    before = stored_files()
    assert len(before) == 1
    erase(voice)
    with pytest.raises(VoiceNotFoundError):
        store(voice)
    assert stored_files() == []


# --- walls ------------------------------------------------------------------------------------------------------------


def test_a_row_cannot_point_at_another_tenants_voice(voice: Voice, other_api: Api) -> None:
    other = other_api.tenant.id

    def rows() -> list[Any]:
        return [
            VoiceKey(tenant_id=other, voice_id=voice.id, wrapped_key=b"x"),
            ReferenceClip(
                tenant_id=other, voice_id=voice.id, storage_key="x", audio_digest="x", reference_seconds=5.0,
                sample_rate_hz=24_000, quality={},
            ),
            Consent(
                tenant_id=other, voice_id=voice.id, kind=ConsentKind.GIVEN, statement="x", statement_sha256="x",
                actor="x",
            ),
            PreparedVoice(
                tenant_id=other, voice_id=voice.id, engine="x", engine_version="1", key_epoch=1, audio_digest="x",
                storage_key="x", size_bytes=1,
            ),
        ]  # fmt: skip

    services.erase_voice(tenant_id=voice.tenant_id, voice_id=voice.id, actor="test")  # frees its unique key row
    for row in rows():
        with pytest.raises(IntegrityError, match="same_tenant"), tenant_scope(other):
            row.save(force_insert=True)


def test_services_of_another_tenant_do_not_find_it(voice: Voice, other_api: Api) -> None:
    other = other_api.tenant.id
    for call in (services.read_reference_clips, services.withdraw_consent, services.erase_voice):
        extra = {} if call is services.read_reference_clips else {"actor": "test"}
        with pytest.raises(VoiceNotFoundError):
            call(tenant_id=other, voice_id=voice.id, **extra)
    assert not services.mark_voice_ready(tenant_id=other, voice_id=voice.id, key_epoch=1)
    assert len(stored_files()) == 1


def test_a_clip_outside_3_to_10_seconds_is_no_row(voice: Voice) -> None:
    for seconds in (2.9, 10.1):
        with pytest.raises(DatabaseError, match="clip_reference_3_to_10_seconds"), tenant_scope(voice.tenant_id):
            ReferenceClip.objects.update(reference_seconds=seconds)


def test_a_voice_id_is_made_by_the_server_and_tells_its_time_only(voice: Voice) -> None:
    assert isinstance(voice.id, UUID)
    assert voice.id.version == 7
