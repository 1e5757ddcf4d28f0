"""Reference clips to a prepared voice.

Shapes: `N` samples at 24 kHz, `T` frames of 5 ms, `K` = 513 FFT bins, `M` = 72 mel bands, `C` = 23 cepstra.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import signal
from scipy.spatial.distance import cdist

from synthesis.engines.audio import resample
from synthesis.engines.base import ReferenceAudio
from synthesis.engines.errors import UnusableReferenceError
from synthesis.engines.parametric.conversion import DEFAULT_SETTINGS, ConversionSettings
from synthesis.engines.parametric.source_bank import SourceSpeaker, count_syllables, samples_of_frames
from synthesis.engines.parametric.spectra import (
    BAND_HZ,
    MELS,
    NEPER_PER_DB,
    aperiodicity_logits,
    bands_to_bins,
    find_active,
    find_bandwidth_hz,
    log_mel,
    remove_gain,
    to_cepstra,
    warp_frequency,
)
from synthesis.engines.parametric.voice_model import VoiceModel
from synthesis.engines.parametric.world import F64, FRAME_MS, SAMPLE_RATE_HZ, analyse_recording, refine_pitch

SHORTEST_REFERENCE_SECONDS = 1.0
SILENT_PEAK = 1e-4
FEWEST_VOICED_FRAMES = 60  # 0.3 s
# WORLD calls a frame voiced that a pitch can be forced on; in noise its low band stays aperiodic.
_PERIODIC_LOGIT = 2.0

# Voices are brought to a level between these: a whispered clip is heard, a shouted one does not clip.
QUIETEST_ACTIVE_RMS, LOUDEST_ACTIVE_RMS = 0.04, 0.18
# Syllable counts of word lists and noisy clips mislead; a wider range made such voices crawl.
SLOWEST_RATE_RATIO, FASTEST_RATE_RATIO = 0.85, 1.2

_FALL_DB_PER_OCTAVE = 18.0  # of voiced speech, or telephone clips turn hissy
_OCTAVE_ERROR = math.log(1.9)


@dataclass(frozen=True, slots=True)
class _ClipMeasurement:
    """One clip taken apart; envelopes are cleaned of stationary noise and hold active speech only."""

    f0_hz: F64  # (T'',), of every frame with a fundamental, quiet ones too
    voiced: F64  # (T, K)
    aperiodicity: F64  # (T, 6) logits
    snr_db: float
    active_power: float  # mean square at the clip's own level
    active_seconds: float
    syllables: int


def prepare_model(
    clips: Sequence[ReferenceAudio], source: SourceSpeaker, settings: ConversionSettings = DEFAULT_SETTINGS
) -> VoiceModel:
    """Measure the clips together against the synthetic speaker. Raises UnusableReferenceError."""
    if not clips:
        raise UnusableReferenceError("There is no reference recording.")
    measured = [_measure(clip) for clip in clips]
    f0_hz = np.concatenate([clip.f0_hz for clip in measured])
    aperiodicity = np.concatenate([clip.aperiodicity for clip in measured])
    if min((aperiodicity[:, 0] < _PERIODIC_LOGIT).sum(), len(f0_hz)) < FEWEST_VOICED_FRAMES:
        raise UnusableReferenceError("The recording holds too little clear speech to learn a voice from.")
    median, spread = _pitch_statistics(f0_hz)

    envelopes = np.concatenate([clip.voiced for clip in measured])
    bands = log_mel(envelopes)
    nyquist_hz = min(clip.sample_rate_hz for clip in clips) / 2
    bandwidth_hz = min(find_bandwidth_hz(bands.mean(axis=0)), 0.97 * nyquist_hz)
    tract_scale = _fit_tract_scale(envelopes, source.voiced_envelopes, median - source.pitch.median, bandwidth_hz)

    applied_scale = tract_scale**settings.tract_strength
    voiced_timbre, unvoiced_timbre = _measure_timbre(bands, source, applied_scale, bandwidth_hz, settings)
    active_seconds = sum(clip.active_seconds for clip in measured)
    rate = sum(clip.syllables for clip in measured) / max(active_seconds, 0.3)
    active_rms = math.sqrt(sum(c.active_power * c.active_seconds for c in measured) / active_seconds)
    return VoiceModel(
        log_f0_median=median,
        log_f0_spread=spread,
        tract_scale=tract_scale,
        gain=float(np.clip(active_rms, QUIETEST_ACTIVE_RMS, LOUDEST_ACTIVE_RMS)) / source.active_rms,
        rate_ratio=float(np.clip(rate / source.syllables_per_second, SLOWEST_RATE_RATIO, FASTEST_RATE_RATIO)),
        snr_db=min(clip.snr_db for clip in measured),
        bandwidth_hz=bandwidth_hz,
        voiced_timbre=voiced_timbre,
        unvoiced_timbre=unvoiced_timbre,
        aperiodicity_mean=aperiodicity.mean(axis=0),
        aperiodicity_spread=aperiodicity.std(axis=0),
        source_aperiodicity_mean=source.aperiodicity_mean,
        source_aperiodicity_spread=source.aperiodicity_spread,
    )


def _measure(clip: ReferenceAudio) -> _ClipMeasurement:
    samples = np.asarray(clip.samples, dtype=np.float64)
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise UnusableReferenceError("The recording is damaged: it holds values that are not sound.")
    if len(samples) < SHORTEST_REFERENCE_SECONDS * clip.sample_rate_hz:
        raise UnusableReferenceError("The recording is shorter than one second.")
    samples = resample(samples, clip.sample_rate_hz, SAMPLE_RATE_HZ)
    samples = signal.sosfilt(signal.butter(2, 50, "high", fs=SAMPLE_RATE_HZ, output="sos"), samples)
    peak = float(np.abs(samples).max())
    if peak < SILENT_PEAK:
        raise UnusableReferenceError("The recording is silent.")
    level = 0.5 / peak
    leveled = samples * level + 1e-6 * np.random.default_rng(0).standard_normal(len(samples))
    analysis = analyse_recording(leveled)
    envelope, snr_db = _subtract_noise(analysis.envelope)
    active = find_active(log_mel(envelope))
    voiced = analysis.is_voiced & active
    if voiced.sum() < 2:
        raise UnusableReferenceError("The recording holds no voiced speech.")
    # Only active frames would leave out the soft ends of words, and moved the median of a list of letters by 5 %.
    refined = refine_pitch(leveled, analysis.f0_hz)
    heard = samples[samples_of_frames(active, len(samples))]
    return _ClipMeasurement(
        f0_hz=refined[refined > 0],
        voiced=envelope[voiced],
        aperiodicity=aperiodicity_logits(analysis.aperiodicity[voiced]),
        snr_db=snr_db,
        active_power=float(np.mean(heard**2)),
        active_seconds=float(active.sum()) * FRAME_MS / 1000.0,
        syllables=count_syllables(leveled),
    )


def _subtract_noise(envelope: F64) -> tuple[F64, float]:
    """Remove the stationary noise of the quietest frames. (T, K) to (T, K) and the signal-to-noise ratio in dB."""
    loudness = log_mel(envelope).mean(axis=1)
    noise = np.median(envelope[loudness <= np.percentile(loudness, 8)], axis=0)
    speech = envelope[loudness >= np.percentile(loudness, 70)].mean(axis=0)
    snr_db = 10.0 * math.log10(float(speech.sum() / max(noise.sum(), 1e-16)))
    if snr_db > 45.0:
        return envelope, snr_db
    return np.maximum(envelope - 1.5 * noise, 0.03 * envelope), snr_db


def _pitch_statistics(f0_hz: F64) -> tuple[float, float]:
    """Median and robust spread of log F0, octave errors left out."""
    logs = np.log(f0_hz)
    logs = logs[np.abs(logs - np.median(logs)) < _OCTAVE_ERROR]
    low, high = np.percentile(logs, [10, 90])
    return float(np.median(logs)), float(high - low) / 2.563  # of a normal distribution: one standard deviation


def _sample(frames: F64, most: int) -> F64:
    """At most `most` of the rows, always the same ones."""
    if len(frames) <= most:
        return frames
    return frames[np.sort(np.random.default_rng(1).choice(len(frames), most, replace=False))]


def _fit_tract_scale(reference: F64, source: F64, log_f0_ratio: float, bandwidth_hz: float) -> float:
    """Vocal-tract scale: the warp that brings the source's sounds closest to the reference's. Envelopes: (T, K).

    Distance to the nearest neighbour in both directions over cepstra free of gain and tilt, and a weak prior that ties
    tract length to pitch, scale = F0 ratio ** 0.25.
    """
    reference, source = _sample(reference, 500), _sample(source, 500)
    top_hz = min(5500.0, 0.95 * bandwidth_hz)
    use = (BAND_HZ > 150.0) & (top_hz > BAND_HZ)
    ramp = np.linspace(-1.0, 1.0, int(use.sum()))

    def features(envelopes: F64) -> F64:
        shape = remove_gain(log_mel(envelopes)[:, use])
        # Only the mean tilt goes: each formant's place must stay in.
        tilt = (shape.mean(axis=0) * ramp).sum() / (ramp * ramp).sum()
        padded = np.zeros((len(shape), MELS))
        padded[:, use] = shape - tilt * ramp
        return to_cepstra(padded)[:, :14]

    known = features(reference)
    scales = np.arange(0.78, 1.33, 0.02)
    scores = np.empty(len(scales))
    for index, scale in enumerate(scales):
        distance = cdist(known, features(warp_frequency(source, float(scale))))
        scores[index] = distance.min(axis=1).mean() + distance.min(axis=0).mean()
    scores = (scores - scores.min()) / (np.median(scores) - scores.min() + 1e-9)
    prior = (np.log(scales) - 0.25 * log_f0_ratio) ** 2 / (2.0 * 0.06**2)
    return float(scales[int(np.argmin(scores + 0.35 * prior))])


def _measure_timbre(
    reference: F64, source: SourceSpeaker, scale: float, bandwidth_hz: float, settings: ConversionSettings
) -> tuple[F64, F64]:
    """What all voiced sounds of the source, warped by `scale`, and its unvoiced ones have in common to be changed by.

    reference: (T, M) log mel of voiced frames. Returns two of (M,), which leave the source's mean energy as it is.
    """
    warped = warp_frequency(source.voiced_envelopes, scale)
    shapes = remove_gain(log_mel(warped))
    timbre = _fill_above(remove_gain(reference), shapes, bandwidth_hz).mean(axis=0) - shapes.mean(axis=0)
    limit = settings.max_offset_db * NEPER_PER_DB
    # The shelf falls over a third of an octave from where the reference's recording ends.
    shelf = settings.shelf_db * NEPER_PER_DB * np.clip(np.log2(BAND_HZ / bandwidth_hz) * 3.0, 0.0, 1.0)
    timbre = np.clip(timbre, -limit, limit) + shelf

    def keep_energy(envelopes: F64, bands: F64) -> F64:
        mean = envelopes.mean(axis=0)
        return np.asarray(bands - np.log((mean * np.exp(bands_to_bins(bands))).sum() / mean.sum()))

    voiced = keep_energy(warped, timbre)
    return voiced, keep_energy(source.unvoiced_envelopes, settings.unvoiced_timbre_strength * timbre)


def _fill_above(reference: F64, source: F64, bandwidth_hz: float) -> F64:
    """Above the reference's bandwidth the source's mean shape, never falling slower than speech does. (T, M)."""
    above = 0.93 * bandwidth_hz < BAND_HZ
    if not above.any():
        return reference
    edge = int(np.flatnonzero(~above)[-1])
    shape = source.mean(axis=0)
    fall = -_FALL_DB_PER_OCTAVE * NEPER_PER_DB * np.log2(BAND_HZ / BAND_HZ[edge])
    filled = reference.copy()
    filled[:, above] = reference[:, edge, None] + np.minimum(shape - shape[edge], fall)[above]
    return remove_gain(filled)
