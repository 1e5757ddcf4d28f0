"""What the parametric engine makes of a reference: pitch, timbre, level, speed; and always the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import pyworld
import soundfile

from synthesis.engines.audio import rms
from synthesis.engines.base import Pronunciation, ReferenceAudio, Samples, SynthesisOptions, VoicePrompt
from synthesis.engines.errors import UnusableReferenceError
from synthesis.engines.parametric import ParametricEngine, make_demo_reference
from synthesis.engines.parametric.spectra import BAND_HZ, NEPER_PER_DB, log_mel
from synthesis.engines.parametric.world import F64, analyse_clean
from tests.engines.references import make_reference
from tests.engines.speaking import digest, speak, words_of

PARAGRAPH = (
    "The harbour was quiet when the last boat came home. A man with a lamp walked along the wall, counting windows, "
    "and sang an old song about the winter."
)
SENTENCE = "A man with a lamp walked along the wall, counting windows."
TESTED = {
    "zh": "昨天我们在湖边看见了三只白鸟。",
    "yue": "佢哋聽日會去長洲食海鮮。",
    "en": "A small boat crossed the lake at noon.",
    "ja": "弟は昨日、学校で絵を描きました。",
    "ko": "우리는 어제 호수에서 하얀 새를 봤어요.",
    "fr": "Nous avons vu trois oiseaux blancs près du lac.",
    "de": "Gestern sahen wir drei weiße Vögel am See.",
    "es": "Ayer vimos tres pájaros blancos junto al lago.",
}


def track_f0_hz(samples: Samples) -> F64:
    f0, _ = pyworld.harvest(samples.astype(np.float64), 24_000, f0_floor=60.0, f0_ceil=600.0)
    return np.asarray(f0)


def median_f0_hz(samples: Samples) -> float:
    f0 = track_f0_hz(samples)
    return float(np.median(f0[f0 > 0]))


def voiced_shape_db(samples: Samples) -> F64:
    """Mean log mel envelope of voiced speech from 300 Hz to 5 kHz, mean removed."""
    analysis = analyse_clean(samples.astype(np.float64))
    shape = log_mel(analysis.envelope[analysis.is_voiced]).mean(axis=0)[(BAND_HZ > 300) & (BAND_HZ < 5000)]
    return np.asarray((shape - shape.mean()) / NEPER_PER_DB)


@pytest.mark.parametrize(("pitch_hz", "scale"), [(95.0, 0.85), (150.0, 0.95), (240.0, 1.05), (330.0, 1.15)])
def test_the_voice_has_the_references_pitch(parametric: ParametricEngine, pitch_hz: float, scale: float) -> None:
    reference = make_reference(median_f0_hz=pitch_hz, tract_scale=scale)
    voice = parametric.prepare_voice([reference])
    samples, _ = speak(parametric, PARAGRAPH, voice)
    assert median_f0_hz(samples) == pytest.approx(median_f0_hz(reference.samples), rel=0.03)


def test_the_pitch_is_found_in_a_list_of_letters(parametric: ParametricEngine) -> None:
    spoken = make_reference(median_f0_hz=300.0, tract_scale=1.1).samples
    silence = np.zeros(10_000, dtype=np.float32)  # digital: noise at its place has a pitch for some trackers
    pieces = [piece for start in range(0, len(spoken), 12_000) for piece in (spoken[start : start + 12_000], silence)]
    voice = parametric.prepare_voice([ReferenceAudio(np.concatenate(pieces), 24_000)])
    assert float(np.exp(voice.arrays["log_f0_median"])) == pytest.approx(median_f0_hz(spoken), rel=0.02)


def test_unvoiced_sounds_are_not_vocoded(parametric: ParametricEngine, voice: VoicePrompt) -> None:
    """They do not depend on the drift of pitch; a vocoder's noise would. At every pace that espeak-ng can speak."""
    for speed in (0.87, 1.0, 1.6):
        one, other = (
            speak(parametric, SENTENCE, voice, options=SynthesisOptions(speed=speed, seed=seed))[0] for seed in (1, 2)
        )
        audible = np.abs(one) > 1e-3
        assert 0.05 < np.mean((one == other)[audible]) < 0.5


