"""What counts as speech: failures that users notice are caught, and ordinary speech passes."""

from __future__ import annotations

import numpy as np
import pytest

from synthesis.engines.base import Samples
from synthesis.engines.gpt_sovits.guards import CodeLimits, Defect, SilenceWatch, judge_codes, loops

RATE_HZ = 32_000
LIMITS = CodeLimits.for_phones(60, most=1500)


def babble(count: int, seed: int = 0) -> list[int]:
    """Codes as varied as those of speech."""
    return [int(code) for code in np.random.default_rng(seed).integers(0, 1024, count)]


def tone(seconds: float, level: float = 0.1) -> Samples:
    samples: Samples = (level * np.sin(np.arange(round(seconds * RATE_HZ)) * 0.05)).astype(np.float32)
    return samples


def judge_wave(*pieces: Samples, block: int = 1_000) -> Defect | None:
    watch = SilenceWatch(RATE_HZ)
    wave = np.concatenate(pieces)
    for start in range(0, len(wave), block):
        watch.push(wave[start : start + block])
    return watch.defect


def test_ordinary_codes_pass() -> None:
    assert judge_codes(babble(150), LIMITS, ended=True) is None


def test_codes_that_did_not_end_are_a_runaway() -> None:
    assert judge_codes(babble(LIMITS.most), LIMITS, ended=False) is Defect.RUNAWAY


def test_no_codes_at_all_are_missing_speech() -> None:
    assert judge_codes([], CodeLimits.for_phones(3, most=1500), ended=True) is Defect.MISSING


def test_too_few_codes_for_the_text_are_missing_speech() -> None:
    assert judge_codes(babble(LIMITS.fewest - 1), LIMITS, ended=True) is Defect.MISSING
    assert judge_codes(babble(LIMITS.fewest), LIMITS, ended=True) is None


@pytest.mark.parametrize("period", [2, 3, 7, 20, 50])
def test_a_phrase_said_again_and_again_is_a_loop(period: int) -> None:
    phrase = babble(period, seed=period)
    codes = babble(40) + phrase * 60
    assert loops(codes)
    assert judge_codes(codes, LIMITS, ended=True) is Defect.LOOP


@pytest.mark.parametrize("period", [7, 20, 50])
def test_a_phrase_said_twice_is_rhetoric(period: int) -> None:
    phrase = babble(period, seed=period)
    assert not loops(babble(40) + phrase * 2)


def test_a_pause_is_no_loop_but_endless_silence_is() -> None:
    assert not loops(babble(40) + [486] * 50)
    assert loops(babble(40) + [486] * 63)


def test_a_loop_that_was_left_again_is_forgotten() -> None:
    assert not loops([486] * 100 + babble(1))


@pytest.mark.parametrize("phones", [1, 5, 9])
def test_a_short_word_may_be_as_short_as_it_likes(phones: int) -> None:
    assert CodeLimits.for_phones(phones, most=1500).fewest == 1


def test_the_model_s_own_limit_stays() -> None:
    assert CodeLimits.for_phones(10_000, most=1500).most == 1500


def test_speech_with_pauses_passes() -> None:
    assert judge_wave(tone(2), tone(1, 0.0), tone(2), tone(2.9, 0.0), tone(1)) is None


@pytest.mark.parametrize("block", [100, 640, 50_000])
def test_a_hole_is_found_however_the_wave_was_cut(block: int) -> None:
    assert judge_wave(tone(2), tone(3.2, 0.0), tone(2), block=block) is Defect.SILENT


def test_sound_without_speech_is_found() -> None:
    assert judge_wave(tone(0.1), tone(2, 1e-4)) is Defect.SILENT
