"""Spectral envelopes in the shapes that the conversion compares: log mel bands, cepstra, warped axes.

Shapes: `T` frames, `K` = 513 FFT bins, `M` = 72 mel bands, `C` = 23 cepstra (the 0th, loudness, is left out).

Nothing here multiplies matrices through BLAS, whose sums depend on its number of threads.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import fft, sparse
from scipy.ndimage import gaussian_filter1d

from synthesis.engines.parametric.world import F64, FFT_SIZE, SAMPLE_RATE_HZ, Mask

BINS = FFT_SIZE // 2 + 1
MELS = 72
CEPSTRA = 23
NEPER_PER_DB = np.log(10.0) / 10.0  # of power

_LOWEST_MEL_HZ, _HIGHEST_MEL_HZ = 60.0, SAMPLE_RATE_HZ / 2 - 200.0
_FLOOR = 1e-16
_MEL_FLOOR = 1e-14


def _mel(hertz: F64) -> F64:
    return np.asarray(2595.0 * np.log10(1.0 + hertz / 700.0))


def _hertz(mel: F64) -> F64:
    return np.asarray(700.0 * (10.0 ** (mel / 2595.0) - 1.0))


BIN_HZ: F64 = np.linspace(0.0, SAMPLE_RATE_HZ / 2, BINS)
_EDGE_MELS = _mel(np.array([_LOWEST_MEL_HZ, _HIGHEST_MEL_HZ]))
BAND_HZ: F64 = _hertz(np.linspace(_EDGE_MELS[0], _EDGE_MELS[1], MELS))  # centres, (M,)


def _build_mel_bank() -> sparse.csr_array:
    """(M, K): triangles with unit sum; below the bin spacing, interpolation between two bins."""
    centres = _mel(BAND_HZ)
    distance = np.abs(_mel(BIN_HZ)[None, :] - centres[:, None]) / (centres[1] - centres[0])
    weights = np.maximum(0.0, 1.0 - distance)
    for band in np.flatnonzero(weights.sum(axis=1) < 0.5):
        place = BAND_HZ[band] / (SAMPLE_RATE_HZ / FFT_SIZE)
        low = int(place)
        weights[band] = 0.0
        weights[band, low], weights[band, low + 1] = 1.0 - (place - low), place - low
    return sparse.csr_array(weights / weights.sum(axis=1, keepdims=True))


_MEL_BANK = _build_mel_bank()


def log_mel(envelope: F64) -> F64:
    """(T, K) power to (T, M) natural log of power."""
    return np.asarray(np.log(np.maximum((_MEL_BANK @ envelope.T).T, _MEL_FLOOR)))


def bands_to_bins(curves: F64) -> F64:
    """(T, M) curves on the mel bands to (T, K), linear in between."""
    place = np.interp(BIN_HZ, BAND_HZ, np.arange(MELS, dtype=np.float64))
    low = np.minimum(place.astype(np.intp), MELS - 2)
    share = place - low
    return np.asarray(curves[..., low] * (1.0 - share) + curves[..., low + 1] * share)


def remove_gain(bands: F64) -> F64:
    """(T, M) without each frame's mean: shape only."""
    return np.asarray(bands - bands.mean(axis=1, keepdims=True))


def to_cepstra(bands: F64) -> F64:
    """(T, M) log mel to (T, C): orthonormal DCT-II, loudness left out."""
    return np.asarray(fft.dct(bands, type=2, norm="ortho", axis=-1)[..., 1 : CEPSTRA + 1])


def warp_frequency(envelope: F64, scale: float) -> F64:
    """Move what is at f to scale * f, bent near the top so that the axis still ends there. (T, K) to (T, K)."""
    if abs(scale - 1.0) < 1e-3:
        return envelope
    top = SAMPLE_RATE_HZ / 2
    knee = 0.75 * top / max(scale, 1.0)
    bend = knee * scale
    source_hz = np.where(bend >= BIN_HZ, BIN_HZ / scale, knee + (BIN_HZ - bend) * (top - knee) / (top - bend))
    place = source_hz / (SAMPLE_RATE_HZ / FFT_SIZE)
    low = np.clip(place.astype(np.intp), 0, BINS - 2)
    share = place - low
    logs = np.log(np.maximum(envelope, _FLOOR))
    return np.asarray(np.exp(logs[:, low] * (1.0 - share) + logs[:, low + 1] * share))


def log_energy(envelope: F64) -> F64:
    """(T, K) power to (T,) natural log of each frame's energy."""
    return np.asarray(np.log(np.maximum(envelope.sum(axis=1), _FLOOR)))


def find_active(bands: F64, below_peak_db: float = 35.0) -> Mask:
    """(T,): frames with speech in them, by their loudest band. bands: (T, M) log mel."""
    loudest = bands.max(axis=1)
    return np.asarray(loudest > np.percentile(loudest, 97) - below_peak_db * NEPER_PER_DB)


def find_bandwidth_hz(mean_bands: F64) -> float:
    """Highest frequency that still carries speech (telephone clips stop near 3.4 kHz). mean_bands: (M,) log mel."""
    smooth = gaussian_filter1d(mean_bands, 0.5)
    top = smooth[(BAND_HZ > 300) & (BAND_HZ < 3000)].max()
    for band in range(MELS - 1, 0, -1):
        is_audible = smooth[band] > top - 62 * NEPER_PER_DB
        is_cliff = band < MELS - 1 and smooth[band] - smooth[band + 1] >= 10 * NEPER_PER_DB
        if is_audible and not is_cliff:
            return float(BAND_HZ[band])
    return 4000.0


# Aperiodicity is compared in six broad bands, as logits.
APERIODICITY_EDGES_HZ: F64 = np.array([0.0, 1000.0, 2000.0, 4000.0, 6000.0, 8000.0, 12001.0])
APERIODICITY_CENTRES_HZ: F64 = 0.5 * (APERIODICITY_EDGES_HZ[:-1] + APERIODICITY_EDGES_HZ[1:])


def aperiodicity_logits(aperiodicity: F64) -> F64:
    """(T, K) to (T, 6)."""
    edges = np.searchsorted(BIN_HZ, APERIODICITY_EDGES_HZ)
    means = np.stack([aperiodicity[:, a:b].mean(axis=1) for a, b in pairwise(edges)], axis=1)
    means = np.clip(means, 1e-3, 1.0 - 1e-3)
    return np.asarray(np.log(means / (1.0 - means)))
