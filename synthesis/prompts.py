"""Prepared voices: learned once per engine version, then found in memory, in Redis, or in storage.

A request never analyses the reference again. Every lookup asks the database first which clips and which key the voice
has now, and the caches are keyed by the answer: what was erased or changed is not found under it.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

import numpy as np
import soundfile
import structlog

from synthesis.engines.base import ReferenceAudio, SpeechEngine, VoicePrompt
from synthesis.metrics import PromptLevel, count_prompt_load
from tenants.redis import RedisError, redis_breaker, redis_client
from tenants.scoping import tenant_scope
from voices import selectors as voices_selectors
from voices import services as voices
from voices.models import PreparedVoice, Voice

log = structlog.get_logger(__name__)

MEMORY_BYTES: Final = 256 << 20  # of this process; a parametric prompt has 2 kB, a neural one up to 2 MB
REDIS_SECONDS: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class PromptKey:
    """Where a prompt is cached: equal exactly when the same engine would learn the same thing."""

    tenant_id: UUID
    voice_id: UUID
    engine: str
    engine_version: str
    key_epoch: int
    audio_digest: str

    @property
    def redis_field(self) -> str:
        return f"{self.engine}:{self.engine_version}:{self.key_epoch}:{self.audio_digest}"


def redis_key(tenant_id: UUID, voice_id: UUID) -> str:
    """One hash per voice, so that one DEL forgets it."""
    return f"{tenant_id}:prompt:{voice_id}"


class PromptMemory:
    """The prompts used last in this process, up to `limit` bytes of arrays; those unused longest are dropped.

    A single prompt larger than that is kept until the next one comes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._prompts: OrderedDict[PromptKey, VoicePrompt] = OrderedDict()
        self._bytes = 0

    def get(self, key: PromptKey) -> VoicePrompt | None:
        with self._lock:
            prompt = self._prompts.get(key)
            if prompt is not None:
                self._prompts.move_to_end(key)
            return prompt

    def put(self, key: PromptKey, prompt: VoicePrompt) -> None:
        with self._lock:
            self._drop(key)
            self._prompts[key] = prompt
            self._bytes += _array_bytes(prompt)
            while self._bytes > self._limit and len(self._prompts) > 1:
                self._drop(next(iter(self._prompts)))

    def drop_voice(self, tenant_id: UUID, voice_id: UUID) -> None:
        with self._lock:
            for key in [key for key in self._prompts if (key.tenant_id, key.voice_id) == (tenant_id, voice_id)]:
                self._drop(key)

    def clear(self) -> None:
        with self._lock:
            self._prompts.clear()
            self._bytes = 0

    def _drop(self, key: PromptKey) -> None:
        prompt = self._prompts.pop(key, None)
        if prompt is not None:
            self._bytes -= _array_bytes(prompt)


def _array_bytes(prompt: VoicePrompt) -> int:
    return sum(array.nbytes for array in prompt.arrays.values())


memory = PromptMemory(MEMORY_BYTES)
_learning = threading.Lock()  # one analysis at a time: it takes a whole core, and a twin then finds the result


def load_prompt(*, tenant_id: UUID, voice_id: UUID, engine: SpeechEngine) -> VoicePrompt:
    """The prepared voice for a render. Raises what `get_ready_voice` raises, and EngineError."""
    with tenant_scope(tenant_id):
        voice = voices_selectors.get_ready_voice(voice_id=voice_id)
    prompt, level = _find_or_learn(voice, engine)
    count_prompt_load(level)
    return prompt


def prepare(*, tenant_id: UUID, voice_id: UUID, engine: SpeechEngine) -> int:
    """Learn a voice that is not ready yet; returns the key epoch of the clips that were learned.

    Raises VoiceNotFoundError, ConsentWithdrawnError, UnusableReferenceError.
    """
    with tenant_scope(tenant_id):
        voice = voices_selectors.get_consented_voice(voice_id=voice_id)
    _find_or_learn(voice, engine)
    return voice.key_epoch


