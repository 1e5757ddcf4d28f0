"""Audio arithmetic that engines share. `N` samples, mono."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def resample(samples: F64, from_hz: int, to_hz: int) -> F64:
    """(N,) at `from_hz` to (N',) at `to_hz`."""
    if from_hz == to_hz:
        return samples
    return np.asarray(soxr.resample(samples, from_hz, to_hz, quality="HQ"), dtype=np.float64)


def rms(samples: F64) -> float:
    """Root of the mean square; 0 for no samples."""
    return float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0