def test_the_voice_has_the_references_timbre(parametric: ParametricEngine) -> None:
    low = make_reference(median_f0_hz=120.0, tract_scale=0.85)
    high = make_reference(median_f0_hz=210.0, tract_scale=1.15)
    from_low = voiced_shape_db(speak(parametric, PARAGRAPH, parametric.prepare_voice([low]))[0])
    from_high = voiced_shape_db(speak(parametric, PARAGRAPH, parametric.prepare_voice([high]))[0])

    def distance(one: F64, other: F64) -> float:
        return float(np.sqrt(np.mean((one - other) ** 2)))

    assert distance(from_low, voiced_shape_db(low.samples)) < distance(from_high, voiced_shape_db(low.samples))
    assert distance(from_high, voiced_shape_db(high.samples)) < distance(from_low, voiced_shape_db(high.samples))


@pytest.mark.parametrize("language", TESTED)
def test_tested_languages_speak_with_marks_on_their_own_text(
    parametric: ParametricEngine, voice: VoicePrompt, language: str
) -> None:
    text = TESTED[language]
    samples, marks = speak(parametric, text, voice, language)
    assert 1.0 < len(samples) / 24_000 < 8.0
    assert 0.02 < rms(samples.astype(np.float64)) < 0.3
    assert float(np.abs(samples).max()) < 3.0
    assert median_f0_hz(samples) == pytest.approx(130.0, rel=0.12)  # one short sentence has its own melody
    assert "".join(words_of(text, marks)) == "".join(letter for letter in text if letter.isalnum())
    words = [mark for mark in marks if mark.kind == "word"]
    assert all(mark.start_sample < mark.end_sample for mark in words)
    assert all(before.end_sample <= after.start_sample for before, after in pairwise(words))
    covered = sum(mark.end_sample - mark.start_sample for mark in words)
    assert covered > 0.75 * len(samples)


@pytest.mark.parametrize(
    "text",
    ["7", "a", "ж", "Ünïcödé", "世界 hello мир 안녕 ラーメン שלום สวัสดี", "x" * 220, "\ud800 a\x00b", "中" * 200, "٣٤"],
)
def test_odd_texts_are_spoken(parametric: ParametricEngine, voice: VoicePrompt, text: str) -> None:
    for language in ("en", "ja"):
        samples, marks = speak(parametric, text, voice, language, SynthesisOptions(speed=2.0))
        assert np.isfinite(samples).all()
        assert rms(samples.astype(np.float64)) > 0.005
        assert all(0 <= mark.text_start < mark.text_end <= len(text) for mark in marks)


def test_pitch_shifts_by_semitones(parametric: ParametricEngine, voice: VoicePrompt) -> None:
    plain = speak(parametric, SENTENCE, voice)[0]
    for semitones in (-6.0, 5.0):
        shifted = speak(parametric, SENTENCE, voice, options=SynthesisOptions(pitch_semitones=semitones))[0]
        assert len(shifted) == len(plain)
        # Frame by frame: medians of the two would be of different frames, because the tracker's voicing changes.
        before, after = track_f0_hz(plain), track_f0_hz(shifted)
        both = (before > 0) & (after > 0)
        assert np.median(after[both] / before[both]) == pytest.approx(2.0 ** (semitones / 12.0), rel=0.01)


