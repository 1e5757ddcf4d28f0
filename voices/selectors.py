"""Reads of voices. All need an open `tenant_scope`; an erased voice looks like one that never was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from uuid import UUID

from django.db.models import QuerySet

from voices.errors import (
    ConsentRequiredError,
    ConsentWithdrawnError,
    VoiceNotFoundError,
    VoiceNotReadyError,
    VoicePreparationFailedError,
)
from voices.models import Consent, ConsentKind, PreparedVoice, ReferenceClip, Voice, VoiceStatus


def list_voices(*, status: str | None = None, search: str = "") -> QuerySet[Voice]:
    """Newest first, with clips and consents at hand. `search` is any part of the name, in any case."""
    voices: QuerySet[Voice] = Voice.objects.exclude(status=VoiceStatus.ERASED).prefetch_related("clips", "consents")
    if status is not None:
        voices = voices.filter(status=status)
    if search:
        voices = voices.filter(name__icontains=search)
    return voices


def get_voice(*, voice_id: UUID) -> Voice:
    """A voice in any state but erased. Raises VoiceNotFoundError."""
    voice = list_voices().filter(id=voice_id).first()
    if voice is None:
        raise VoiceNotFoundError
    return voice


def get_ready_voice(*, voice_id: UUID) -> Voice:
    """A voice that may be spoken in now: prepared, and with live consent.

    Raises VoiceNotFoundError, ConsentRequiredError, ConsentWithdrawnError, VoiceNotReadyError,
    VoicePreparationFailedError.
    """
    voice = get_consented_voice(voice_id=voice_id)
    if voice.status == VoiceStatus.PREPARING:
        raise VoiceNotReadyError
    if voice.status == VoiceStatus.FAILED:
        raise VoicePreparationFailedError(failure_code=voice.failure_code, failure_message=voice.failure_message)
    return voice


def get_consented_voice(*, voice_id: UUID) -> Voice:
    """A voice in any state whose consent is live: one that may be learned from.

    Raises VoiceNotFoundError, ConsentRequiredError, ConsentWithdrawnError.
    """
    voice = get_voice(voice_id=voice_id)
    consent = last_consent(voice)
    if consent is None:
        raise ConsentRequiredError
    if consent.kind != ConsentKind.GIVEN:
        raise ConsentWithdrawnError
    return voice


def get_model_name(*, voice_id: UUID) -> str:
    """The model that a voice is to be spoken with: its own, or else its tenant's; blank when neither names one."""
    named = Voice.objects.filter(id=voice_id).values_list("model", "tenant__voice_model").first()
    return next((name for name in named or () if name), "")


def last_consent(voice: Voice) -> Consent | None:
    """The row that counts: the last one given or withdrawn."""
    return max(voice.consents.all(), key=lambda row: (row.recorded_at, row.id), default=None)


def get_reference_clip(voice: Voice) -> ReferenceClip | None:
    """The clip that describes the voice: its first."""
    return min(voice.clips.all(), key=lambda clip: (clip.created_at, clip.id), default=None)


def learning_digest(*, voice: Voice) -> str:
    """SHA-256 (hex) over all that an engine learns a voice from: its clips' audio, their transcripts, the language."""
    clips = ReferenceClip.objects.filter(voice_id=voice.id).order_by("audio_digest", "transcript")
    learned_from = [voice.language, *clips.values_list("audio_digest", "transcript")]
    return hashlib.sha256(json.dumps(learned_from, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


def find_object_keys(*, keys: Collection[str]) -> set[str]:
    """Those of `keys` that a clip or a prepared voice names, of an erased voice too."""
    return {
        key
        for model in (ReferenceClip, PreparedVoice)
        for key in model.objects.filter(storage_key__in=keys).values_list("storage_key", flat=True)
    }


def find_prepared_voice(*, voice: Voice, engine: str, engine_version: str) -> PreparedVoice | None:
    """What this engine version learned from the clips the voice has now, or None."""
    found: PreparedVoice | None = PreparedVoice.objects.filter(
        voice_id=voice.id,
        engine=engine,
        engine_version=engine_version,
        key_epoch=voice.key_epoch,
        audio_digest=learning_digest(voice=voice),
    ).first()
    return found
