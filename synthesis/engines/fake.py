"""An engine for tests: a tone whose pitch is the voice's and whose length is the text's. Fast, no native code."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from synthesis.engines.base import (
    AudioChunk,
    EngineLanguage,
    Mark,
    ReferenceAudio,
    SynthesisOptions,
    VoicePrompt,
)
from synthesis.engines.errors import (
    EngineError,
    UnspeakableTextError,
    UnsupportedLanguageError,
    UnusableReferenceError,
    VoicePromptMismatchError,
)

SAMPLE_RATE_HZ = 24_000
LETTER_SECONDS = 0.05
PEAK = 0.25

_LANGUAGES = (
    EngineLanguage("de", "German", tested=True),
    EngineLanguage("en", "English (United States)", tested=True),
    EngineLanguage("en-gb", "English (Great Britain)"),
    EngineLanguage("es", "Spanish (Spain)", tested=True),
    EngineLanguage("fr", "French (France)", tested=True),
    EngineLanguage("ja", "Japanese", tested=True),
    EngineLanguage("ko", "Korean", tested=True),
    EngineLanguage("yue", "Chinese (Cantonese)", tested=True),
    EngineLanguage("zh", "Chinese (Mandarin)", tested=True),
)


class FakeEngine:
    """A `SpeechEngine` that keeps every promise of base.py but sounds like a beep.

    `segment_seconds` is slept before each segment's audio; `failure` is asked once per segment, with the number of
    segments started before, and may return an error to raise instead of speaking. `name` and `version` can be changed
    to stand for another engine.
    """

    def __init__(
        self,
        *,
        name: str = "fake",
        version: str = "1",
        segment_seconds: float = 0.0,
        failure: Callable[[int], EngineError | None] = lambda _segment: None,
    ) -> None:
        self._name = name
        self._version = version
        self._segment_seconds = segment_seconds
        self._failure = failure
        self._lock = threading.Lock()
        self._segments_started = 0
        self._voices_prepared = 0
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return self._version

    @property
    def sample_rate_hz(self) -> int:
        return SAMPLE_RATE_HZ

    @property
    def languages(self) -> Sequence[EngineLanguage]:
        return _LANGUAGES

    @property
    def mixed_languages(self) -> frozenset[str]:
        return frozenset()

    @property
    def voices_prepared(self) -> int:
        """How many references were analysed: tests of caches count with it."""
        return self._voices_prepared

    @property
    def segments_started(self) -> int:
        return self._segments_started

    def prepare_voice(self, clips: Sequence[ReferenceAudio]) -> VoicePrompt:
        """The voice's pitch comes from a digest of the clips, between 100 and 300 Hz."""
        self._check_open()
        if not clips:
            raise UnusableReferenceError("There is no reference recording.")
        digest = hashlib.sha256()
        for clip in clips:
            if not np.isfinite(clip.samples).all() or not np.abs(clip.samples).max(initial=0.0) > 1e-4:
                raise UnusableReferenceError("The recording is silent or damaged.")
            digest.update(np.asarray(clip.samples, dtype=np.float32).tobytes())
        with self._lock:
            self._voices_prepared += 1
        pitch_hz = 100.0 + 200.0 * int.from_bytes(digest.digest()[:4], "big") / 2**32
        return VoicePrompt(self._name, self._version, {"pitch_hz": np.array(pitch_hz, dtype=np.float64)})

    def synthesize(
        self, text: str, *, language: str, voice: VoicePrompt, options: SynthesisOptions
    ) -> Iterator[AudioChunk]:
        self._check_open()
        if language not in {known.code for known in _LANGUAGES}:
            raise UnsupportedLanguageError("The engine does not speak this language.", language=language)
        if not any(letter.isalnum() for letter in text):
            raise UnspeakableTextError("The text holds nothing that can be spoken.")
        if (voice.engine, voice.engine_version) != (self._name, self._version):
            raise VoicePromptMismatchError("The voice was prepared by another engine or version.")
        return self._speak(text, float(voice.arrays["pitch_hz"]), options)

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("The engine is closed.")

    def _speak(self, text: str, pitch_hz: float, options: SynthesisOptions) -> Iterator[AudioChunk]:
        with self._lock:
            number = self._segments_started
            self._segments_started += 1
        if self._segment_seconds > 0.0:
            time.sleep(self._segment_seconds)
        error = self._failure(number)
        if error is not None:
            raise error
        letter_samples = max(1, round(LETTER_SECONDS * SAMPLE_RATE_HZ / options.speed))
        samples = _beep(pitch_hz * 2.0 ** (options.pitch_semitones / 12.0), len(text) * letter_samples, options.seed)
        marks = [Mark("sentence", 0, len(text), 0, len(samples))]
        marks += [Mark("word", a, b, a * letter_samples, b * letter_samples) for a, b in _words(text)]
        # Two chunks, so that whoever reads only the first one is found out.
        middle = len(samples) // 2
        yield AudioChunk(samples[:middle], tuple(mark for mark in marks if mark.start_sample < middle))
        yield AudioChunk(samples[middle:], tuple(mark for mark in marks if mark.start_sample >= middle))


def _beep(pitch_hz: float, count: int, seed: int) -> NDArray[np.float32]:
    """(count,) samples of a tone with soft ends; the seed sets its phase."""
    phase = 2.0 * np.pi * (pitch_hz * np.arange(count) / SAMPLE_RATE_HZ + np.random.default_rng(seed).random())
    fade = np.minimum(1.0, np.minimum(np.arange(count), np.arange(count)[::-1]) / (0.005 * SAMPLE_RATE_HZ))
    return (PEAK * fade * np.sin(phase)).astype(np.float32)


def _words(text: str) -> list[tuple[int, int]]:
    """Spans of the words between spaces that hold a letter or digit."""
    spans = []
    start = 0
    for index in range(len(text) + 1):
        if index == len(text) or text[index].isspace():
            if any(letter.isalnum() for letter in text[start:index]):
                spans.append((start, index))
            start = index + 1
    return spans
