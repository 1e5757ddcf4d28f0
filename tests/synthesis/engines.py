"""Small engines for the renderer's tests: they say nothing, but their samples tell what became of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from synthesis.engines.base import (
    AudioChunk,
    EngineLanguage,
    Mark,
    ReferenceAudio,
    Samples,
    SynthesisOptions,
    VoicePrompt,
)
from synthesis.engines.errors import UnspeakableTextError

VOICE = VoicePrompt(engine="tone", engine_version="1", arrays={})
CODES = ("de", "en-us", "ja", "ko", "ru", "yue", "zh")


@dataclass
class ToneEngine:
    """Each call is a sine of `level`, `seconds_per_char` long, with silence of `edge_seconds` at both ends.

    Each word has a mark, its share of the sine. `calls` are what was asked for; `closed_calls` counts those that ended.
    """

    level: float = 0.5
    frequency_hz: float = 220.0
    sample_rate_hz: int = 24_000
    seconds_per_char: float = 0.02
    edge_seconds: float = 0.1
    chunk_seconds: float = 0.1
    unspeakable: str = "\0"
    name: str = "tone"
    version: str = "1"
    languages: Sequence[EngineLanguage] = field(default_factory=lambda: [EngineLanguage(code, code) for code in CODES])
    mixed_languages: frozenset[str] = frozenset()
    calls: list[tuple[str, str]] = field(default_factory=list)
    urgent_calls: list[bool] = field(default_factory=list)  # of each call
    closed_calls: int = 0

    def prepare_voice(self, clips: Sequence[ReferenceAudio]) -> VoicePrompt:
        return VOICE

    def synthesize(
        self, text: str, *, language: str, voice: VoicePrompt, options: SynthesisOptions
    ) -> Iterator[AudioChunk]:
        self.calls.append((language, text))
        self.urgent_calls.append(options.is_urgent)
        try:
            if self.unspeakable in text:
                raise UnspeakableTextError("nothing to say")
            samples, marks = self.speak(text)
            size = round(self.chunk_seconds * self.sample_rate_hz)
            for start in range(0, len(samples), size):
                begun = tuple(mark for mark in marks if start <= mark.start_sample < start + size)
                yield AudioChunk(samples[start : start + size], begun)
        finally:
            self.closed_calls += 1

    def speak(self, text: str) -> tuple[Samples, list[Mark]]:
        edge = round(self.edge_seconds * self.sample_rate_hz)
        per_char = round(self.seconds_per_char * self.sample_rate_hz)
        phase = np.arange(per_char * len(text)) * 2 * np.pi * self.frequency_hz / self.sample_rate_hz
        silence = np.zeros(edge)
        samples = np.concatenate((silence, self.level * np.cos(phase), silence)).astype(np.float32)
        marks = [
            Mark("word", word.start(), word.end(), edge + per_char * word.start(), edge + per_char * word.end())
            for word in re.finditer(r"\w+", text)
        ]
        return samples, marks

    def close(self) -> None: ...
