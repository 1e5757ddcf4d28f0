"""Shorthand of the engine tests."""

from __future__ import annotations

import hashlib

import numpy as np

from synthesis.engines.base import Mark, Samples, SpeechEngine, SynthesisOptions, VoicePrompt


def speak(
    engine: SpeechEngine, text: str, voice: VoicePrompt, language: str = "en", options: SynthesisOptions | None = None
) -> tuple[Samples, list[Mark]]:
    """All samples and marks of one call."""
    chunks = list(engine.synthesize(text, language=language, voice=voice, options=options or SynthesisOptions()))
    return np.concatenate([chunk.samples for chunk in chunks]), [mark for chunk in chunks for mark in chunk.marks]


def digest(samples: Samples) -> str:
    return hashlib.sha256(samples.tobytes()).hexdigest()


def words_of(text: str, marks: list[Mark]) -> list[str]:
    return [text[mark.text_start : mark.text_end] for mark in marks if mark.kind == "word"]
