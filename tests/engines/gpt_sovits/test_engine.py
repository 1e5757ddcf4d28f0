"""The neural engine keeps the promises of `SpeechEngine`: what a renderer and a worker rely on."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soxr

from synthesis.contracts import AudioFormat, RenderRequest
from synthesis.engines.base import ReferenceAudio, Samples, SpeechEngine, SynthesisOptions, VoicePrompt
from synthesis.engines.errors import (
    EngineError,
    UnspeakableTextError,
    UnsupportedLanguageError,
    UnusableReferenceError,
    VoicePromptMismatchError,
)
from synthesis.engines.gpt_sovits.config import ModelVersion
from synthesis.engines.gpt_sovits.engine import LONGEST_PHONES, GptSovitsEngine
from synthesis.engines.gpt_sovits.errors import ModelNotFoundError, UnsupportedModelError
from synthesis.engines.gpt_sovits.library import Library, Precision
from synthesis.rendering import render
from tests.engines.gpt_sovits.conftest import END_LOGIT, make_clip
from tests.engines.gpt_sovits.random_models import install

pytestmark = pytest.mark.usefixtures("no_guards")

TEXT = "今天天气真好,我们去公园散步吧。"


def speak(
    engine: SpeechEngine, voice: VoicePrompt, text: str = TEXT, language: str = "zh", **changes: object
) -> Samples:
    options = replace(SynthesisOptions(), **changes)  # type: ignore[arg-type]
    chunks = engine.synthesize(text, language=language, voice=voice, options=options)
    return np.concatenate([chunk.samples for chunk in chunks])


def test_it_is_a_speech_engine_that_names_itself_and_its_model(
    neural: GptSovitsEngine, neural_voice: VoicePrompt
) -> None:
    assert isinstance(neural, SpeechEngine)
    assert (neural_voice.engine, neural_voice.engine_version) == ("gpt_sovits", neural.version)
    assert neural.version.startswith("1-v2-")
    assert len(neural.version) <= 64
    assert neural.sample_rate_hz == 32_000
    assert {language.code for language in neural.languages} == {"zh", "yue", "en", "ja", "ko"}


@pytest.mark.parametrize("is_urgent", [False, True])
def test_equal_arguments_give_equal_bytes_on_all_threads(
    neural: GptSovitsEngine, neural_voice: VoicePrompt, is_urgent: bool
) -> None:
    with ThreadPoolExecutor(4) as threads:
        waves = list(
            threads.map(lambda _: speak(neural, neural_voice, seed=5, is_urgent=is_urgent).tobytes(), range(8))
        )
    assert len(set(waves)) == 1
    assert len(waves[0]) > 40_000


def test_a_stored_voice_speaks_like_the_fresh_one(neural: GptSovitsEngine, neural_voice: VoicePrompt) -> None:
    again = VoicePrompt.from_bytes(neural_voice.to_bytes())
    assert np.array_equal(speak(neural, again), speak(neural, neural_voice))
    assert neural.prepare_voice([make_clip()]).to_bytes() == neural_voice.to_bytes()


def test_the_seed_and_the_voice_are_heard(neural: GptSovitsEngine, neural_voice: VoicePrompt) -> None:
    other_voice = neural.prepare_voice([make_clip(3)])
    waves = [speak(neural, neural_voice), speak(neural, neural_voice, seed=1), speak(neural, other_voice)]
    assert len({wave.tobytes() for wave in waves}) == 3


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_speed_changes_the_length(neural: GptSovitsEngine, neural_voice: VoicePrompt, speed: float) -> None:
    plain, changed = speak(neural, neural_voice), speak(neural, neural_voice, speed=speed)
    assert len(changed) * speed / len(plain) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("semitones", [-12.0, 7.0])
def test_pitch_changes_the_pitch_and_not_the_length(
    neural: GptSovitsEngine, neural_voice: VoicePrompt, semitones: float
) -> None:
    plain = speak(neural, neural_voice)
    moved = speak(neural, neural_voice, pitch_semitones=semitones)
    assert len(moved) / len(plain) == pytest.approx(1.0, abs=0.05)
    unmoved = speak(neural, neural_voice, speed=2.0 ** (-semitones / 12))
    # A replay of slower or faster speech: half its samples an octave up.
    assert len(moved) / len(unmoved) == pytest.approx(2.0 ** (-semitones / 12), abs=0.02)
    expected = soxr.resample(unmoved, 32_000 * 2.0 ** (semitones / 12), 32_000, quality="HQ")
    length = min(len(moved), len(expected))
    assert np.abs(moved[:length] - expected[:length]).max() < 1e-3


def test_pronunciations_are_said_instead(neural: GptSovitsEngine, neural_voice: VoicePrompt) -> None:
    from synthesis.engines.base import Pronunciation

    said = speak(neural, neural_voice, "Cantoria sings.", "en", pronunciations=(Pronunciation("cantoria", "a choir"),))
    assert np.array_equal(said, speak(neural, neural_voice, "a choir sings.", "en"))


@pytest.mark.parametrize(
    ("text", "language"),
    [("7" * 200, "en"), ("7 " * 100, "en"), ("7" * 200, "zh"), ("ㅋ" * 200, "ko"), ("WWW" * 66, "ja")],
)
def test_a_segment_of_more_phones_than_the_decoder_takes_is_said_in_parts(
    neural: GptSovitsEngine, neural_voice: VoicePrompt, text: str, language: str
) -> None:
    reads = neural._read(text, language, SynthesisOptions())
    assert all(len(phones) <= LONGEST_PHONES for phones, _ in reads)
    assert len(speak(neural, neural_voice, text, language, is_urgent=True)) > 10_000


def test_what_it_cannot_do_is_said_before_any_sound(neural: GptSovitsEngine, neural_voice: VoicePrompt) -> None:
    options = SynthesisOptions()
    with pytest.raises(UnsupportedLanguageError):
        neural.synthesize(TEXT, language="de", voice=neural_voice, options=options)
    with pytest.raises(UnspeakableTextError):
        neural.synthesize("…!", language="zh", voice=neural_voice, options=options)
    for stranger in (
        replace(neural_voice, engine="parametric"),
        replace(neural_voice, engine_version="1-v2-other"),
        replace(neural_voice, arrays={}),
    ):
        with pytest.raises(VoicePromptMismatchError):
            neural.synthesize(TEXT, language="zh", voice=stranger, options=options)


@pytest.mark.parametrize("damage", ["silent", "not a number", "short"])
def test_a_useless_reference_is_refused(neural: GptSovitsEngine, damage: str) -> None:
    clip = make_clip()
    samples = {
        "silent": np.zeros_like(clip.samples),
        "not a number": np.full_like(clip.samples, np.nan),
        "short": clip.samples[:1000],
    }[damage]
    with pytest.raises(UnusableReferenceError):
        neural.prepare_voice([ReferenceAudio(samples, clip.sample_rate_hz, transcript="今天。", language="zh")])


# --- through the renderer -----------------------------------------------------------------------


def rendered(engine: SpeechEngine, voice: VoicePrompt, text: str) -> tuple[bytes, bytes]:
    request = RenderRequest(text=text, language="auto", audio_format=AudioFormat.PCM, sample_rate_hz=24_000)
    artifact = io.BytesIO()
    rendering = render(request, engine=engine, voice=voice, artifact=artifact)
    streamed = b"".join(chunk.data for chunk in rendering)
    assert [mark.kind for mark in rendering.result.marks] == ["sentence"] * rendering.result.segments
    return streamed, artifact.getvalue()


def test_a_whole_text_is_rendered_the_same_twice(neural: GptSovitsEngine, neural_voice: VoicePrompt) -> None:
    text = (
        "今天天气真好,我们去公园散步吧。The old bridge was closed, so we took the ferry instead. 今日はいい天気ですね。"
    )
    streamed, artifact = rendered(neural, neural_voice, text)
    assert streamed == artifact
    assert len(artifact) > 3 * 48_000
    assert rendered(neural, neural_voice, text) == (streamed, artifact)


# --- several models -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    folder = tmp_path_factory.mktemp("two")
    install(folder, tmp_path_factory.mktemp("a"), name="warm", end_logit=END_LOGIT)
    install(folder, tmp_path_factory.mktemp("b"), ModelVersion.V1, name="old", seed=2, end_logit=END_LOGIT)
    library = Library(folder, default_model="warm", device="cpu")
    yield library
    library.close()


def test_models_live_side_by_side(two_models: Library) -> None:
    warm, old = two_models.open(), two_models.open("old")
    assert two_models.open("warm") is warm
    assert warm.version != old.version
    assert {language.code for language in old.languages} == {"zh", "en", "ja"}
    voices = [engine.prepare_voice([make_clip()]) for engine in (warm, old)]
    assert not np.array_equal(speak(warm, voices[0]), speak(old, voices[1]))
    with pytest.raises(VoicePromptMismatchError):
        speak(old, voices[0])
    with pytest.raises(UnsupportedLanguageError):
        speak(old, voices[1], "안녕하세요.", "ko")


def test_a_model_that_is_not_there_is_named(two_models: Library, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="bright"):
        two_models.open("bright")
    with pytest.raises(ModelNotFoundError):
        Library(tmp_path, device="cpu").open()


def test_a_hop_length_that_contradicts_the_models_stops_start_up(model_path: Path) -> None:
    Library(model_path, hop_length=640)
    with pytest.raises(UnsupportedModelError, match="HOP_LENGTH"):
        Library(model_path, hop_length=320)


def test_half_precision_is_another_version_and_close(model_path: Path, neural: GptSovitsEngine) -> None:
    library = Library(model_path, device="cpu", precision=Precision.BF16)
    try:
        engine = library.open()
        assert engine.version != neural.version
        voice = engine.prepare_voice([make_clip()])
        plain = neural.prepare_voice([make_clip()])
        # What hears the reference stays float32.
        assert np.array_equal(voice.arrays["codes"], plain.arrays["codes"])
        assert np.isfinite(speak(engine, voice)).all()
    finally:
        library.close()


def test_a_closed_engine_raises_and_may_be_closed_again(tmp_path: Path, model_path: Path) -> None:
    library = Library(model_path, device="cpu")
    engine = library.open()
    voice = engine.prepare_voice([make_clip()])
    library.close()
    library.close()
    for use in (lambda: engine.prepare_voice([make_clip()]), lambda: speak(engine, voice)):
        with pytest.raises(EngineError, match="closed"):
            use()
