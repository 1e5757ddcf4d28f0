"""The quality report of a clip: what was measured, and what to do about it in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing the speaker can do better. `code` is stable; `message` is for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class QualityReport:
    """JSON-safe. Levels are in dB relative to a full-scale square wave (dBFS); shares are 0 to 1.

    `container` to `silence_share` are about the file; the rest about the window that is used, which is
    [start_seconds, end_seconds) of it.
    """

    container: str  # wav | flac | ogg | mp3
    codec: str  # pcm_s16, flac, opus, ...
    channels: int
    sample_rate_hz: int
    original_seconds: float  # decoded, never what the header says
    is_examined_fully: bool  # False: longer than what is looked at, the rest was not decoded
    silence_share: float  # of the decoded seconds

    start_seconds: float
    end_seconds: float
    speech_seconds: float
    voiced_share: float  # of the speech, with a pitch between 60 and 400 Hz
    clipping_share: float  # of the samples, at the recording's own ceiling
    peak_dbfs: float
    active_level_dbfs: float  # mean power while somebody speaks
    loudness_lufs: float  # ITU-R BS.1770, gated
    noise_floor_dbfs: float
    snr_db: float
    bandwidth_hz: int  # up to where the voice is above the noise

    score: int  # 0 to 100
    advice: tuple[Advice, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "advice": [asdict(item) for item in self.advice]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> QualityReport:
        return cls(**{**data, "advice": tuple(Advice(**item) for item in data["advice"])})
