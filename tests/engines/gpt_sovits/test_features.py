"""Audio features and the three forms of a reference clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

from synthesis.engines.base import ReferenceAudio
from synthesis.engines.errors import UnusableReferenceError
from synthesis.engines.gpt_sovits import features
from synthesis.engines.gpt_sovits.parity.features import signal_checks
from synthesis.engines.gpt_sovits.parity.report import GoldenSet

GOLDEN = Path(__file__).parents[1] / "golden" / "open"


def clip(seconds: float, sample_rate_hz: int = 16_000, peak: float = 0.5) -> ReferenceAudio:
    """Noise whose loudest sample is exactly `peak`."""
    samples = np.random.RandomState(0).standard_normal(round(seconds * sample_rate_hz))
    return ReferenceAudio(
        samples=(samples * (peak / np.abs(samples).max())).astype(np.float32), sample_rate_hz=sample_rate_hz
    )


def tone(hz: float, sample_rate_hz: int, samples: int) -> torch.Tensor:
    """(1, N)"""
    return torch.sin(2 * torch.pi * hz * torch.arange(samples, dtype=torch.float64) / sample_rate_hz)[None].float()


def test_every_feature_equals_upstreams():
    cases = list(signal_checks(GoldenSet(GOLDEN, "dsp")))
    assert len(cases) == 9
    assert [case.name for case in cases if not case.holds] == []


@pytest.mark.parametrize(("from_hz", "to_hz"), [(44_101, 32_000), (48_000, 32_000), (8_000, 32_000), (96_000, 16_000)])
def test_resampling_keeps_a_tone_and_its_length(from_hz, to_hz):
    found = features.resample(tone(1000, from_hz, from_hz), from_hz, to_hz)
    assert found.shape == (1, to_hz)
    middle = slice(to_hz // 10, -to_hz // 10)  # away from the ends, where the filter sees nothing
    torch.testing.assert_close(found[:, middle], tone(1000, to_hz, to_hz)[:, middle], rtol=0, atol=4e-3)


def test_resampling_removes_what_the_lower_rate_cannot_hold():
    found = features.resample(tone(12_000, 48_000, 48_000), 48_000, 16_000)
    assert found[:, 1000:-1000].abs().max() < 0.01


def test_resampling_of_a_batch_equals_that_of_its_rows():
    audio = torch.randn(3, 2000, generator=torch.Generator().manual_seed(0))
    rows = [features.resample(row[None], 44_100, 32_000) for row in audio]
    torch.testing.assert_close(features.resample(audio, 44_100, 32_000), torch.cat(rows), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seconds", [3.0, 10.0])
@pytest.mark.parametrize("sample_rate_hz", [16_000, 22_050, 44_100, 48_000])
def test_reference_of_3_to_10_seconds_is_used(seconds, sample_rate_hz):
    reference = clip(seconds, sample_rate_hz)
    prompt = features.prompt_audio(reference)
    spoken = round(seconds * 16_000)
    assert prompt.shape == (1, spoken + 9600)
    assert not prompt[:, spoken:].any()
    resampled = soxr.resample(reference.samples, sample_rate_hz, 16_000, quality="HQ")
    torch.testing.assert_close(prompt[0, :spoken], torch.from_numpy(resampled), rtol=0, atol=0)
    style = features.style_audio(reference)
    assert style.shape == (1, 2 * spoken)
    assert features.reference_spectrogram(style).shape == (1, 1025, 2 * spoken // 640)
    assert features.kaldi_fbank(features.speaker_audio(style)).shape == (1, 1 + (spoken - 400) // 160, 80)


@pytest.mark.parametrize("prepare", [features.prompt_audio, features.style_audio])
@pytest.mark.parametrize(("seconds", "sample_rate_hz"), [(0, 16_000), (2.999, 16_000), (10.001, 48_000), (60, 8_000)])
def test_reference_of_another_length_is_refused_with_its_seconds(prepare, seconds, sample_rate_hz):
    with pytest.raises(UnusableReferenceError) as refused:
        prepare(clip(seconds, sample_rate_hz) if seconds else ReferenceAudio(np.zeros(0, np.float32), sample_rate_hz))
    assert refused.value.details["seconds"] == pytest.approx(seconds, abs=1e-3)


@pytest.mark.parametrize("prepare", [features.prompt_audio, features.style_audio])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_reference_with_a_sample_that_is_no_number_is_refused(prepare, value):
    reference = clip(4)
    prepare(reference)
    reference.samples[1234] = value
    with pytest.raises(UnusableReferenceError, match="not numbers"):
        prepare(reference)


@pytest.mark.parametrize("prepare", [features.prompt_audio, features.style_audio])
def test_silent_reference_is_refused(prepare):
    with pytest.raises(UnusableReferenceError, match="silent"):
        prepare(clip(4, peak=5e-5))


@pytest.mark.parametrize(("peak", "wanted"), [(0.9, 0.9), (1.5, 1.0), (3.0, 1.5)])
def test_peak_above_full_scale_is_divided_by_at_most_two(peak, wanted):
    assert features.style_audio(clip(3, 32_000, peak)).abs().max().item() == pytest.approx(wanted, rel=1e-6)


def test_reference_is_not_changed():
    reference = clip(3, 32_000, peak=1.5)
    before = reference.samples.copy()
    features.style_audio(reference)
    features.prompt_audio(reference)
    np.testing.assert_array_equal(reference.samples, before)