def test_speed_changes_length_and_not_pitch(parametric: ParametricEngine, voice: VoicePrompt) -> None:
    plain, plain_marks = speak(parametric, SENTENCE, voice)
    for speed in (0.5, 1.5, 2.0):
        samples, marks = speak(parametric, SENTENCE, voice, options=SynthesisOptions(speed=speed))
        assert len(plain) / len(samples) == pytest.approx(speed, rel=0.15)
        assert median_f0_hz(samples) == pytest.approx(median_f0_hz(plain), rel=0.04)
        middle, plain_middle = marks[len(marks) // 2], plain_marks[len(plain_marks) // 2]
        assert middle.start_sample / len(samples) == pytest.approx(plain_middle.start_sample / len(plain), abs=0.05)


def test_a_pronunciation_changes_the_sound_and_not_the_marks(parametric: ParametricEngine, voice: VoicePrompt) -> None:
    text = "Ask Nguyen about it."
    plain, _ = speak(parametric, text, voice)
    options = SynthesisOptions(pronunciations=(Pronunciation("nguyen", "win"),))
    changed, marks = speak(parametric, text, voice, options=options)
    assert digest(changed) != digest(plain)
    assert words_of(text, marks) == ["Ask", "Nguyen", "about", "it"]


def test_the_gain_belongs_to_the_voice_and_not_to_the_sentence(
    parametric: ParametricEngine, reference: ReferenceAudio, voice: VoicePrompt
) -> None:
    quieter = ReferenceAudio(reference.samples * np.float32(0.6), reference.sample_rate_hz, "en")
    quiet_voice = parametric.prepare_voice([quieter])
    for text in ("One.", SENTENCE):
        ratio = rms(speak(parametric, text, quiet_voice)[0].astype(np.float64)) / rms(
            speak(parametric, text, voice)[0].astype(np.float64)
        )
        assert ratio == pytest.approx(float(quiet_voice.arrays["gain"] / voice.arrays["gain"]), rel=0.03)
    assert quiet_voice.arrays["gain"] < voice.arrays["gain"]


def test_several_clips_and_rates_make_one_voice(parametric: ParametricEngine) -> None:
    clips = [
        make_reference(median_f0_hz=140.0, sample_rate_hz=16_000, seconds=3.0),
        make_reference(median_f0_hz=140.0, sample_rate_hz=48_000, seconds=4.0),
    ]
    voice = parametric.prepare_voice(clips)
    assert float(np.exp(voice.arrays["log_f0_median"])) == pytest.approx(140.0, rel=0.05)
    assert len(voice.to_bytes()) < 100_000


@pytest.mark.parametrize("kind", ["noise", "short", "tone burst"])
def test_references_without_speech_are_refused_in_plain_words(parametric: ParametricEngine, kind: str) -> None:
    samples = {
        "noise": 0.1 * np.random.default_rng(0).standard_normal(96_000),
        "short": 0.1 * np.ones(12_000),
        "tone burst": np.concatenate([np.zeros(90_000), 0.3 * np.sin(np.arange(2_000) / 20.0)]),
    }[kind]
    with pytest.raises(UnusableReferenceError) as caught:
        parametric.prepare_voice([ReferenceAudio(samples.astype(np.float32), 24_000)])
    assert caught.value.message.startswith("The recording")


def test_a_hundred_repeats_have_one_hash(parametric: ParametricEngine, voice: VoicePrompt) -> None:
    sentence, others = "Rain is near.", ["Go on.", "雨。", "ja so."]
    stored = voice.to_bytes()

    def repeat(engine: ParametricEngine, index: int) -> str:
        own = VoicePrompt.from_bytes(stored)
        if index % 5 == 0:
            speak(engine, others[index % 3], own, ("en", "zh", "de")[index % 3])
        return digest(speak(engine, sentence, own, options=SynthesisOptions(speed=1.5, seed=3))[0])

    hashes = {repeat(parametric, index) for index in range(34)}
    with ThreadPoolExecutor(8) as threads:
        hashes.update(threads.map(lambda index: repeat(parametric, index), range(33)))
    for start in (0, 11, 22):
        restarted = ParametricEngine(espeak_workers=1 + start % 2)
        hashes.update(repeat(restarted, start + index) for index in range(11))
        restarted.close()
    assert len(hashes) == 1


def test_bytes_do_not_depend_on_the_number_of_blas_threads() -> None:
    program = (
        "from tests.engines.references import make_reference\n"
        "from tests.engines.speaking import digest, speak\n"
        "from synthesis.engines.parametric import ParametricEngine\n"
        "import hashlib\n"
        "engine = ParametricEngine(espeak_workers=1)\n"
        "voice = engine.prepare_voice([make_reference(median_f0_hz=180.0)])\n"
        "samples, _ = speak(engine, 'Seven grey geese sleep.', voice)\n"
        "print(hashlib.sha256(voice.to_bytes()).hexdigest(), digest(samples))\n"
        "engine.close()\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in ("1", "4")
    }
    assert len(outputs) == 1


def test_the_demo_reference_is_what_its_script_makes() -> None:
    made = make_demo_reference.make_demo_reference()
    shipped, sample_rate_hz = soundfile.read(make_demo_reference.DEMO_REFERENCE, dtype="int16")
    info = soundfile.info(make_demo_reference.DEMO_REFERENCE)
    assert (sample_rate_hz, info.channels, info.subtype) == (24_000, 1, "PCM_16")
    assert 6.0 <= info.duration <= 9.0
    again = np.frombuffer(made[-2 * len(shipped) :], dtype="<i2")
    # Another CPU's vector instructions may round a sample differently, not more.
    assert int(np.abs(again.astype(np.int32) - shipped).max()) <= 2


def test_the_demo_reference_moves_the_voice(parametric: ParametricEngine) -> None:
    samples, sample_rate_hz = soundfile.read(make_demo_reference.DEMO_REFERENCE, dtype="float32")
    voice = parametric.prepare_voice([ReferenceAudio(samples, sample_rate_hz, "en")])
    assert 0.78 <= float(voice.arrays["tract_scale"]) < 0.95
    assert median_f0_hz(speak(parametric, PARAGRAPH, voice)[0]) == pytest.approx(118.0, rel=0.04)
