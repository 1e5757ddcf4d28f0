"""What every engine promises in synthesis/engines/base.py; the fake one keeps the same promises as the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from synthesis.engines.base import ReferenceAudio, SpeechEngine, SynthesisOptions, VoicePrompt
from synthesis.engines.errors import (
    EngineCrashedError,
    EngineError,
    UnspeakableTextError,
    UnsupportedLanguageError,
    UnusableReferenceError,
    VoicePromptMismatchError,
)
from synthesis.engines.fake import FakeEngine
from synthesis.engines.parametric import ParametricEngine
from tests.engines.speaking import digest, speak, words_of

TEXT = "  The old bridge was closed, so we took the ferry instead. "

MAKERS: dict[str, Callable[[], SpeechEngine]] = {
    "fake": FakeEngine,
    "parametric": lambda: ParametricEngine(espeak_workers=2),
}


@pytest.fixture(scope="module", params=sorted(MAKERS))
def engine(request: pytest.FixtureRequest) -> Iterator[SpeechEngine]:
    made = MAKERS[request.param]()
    yield made
    made.close()


@pytest.fixture(scope="module")
def prompt(engine: SpeechEngine, reference: ReferenceAudio) -> VoicePrompt:
    return engine.prepare_voice([reference])


def test_it_is_a_speech_engine_that_names_itself(engine: SpeechEngine, prompt: VoicePrompt) -> None:
    assert isinstance(engine, SpeechEngine)
    assert (prompt.engine, prompt.engine_version) == (engine.name, engine.version)
    codes = [language.code for language in engine.languages]
    assert len(codes) == len(set(codes))
    tested = {language.code for language in engine.languages if language.tested}
    assert tested >= {"zh", "yue", "en", "ja", "ko", "fr", "de", "es"}


def test_chunks_hold_audible_float_samples(engine: SpeechEngine, prompt: VoicePrompt) -> None:
    chunks = list(engine.synthesize(TEXT, language="en", voice=prompt, options=SynthesisOptions()))
    assert chunks
    for chunk in chunks:
        assert chunk.samples.dtype == np.float32
        assert chunk.samples.ndim == 1
        assert np.isfinite(chunk.samples).all()
    samples = np.concatenate([chunk.samples for chunk in chunks])
    assert 1.0 < len(samples) / engine.sample_rate_hz < 10.0
    assert 0.01 < float(np.sqrt(np.mean(samples**2))) < 0.4


def test_marks_are_ordered_and_point_into_the_text(engine: SpeechEngine, prompt: VoicePrompt) -> None:
    samples, marks = speak(engine, TEXT, prompt)
    words = [mark for mark in marks if mark.kind == "word"]
    sentences = [mark for mark in marks if mark.kind == "sentence"]
    assert len(sentences) >= 1
    assert [word.strip(",.") for word in words_of(TEXT, marks)] == TEXT.replace(",", "").replace(".", "").split()
    for before, after in pairwise(words):
        assert before.text_end <= after.text_start
        assert before.end_sample <= after.start_sample
    for mark in marks:
        assert 0 <= mark.text_start < mark.text_end <= len(TEXT)
        assert 0 <= mark.start_sample < mark.end_sample <= len(samples)


def test_a_chunk_carries_the_marks_that_begin_in_it(engine: SpeechEngine, prompt: VoicePrompt) -> None:
    start = 0
    for chunk in engine.synthesize(TEXT, language="en", voice=prompt, options=SynthesisOptions()):
        end = start + len(chunk.samples)
        assert all(start <= mark.start_sample < end for mark in chunk.marks)
        start = end


def test_equal_arguments_give_equal_bytes_on_all_threads(engine: SpeechEngine, prompt: VoicePrompt) -> None:
    def once(_: int) -> str:
        return digest(speak(engine, TEXT, prompt, options=SynthesisOptions(seed=5))[0])

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(once, range(8)))) == 1


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 an archive", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_no_prepared_voice_is_refused(data: bytes) -> None:
    with pytest.raises(VoicePromptMismatchError):
        VoicePrompt.from_bytes(data)


def test_a_stored_voice_speaks_like_the_fresh_one(engine: SpeechEngine, prompt: VoicePrompt) -> None:
    stored = prompt.to_bytes()
    assert stored == prompt.to_bytes()
    again = VoicePrompt.from_bytes(stored)
    assert digest(speak(engine, TEXT, again)[0]) == digest(speak(engine, TEXT, prompt)[0])


def test_preparing_twice_gives_equal_bytes(
    engine: SpeechEngine, prompt: VoicePrompt, reference: ReferenceAudio
) -> None:
    assert engine.prepare_voice([reference]).to_bytes() == prompt.to_bytes()


def test_speed_and_seed_change_the_sound(engine: SpeechEngine, prompt: VoicePrompt) -> None:
    plain = speak(engine, TEXT, prompt)[0]
    fast, marks = speak(engine, TEXT, prompt, options=SynthesisOptions(speed=2.0))
    assert 0.4 < len(fast) / len(plain) < 0.65
    assert max(mark.end_sample for mark in marks) <= len(fast)
    assert digest(speak(engine, TEXT, prompt, options=SynthesisOptions(seed=1))[0]) != digest(plain)


def test_unknown_language_is_refused(engine: SpeechEngine, prompt: VoicePrompt) -> None:
    with pytest.raises(UnsupportedLanguageError):
        speak(engine, TEXT, prompt, language="tlh-none")


@pytest.mark.parametrize("text", ["", " \n", "...!?", "—“”…", "\U0001f44d\U0001f3fd", "。！？"])
def test_text_without_words_is_refused(engine: SpeechEngine, prompt: VoicePrompt, text: str) -> None:
    with pytest.raises(UnspeakableTextError):
        speak(engine, text, prompt)


def test_a_voice_of_another_engine_or_version_is_refused(engine: SpeechEngine, prompt: VoicePrompt) -> None:
    for name, version in (("other", engine.version), (engine.name, "0")):
        with pytest.raises(VoicePromptMismatchError):
            speak(engine, TEXT, VoicePrompt(name, version, prompt.arrays))


def test_a_silent_reference_is_refused(engine: SpeechEngine) -> None:
    with pytest.raises(UnusableReferenceError):
        engine.prepare_voice([ReferenceAudio(np.zeros(24_000 * 4, dtype=np.float32), 24_000)])
    with pytest.raises(UnusableReferenceError):
        engine.prepare_voice([])


def test_a_damaged_reference_is_refused(engine: SpeechEngine, reference: ReferenceAudio) -> None:
    damaged = reference.samples.copy()
    damaged[100] = np.nan
    with pytest.raises(UnusableReferenceError):
        engine.prepare_voice([ReferenceAudio(damaged, reference.sample_rate_hz)])


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_closed_engine_raises(name: str, reference: ReferenceAudio) -> None:
    engine = MAKERS[name]()
    prompt = engine.prepare_voice([reference])
    engine.close()
    engine.close()
    with pytest.raises(EngineError):
        speak(engine, TEXT, prompt)
    with pytest.raises(EngineError):
        engine.prepare_voice([reference])


def test_the_fake_engine_fails_where_it_is_told_to(reference: ReferenceAudio) -> None:
    def fail_second(segment: int) -> EngineError | None:
        return EngineCrashedError("told to") if segment == 1 else None

    engine = FakeEngine(failure=fail_second)
    prompt = engine.prepare_voice([reference])
    speak(engine, "one", prompt)
    with pytest.raises(EngineCrashedError):
        speak(engine, "two", prompt)
    speak(engine, "three", prompt)
    assert (engine.voices_prepared, engine.segments_started) == (1, 3)