def purge(*, tenant_id: UUID, voice_id: UUID) -> None:
    """Forget a voice in this process and in Redis. Other processes cannot find it: they ask the database first."""
    memory.drop_voice(tenant_id, voice_id)
    try:
        redis_client().delete(redis_key(tenant_id, voice_id))
    except RedisError as error:  # sealed with a key that is gone, and it ends by itself
        log.warning("prompt_not_purged", voice_id=str(voice_id), reason=type(error).__name__)


def _find_or_learn(voice: Voice, engine: SpeechEngine) -> tuple[VoicePrompt, PromptLevel]:
    with tenant_scope(voice.tenant_id):
        key = PromptKey(
            tenant_id=voice.tenant_id,
            voice_id=voice.id,
            engine=engine.name,
            engine_version=engine.version,
            key_epoch=voice.key_epoch,
            audio_digest=voices_selectors.learning_digest(voice=voice),
        )
    if (remembered := memory.get(key)) is not None:
        return remembered, PromptLevel.MEMORY
    prompt, level = _find_stored(voice, key) or _learn(voice, key, engine)
    memory.put(key, prompt)
    return prompt, level


def _find_stored(voice: Voice, key: PromptKey) -> tuple[VoicePrompt, PromptLevel] | None:
    with tenant_scope(voice.tenant_id):
        prepared = voices_selectors.find_prepared_voice(
            voice=voice, engine=key.engine, engine_version=key.engine_version
        )
    if prepared is None:
        return None
    sealed, level = _read_redis(key), PromptLevel.REDIS
    if sealed is None:
        sealed, level = voices.read_sealed_prepared(prepared), PromptLevel.STORAGE
        _write_redis(key, sealed)
    return VoicePrompt.from_bytes(voices.unseal_prepared(prepared=prepared, sealed=sealed)), level


def _learn(voice: Voice, key: PromptKey, engine: SpeechEngine) -> tuple[VoicePrompt, PromptLevel]:
    with _learning:
        if (remembered := memory.get(key)) is not None:
            return remembered, PromptLevel.MEMORY
        if (found := _find_stored(voice, key)) is not None:
            return found
        clips = voices.read_reference_clips(tenant_id=voice.tenant_id, voice_id=voice.id)
        prompt = engine.prepare_voice([_decode(clip) for clip in clips])
        prepared: PreparedVoice = voices.store_prepared_voice(
            tenant_id=voice.tenant_id,
            voice_id=voice.id,
            key_epoch=key.key_epoch,
            engine=key.engine,
            engine_version=key.engine_version,
            audio_digest=key.audio_digest,
            data=prompt.to_bytes(),
        )
    log.info("voice_learned", voice_id=str(voice.id), engine=key.engine, size_bytes=prepared.size_bytes)
    return prompt, PromptLevel.LEARNED


def _decode(clip: voices.StoredClip) -> ReferenceAudio:
    samples, sample_rate_hz = soundfile.read(io.BytesIO(clip.wav), dtype="float32")
    return ReferenceAudio(
        samples=np.ascontiguousarray(samples),
        sample_rate_hz=sample_rate_hz,
        language=clip.language or None,
        transcript=clip.transcript or None,
    )


def _read_redis(key: PromptKey) -> bytes | None:
    if redis_breaker.is_open:
        return None
    try:
        found = redis_client().hget(redis_key(key.tenant_id, key.voice_id), key.redis_field)
    except RedisError:
        redis_breaker.failed()
        return None
    return found if isinstance(found, bytes) else None


def _write_redis(key: PromptKey, sealed: bytes) -> None:
    if redis_breaker.is_open:
        return
    try:
        with redis_client().pipeline(transaction=False) as pipeline:
            name = redis_key(key.tenant_id, key.voice_id)
            pipeline.hset(name, key.redis_field, cast(Any, sealed))
            pipeline.expire(name, REDIS_SECONDS)
            pipeline.execute()
    except RedisError:
        redis_breaker.failed()
