"""Measurements of one channel of audio. Levels in dBFS, frames of 10 ms; `N` samples, `F` frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from voices.inspection.decoding import FRAMES_PER_SECOND, Samples

Levels = npt.NDArray[np.float64]
Activity = npt.NDArray[np.bool_]

SILENCE_DBFS = -100.0  # below the last bit of 16; digital silence is reported as this

# ITU-T P.56, section 8: the active level lies this far above the threshold that defines it.
_ACTIVITY_MARGIN_DB = 15.9
_MIN_THRESHOLD_DBFS = -75.0
_HANGOVER_FRAMES = 21
_STEADY_RANGE_DB = 10.0  # speech with its pauses covers 20 dB and more
_NOISE_MARGIN_DB = 6.0

_MIN_PITCH_HZ, _MAX_PITCH_HZ = 60.0, 400.0
_VOICED_CORRELATION = 0.5


def decibels(power: float) -> float:
    return float(max(10 * np.log10(max(power, 1e-20)), SILENCE_DBFS))


@dataclass(frozen=True, slots=True)
class Envelope:
    """The recording in frames of `hop` samples; the last frame may be padded."""

    hop: int
    power: Levels  # (F,)
    level_dbfs: Levels  # (F,)
    is_active: Activity  # (F,) somebody speaks, pauses under 0.2 s included
    range_db: float  # between the loud and the quiet frames


def measure_envelope(samples: Samples, sample_rate_hz: int) -> Envelope:
    hop = round(sample_rate_hz / FRAMES_PER_SECOND)
    padded = np.pad(samples, (0, -len(samples) % hop)).reshape(-1, hop)
    power = np.einsum("ft,ft->f", padded, padded, dtype=np.float64) / hop
    level = _levels(power)
    smooth = _levels(ndimage.uniform_filter1d(power, 5))
    quiet, loud = np.percentile(smooth, [10, 95])
    threshold = _speech_threshold(power, level)
    if loud - quiet >= _STEADY_RANGE_DB:  # else there are no pauses to learn the noise from
        threshold = max(threshold, quiet + _NOISE_MARGIN_DB)
    held = ndimage.maximum_filter1d(level, _HANGOVER_FRAMES)
    above = smooth > threshold
    # A click is no word: what is shorter than 30 ms is dropped, what is apart by less than the hangover is joined.
    above = ndimage.binary_opening(above, np.ones(3))
    active = ndimage.binary_closing(np.pad(above, _HANGOVER_FRAMES), np.ones(_HANGOVER_FRAMES))
    active = active[_HANGOVER_FRAMES:-_HANGOVER_FRAMES] & (held > threshold)
    return Envelope(hop=hop, power=power, level_dbfs=level, is_active=active, range_db=float(loud - quiet))


def _levels(power: Levels) -> Levels:
    level: Levels = np.maximum(10 * np.log10(np.maximum(power, 1e-20)), SILENCE_DBFS)
    return level


def _speech_threshold(power: Levels, level: Levels) -> float:
    """P.56 on 10 ms frames: the loudest threshold that lies the margin below the level of what exceeds it."""
    held = np.sort(ndimage.maximum_filter1d(level, _HANGOVER_FRAMES))
    total = float(power.sum())
    for threshold in np.arange(0.0, _MIN_THRESHOLD_DBFS, -0.5):
        count = len(held) - int(np.searchsorted(held, threshold, side="right"))
        if count and decibels(total / count) - threshold >= _ACTIVITY_MARGIN_DB:
            return float(threshold)
    return _MIN_THRESHOLD_DBFS


def measure_noise(envelope: Envelope, start: int, end: int) -> tuple[float, float]:
    """Active level and noise floor of frames [start, end), in dBFS. Without pauses the quietest frames count."""
    power, active = envelope.power[start:end], envelope.is_active[start:end]
    speech = decibels(float(power[active].mean())) if active.any() else SILENCE_DBFS
    pauses = power[~ndimage.binary_dilation(active, np.ones(7))]  # words fade out, that is no noise
    if len(pauses) < 10:
        pauses = np.sort(power)[: max(len(power) // 20, 1)]
    return speech, decibels(float(np.median(pauses)))  # a breath or a click is not the floor


def measure_loudness(samples: Samples, sample_rate_hz: int) -> float:
    """Integrated loudness in LUFS, ITU-R BS.1770-5, mono. `SILENCE_DBFS` when everything is gated away."""
    weighted = signal.sosfilt(_k_weighting(sample_rate_hz), samples)
    step = sample_rate_hz // 10
    count = len(weighted) // step
    quarter = np.square(weighted[: count * step]).reshape(count, step).mean(axis=1)
    power = np.convolve(quarter, np.full(4, 0.25), mode="valid")  # 400 ms, 75 % overlap
    power = power[power > 10 ** ((-70 + 0.691) / 10)]
    if not len(power):
        return SILENCE_DBFS
    power = power[power > 0.1 * power.mean()]
    return float(-0.691 + 10 * np.log10(power.mean()))


def _k_weighting(sample_rate_hz: int) -> Levels:
    """(2, 6) second-order sections. BS.1770 tabulates 48 kHz only; these are the analogue filters behind its tables
    1 (shelf) and 2 (high pass), recovered by inverting the bilinear transform."""
    k = np.tan(np.pi * 1681.974450955533 / sample_rate_hz)
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    norm = 1 + k / q + k * k
    shelf = [
        (high + band * k / q + k * k) / norm,
        2 * (k * k - high) / norm,
        (high - band * k / q + k * k) / norm,
        1.0,
        2 * (k * k - 1) / norm,
        (1 - k / q + k * k) / norm,
    ]
    k = np.tan(np.pi * 38.13547087602444 / sample_rate_hz)
    q = 0.5003270373238773
    norm = 1 + k / q + k * k
    high_pass = [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm]
    return np.array([shelf, high_pass])


def measure_voicing(samples: Samples, sample_rate_hz: int, active: Activity, hop: int) -> float:
    """Share of the active frames with a pitch of 60 to 400 Hz."""
    factor = max(sample_rate_hz // 8000, 1)
    low = signal.resample_poly(samples, 1, factor).astype(np.float32) if factor > 1 else samples
    rate = sample_rate_hz / factor
    size, step = round(0.040 * rate), round(0.020 * rate)
    frames = np.lib.stride_tricks.sliding_window_view(low, size)[::step]  # (F, T)
    window = np.hanning(size)
    spectrum = np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * window, 2 * size)
    correlation = np.fft.irfft(np.square(np.abs(spectrum)))[:, : size // 2 + 1]
    taper = np.fft.irfft(np.square(np.abs(np.fft.rfft(window, 2 * size))))[: size // 2 + 1]
    lags = slice(int(rate / _MAX_PITCH_HZ), min(int(rate / _MIN_PITCH_HZ), size // 2) + 1)
    normal = correlation[:, lags] / np.maximum(correlation[:, :1], 1e-12) * (taper[0] / taper[lags])
    centres = np.minimum((np.arange(len(frames)) * step + size // 2) * factor // hop, len(active) - 1)
    is_active = active[centres]
    return float((normal.max(axis=1) > _VOICED_CORRELATION)[is_active].mean()) if is_active.any() else 0.0


def measure_bandwidth(samples: Samples, sample_rate_hz: int, active: Activity, hop: int) -> int:
    """Highest frequency in Hz at which speech stands 3 dB above the pauses and not 65 dB below its own maximum."""
    size = 1 << round(np.log2(0.032 * sample_rate_hz))
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[:: size // 2]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32))))  # (F, size // 2 + 1)
    centres = np.minimum((np.arange(len(frames)) * (size // 2) + size // 2) // hop, len(active) - 1)
    is_active = active[centres]
    if not is_active.any():
        return 0
    speech = ndimage.uniform_filter1d(power[is_active].mean(axis=0), 5)
    needed = np.full_like(speech, speech.max() * 10**-6.5)
    if (~is_active).sum() >= 5:
        needed = np.maximum(needed, 2 * ndimage.uniform_filter1d(power[~is_active].mean(axis=0), 5))
    above = np.flatnonzero(speech > needed)
    return round(float(above[-1]) * sample_rate_hz / size) if len(above) else 0
