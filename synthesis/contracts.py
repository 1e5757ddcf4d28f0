"""What crosses the borders between API, worker and serverless function: plain Python, JSON-safe.

Imports nothing of Django, Celery or the engines' libraries.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

WORK_TASK = "synthesis.work"
SPEECH_QUEUE = "speech"  # somebody is listening
BATCH_QUEUE = "batch"

AUTO_LANGUAGE = "auto"
MAX_SPEECH_CHARS = 5_000
MAX_JOB_CHARS = 100_000
MIN_SPEED, MAX_SPEED = 0.5, 2.0
MIN_PITCH_SEMITONES, MAX_PITCH_SEMITONES = -12.0, 12.0
MAX_SEED = 2**32 - 1


class AudioFormat(enum.StrEnum):
    WAV = "wav"
    FLAC = "flac"
    MP3 = "mp3"
    OPUS = "opus"
    PCM = "pcm"  # 16-bit little-endian mono, no container


CONTENT_TYPES: Mapping[AudioFormat, str] = {
    AudioFormat.WAV: "audio/wav",
    AudioFormat.FLAC: "audio/flac",
    AudioFormat.MP3: "audio/mpeg",
    AudioFormat.OPUS: "audio/ogg",
    AudioFormat.PCM: "audio/pcm",
}

# FLAC's header holds the length, and libFLAC-based readers refuse one without: it is sent when it is whole.
LIVE_FORMATS = frozenset({AudioFormat.WAV, AudioFormat.MP3, AudioFormat.OPUS, AudioFormat.PCM})

# Opus codes only these rates (RFC 6716, section 2); MPEG layer III only those of ISO 11172-3 and 13818-3.
SAMPLE_RATES_HZ: Mapping[AudioFormat, tuple[int, ...]] = {
    AudioFormat.WAV: (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    AudioFormat.FLAC: (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    AudioFormat.MP3: (16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    AudioFormat.OPUS: (8_000, 16_000, 24_000, 48_000),
    AudioFormat.PCM: (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
}


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """All a renderer needs. JSON-safe; holds no database id."""

    text: str  # the request's own text, unchanged: marks count its code points
    language: str  # product code, or `auto`
    audio_format: AudioFormat
    sample_rate_hz: int
    voice_prompt_key: str = ""  # object-storage key of the prepared voice
    speed: float = 1.0
    pitch_semitones: float = 0.0
    seed: int = 0
    pronunciations: tuple[tuple[str, str], ...] = ()  # (written, spoken)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RenderRequest:
        pairs = tuple((str(written), str(spoken)) for written, spoken in data.get("pronunciations", ()))
        return cls(**{**data, "audio_format": AudioFormat(data["audio_format"]), "pronunciations": pairs})


@dataclass(frozen=True, slots=True)
class TextMark:
    """A word or sentence: code points of the request's own text, and milliseconds in the finished audio."""

    kind: str  # word | sentence
    text_start: int
    text_end: int
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class RenderedChunk:
    """Encoded bytes in the order they are sent.

    `text_end`: the request's text up to this code point sounds completely in the bytes up to and including this chunk;
    it grows only with the last chunk of a segment, and reaches `len(text)` with the last chunk of all.
    """

    data: bytes
    segment_index: int
    text_end: int
    marks: tuple[TextMark, ...] = ()


@dataclass(frozen=True, slots=True)
class RenderResult:
    """What a finished rendering was. The artifact itself is in the file the renderer was given."""

    audio_frames: int  # samples per channel at `sample_rate_hz`
    sample_rate_hz: int
    size_bytes: int
    sha256: str  # of the artifact, hex
    segments: int
    engine: str
    engine_version: str
    marks: tuple[TextMark, ...] = ()

    @property
    def audio_seconds(self) -> float:
        return self.audio_frames / self.sample_rate_hz
