"""The WORLD vocoder: speech taken apart into pitch, spectral envelope and aperiodicity, and put together again.

Shapes: `N` samples at 24 kHz, `T` frames of 5 ms, `K` = 513 FFT bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyworld
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 24_000
FRAME_MS = 5.0
FFT_SIZE = 1024
LOWEST_F0_HZ, HIGHEST_F0_HZ = 60.0, 600.0

# WORLD's envelopes of digital silence are extreme; noise at about -100 dB of full scale keeps them sane.
SILENCE_NOISE = 1e-5

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Analysis:
    f0_hz: F64  # (T,), 0 where unvoiced
    envelope: F64  # (T, K), power
    aperiodicity: F64  # (T, K), 0 periodic to 1 noise

    @property
    def is_voiced(self) -> Mask:
        return np.asarray(self.f0_hz > 0)


def track_pitch(samples: F64) -> F64:
    """Fast pitch track of clean synthetic speech. (N,) to (T,) hertz, 0 where unvoiced."""
    return _track_quickly(np.ascontiguousarray(samples))[0]


def analyse_clean(samples: F64) -> Analysis:
    """Analysis of clean synthetic speech, with the fast pitch tracker. samples: (N,)."""
    samples = np.ascontiguousarray(samples)
    f0, times = _track_quickly(samples)
    return _analyse(samples, f0, times)


def analyse_recording(samples: F64) -> Analysis:
    """Analysis of a recording, with the slow pitch tracker that stands noise better. samples: (N,)."""
    samples = np.ascontiguousarray(samples)
    f0, times = pyworld.harvest(
        samples, SAMPLE_RATE_HZ, f0_floor=LOWEST_F0_HZ, f0_ceil=HIGHEST_F0_HZ, frame_period=FRAME_MS
    )
    return _analyse(samples, f0, times)


def refine_pitch(samples: F64, f0_hz: F64) -> F64:
    """A pitch track refined by instantaneous frequency (StoneMask); 0 where that finds no fundamental.

    samples: (N,); (T,) to (T,) hertz.
    """
    times = np.arange(len(f0_hz)) * (FRAME_MS / 1000.0)
    return np.asarray(pyworld.stonemask(np.ascontiguousarray(samples), f0_hz, times, SAMPLE_RATE_HZ))


def resynthesize(analysis: Analysis, stretch: float = 1.0) -> F64:
    """(N,) samples; `stretch` 2.0 makes them twice as long at the same pitch."""
    return np.asarray(
        pyworld.synthesize(
            np.ascontiguousarray(analysis.f0_hz),
            np.ascontiguousarray(analysis.envelope),
            np.ascontiguousarray(analysis.aperiodicity),
            SAMPLE_RATE_HZ,
            FRAME_MS * stretch,
        ),
        dtype=np.float64,
    )


def _track_quickly(samples: F64) -> tuple[F64, F64]:
    f0, times = pyworld.dio(
        samples, SAMPLE_RATE_HZ, f0_floor=LOWEST_F0_HZ, f0_ceil=HIGHEST_F0_HZ, frame_period=FRAME_MS
    )
    return pyworld.stonemask(samples, f0, times, SAMPLE_RATE_HZ), times


def _analyse(samples: F64, f0: F64, times: F64) -> Analysis:
    return Analysis(
        f0_hz=f0,
        envelope=pyworld.cheaptrick(samples, f0, times, SAMPLE_RATE_HZ, fft_size=FFT_SIZE),
        aperiodicity=pyworld.d4c(samples, f0, times, SAMPLE_RATE_HZ, fft_size=FFT_SIZE),
    )
