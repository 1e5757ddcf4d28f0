"""Reference speech for tests: synthetic speakers of a chosen pitch, made here, so that no recording is shipped."""

from __future__ import annotations

import numpy as np

from synthesis.engines.audio import resample
from synthesis.engines.base import ReferenceAudio
from synthesis.engines.parametric.espeak import EspeakPool
from synthesis.engines.parametric.source_bank import without_digital_silence
from synthesis.engines.parametric.spectra import warp_frequency
from synthesis.engines.parametric.world import SAMPLE_RATE_HZ, Analysis, analyse_clean, resynthesize

REFERENCE_TEXT = "My uncle keeps nine bees in a wooden box. They fly over our garden all day, looking for lime trees."


def make_reference(
    *, median_f0_hz: float, tract_scale: float = 1.0, sample_rate_hz: int = SAMPLE_RATE_HZ, seconds: float = 5.0
) -> ReferenceAudio:
    """`REFERENCE_TEXT` by a speaker with this median pitch and this size of throat."""
    pool = EspeakPool(1)
    try:
        speech = pool.speak(REFERENCE_TEXT, "en-gb-x-rp", 165)
    finally:
        pool.close()
    source = analyse_clean(
        without_digital_silence(resample(speech.samples / 32768.0, speech.sample_rate_hz, SAMPLE_RATE_HZ))
    )
    voiced = source.is_voiced
    f0_hz = source.f0_hz.copy()
    f0_hz[voiced] *= median_f0_hz / np.median(f0_hz[voiced])
    samples = resynthesize(Analysis(f0_hz, warp_frequency(source.envelope, tract_scale), source.aperiodicity))
    samples = resample(samples[: round(seconds * SAMPLE_RATE_HZ)], SAMPLE_RATE_HZ, sample_rate_hz)
    samples *= 0.4 / np.abs(samples).max()
    return ReferenceAudio(samples.astype(np.float32), sample_rate_hz, language="en")
