"""Makes `demo_reference.wav`, the reference clip that the demo clones.

    python -m synthesis.engines.parametric.make_demo_reference

No person was recorded: espeak-ng reads a text of this project, and the WORLD vocoder gives it a larger throat, a
deeper voice, another timbre and a melody of its own, far from the synthetic speaker that the engine starts from.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
from scipy.ndimage import gaussian_filter1d

from synthesis.engines.audio import resample
from synthesis.engines.parametric.espeak import EspeakPool
from synthesis.engines.parametric.source_bank import without_digital_silence
from synthesis.engines.parametric.spectra import BIN_HZ, NEPER_PER_DB, warp_frequency
from synthesis.engines.parametric.world import SAMPLE_RATE_HZ, Analysis, analyse_clean, resynthesize

DEMO_REFERENCE = Path(__file__).parent / "demo_reference.wav"
DEMO_TEXT = (
    "Good evening. Nobody stood at a microphone to record me: a small program made each sound you hear. "
    "Lend me any page you enjoy, and I shall read it."
)

_ESPEAK_VOICE = "en-gb-x-rp"  # without the engine's own variant
_WORDS_PER_MINUTE = 170
_MEDIAN_F0_HZ = 118.0
_MELODY = 1.35  # pitch movements against the source's, in log frequency
_TRACT_SCALE = 0.88
_RESONANCE_HZ, _RESONANCE_WIDTH_HZ, _RESONANCE_DB = 2600.0, 500.0, 7.0  # a "singer's formant" for a darker, fuller tone
_TILT_DB_PER_OCTAVE = -2.0
_BREATH = 0.04  # added aperiodicity
_PEAK = 0.6


def make_demo_reference() -> bytes:
    """The WAV file: 24 kHz, mono, 16 bits. Equal bytes every time."""
    pool = EspeakPool(1)
    try:
        speech = pool.speak(DEMO_TEXT, _ESPEAK_VOICE, _WORDS_PER_MINUTE)
    finally:
        pool.close()
    source = analyse_clean(
        without_digital_silence(resample(speech.samples / 32768.0, speech.sample_rate_hz, SAMPLE_RATE_HZ))
    )
    samples = resynthesize(_disguise(source))
    samples *= _PEAK / np.abs(samples).max()
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _disguise(source: Analysis) -> Analysis:
    """The same words from another speaker."""
    voiced = source.is_voiced
    logs = np.log(source.f0_hz[voiced])
    f0_hz = source.f0_hz.copy()
    f0_hz[voiced] = np.exp(np.log(_MEDIAN_F0_HZ) + _MELODY * (logs - np.median(logs)))
    wander = gaussian_filter1d(np.random.default_rng(7).standard_normal(len(f0_hz)), 6.0)
    f0_hz *= np.exp(0.02 * wander)
    octaves = np.log2(np.maximum(BIN_HZ, 100.0) / 500.0)
    resonance = _RESONANCE_DB * np.exp(-(((BIN_HZ - _RESONANCE_HZ) / _RESONANCE_WIDTH_HZ) ** 2))
    colour = np.exp(NEPER_PER_DB * (_TILT_DB_PER_OCTAVE * octaves + resonance))
    return Analysis(
        f0_hz=f0_hz,
        envelope=warp_frequency(source.envelope, _TRACT_SCALE) * colour,
        aperiodicity=np.clip(source.aperiodicity + _BREATH, 0.0, 1.0),
    )


if __name__ == "__main__":
    DEMO_REFERENCE.write_bytes(make_demo_reference())
