"""One spoken sentence, moved from the synthetic speaker to the voice of a reference.

Shapes: `T` frames of 5 ms, `K` = 513 FFT bins, `M` = 72 mel bands, `C` = 23 cepstra.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.distance import cdist

from synthesis.engines.parametric.source_bank import SourcePitch
from synthesis.engines.parametric.spectra import (
    APERIODICITY_CENTRES_HZ,
    BAND_HZ,
    BIN_HZ,
    NEPER_PER_DB,
    aperiodicity_logits,
    bands_to_bins,
    log_energy,
    log_mel,
    remove_gain,
    to_cepstra,
    warp_frequency,
)
from synthesis.engines.parametric.voice_model import ClassMap, VoiceModel
from synthesis.engines.parametric.world import F64, Analysis, Mask, resynthesize


@dataclass(frozen=True, slots=True)
class ConversionSettings:
    """How hard each part of a voice is pushed. Changing one changes the engine's version."""

    # Similarity was flat between 8 and 48 classes; 32 lost the fewest words.
    voiced_classes: int = 32
    # A clip holds few unvoiced frames, and their envelopes differ little.
    unvoiced_classes: int = 6
    # Frames of evidence that weigh as much as the offset of all classes together. At 12 classes drifted towards the
    # wrong sounds of short clips: 60 cost 0.01 of likeness and won 7 words in a hundred back.
    shrink_frames: float = 60.0
    # Share of the fitted vocal-tract scale that is applied, in log frequency. All of it won the most likeness, but put
    # vowels of high voices where no recogniser finds them: 26 words in a hundred (CheapTrick sees such an envelope at
    # its few harmonics only, so the fit is weakest where it asks for most).
    tract_strength: float = 0.4
    # Consonants carry words and hardly the speaker; clips of words and letters misplace them. None from 250 Hz.
    unvoiced_strength: float = 0.2
    # Share of the reference's breathiness. All of it gained no likeness and lost words.
    breathiness_strength: float = 0.3
    # More than 0.3 of the reference's own frames sounds no closer and loses words.
    neighbour_strength: float = 0.3
    neighbours: int = 6
    # No envelope is changed by more: beyond it lies noise of the reference.
    max_offset_db: float = 30.0
    # Wider pitch ratios than these sound wrong; narrower for languages whose tones would break.
    pitch_ratio: tuple[float, float] = (0.6, 2.2)
    tonal_pitch_ratio: tuple[float, float] = (0.7, 1.3)
    # Frames of the source's usual pitch mixed into a sentence's, so that one word keeps its own melody.
    pitch_prior_frames: float = 150.0
    # Softly bounds pitch to this many spreads of the reference.
    pitch_limit_spreads: float = 2.6
    # Size of the seeded drift of pitch, in log frequency: below what is heard as trembling.
    pitch_drift: float = 0.006
    # Sibilants are turned down where more than this share of an unvoiced frame's energy lies above the de-esser.
    deess_above_hz: float = 7000.0
    deess_share: float = 0.5
    # What the reference's recording does not carry is synthetic: keep it a little behind.
    shelf_db: float = -4.0


DEFAULT_SETTINGS = ConversionSettings()

_DEESS_FLOOR = 0.35  # linear gain of power, about -4.5 dB at most
_LOWEST_OUTPUT_F0_HZ, _HIGHEST_OUTPUT_F0_HZ = 50.0, 800.0


def convert(
    source: Analysis,
    model: VoiceModel,
    source_pitch: SourcePitch,
    *,
    is_tonal: bool,
    pitch_semitones: float,
    stretch: float,
    seed: int,
    settings: ConversionSettings = DEFAULT_SETTINGS,
) -> F64:
    """The sentence in the voice of `model`, at the voice's level, unclipped. Returns (N,) at 24 kHz.

    The time axis stays the source's, times `stretch`.
    """
    voiced = source.is_voiced
    f0_hz = map_pitch(source.f0_hz, model, source_pitch, is_tonal=is_tonal, settings=settings)
    f0_hz = _drift(f0_hz, seed, settings) * 2.0 ** (pitch_semitones / 12.0)
    f0_hz[voiced] = np.clip(f0_hz[voiced], _LOWEST_OUTPUT_F0_HZ, _HIGHEST_OUTPUT_F0_HZ)
    envelope = map_envelope(source.envelope, voiced, model, settings)
    aperiodicity = map_aperiodicity(source.aperiodicity, voiced, model, settings)
    return resynthesize(Analysis(f0_hz, envelope, aperiodicity), stretch) * model.gain


def map_pitch(
    f0_hz: F64, model: VoiceModel, source_pitch: SourcePitch, *, is_tonal: bool, settings: ConversionSettings
) -> F64:
    """(T,) to (T,) hertz: the reference's median and spread, 0 where unvoiced."""
    voiced = f0_hz > 0
    mapped = f0_hz.copy()
    if not voiced.any():
        return mapped
    logs = np.log(f0_hz[voiced])
    prior = settings.pitch_prior_frames
    centre = (len(logs) * np.median(logs) + prior * source_pitch.median) / (len(logs) + prior)
    ratio = np.clip(
        model.log_f0_spread / source_pitch.spread,
        *(settings.tonal_pitch_ratio if is_tonal else settings.pitch_ratio),
    )
    limit = settings.pitch_limit_spreads * model.log_f0_spread + 0.05
    mapped[voiced] = np.exp(model.log_f0_median + limit * np.tanh((logs - centre) * ratio / limit))
    return mapped


def map_envelope(envelope: F64, voiced: Mask, model: VoiceModel, settings: ConversionSettings) -> F64:
    """(T, K) to (T, K): vocal tract and timbre of the reference, loudness contour of the source."""
    warped = warp_frequency(envelope, model.tract_scale**settings.tract_strength)
    offsets = timbre_offsets(log_mel(warped), voiced, model, settings)
    offsets += _shelf(model.bandwidth_hz, settings)
    mapped = np.exp(np.log(np.maximum(warped, 1e-16)) + bands_to_bins(offsets))
    loudness = gaussian_filter1d(log_energy(warped) - log_energy(mapped), 1.5)
    mapped *= np.exp(loudness)[:, None]
    return _deess(mapped, voiced, settings)


def timbre_offsets(bands: F64, voiced: Mask, model: VoiceModel, settings: ConversionSettings) -> F64:
    """What is added to (T, M) log mel bands so that they sound like the reference. Returns (T, M)."""
    shapes = remove_gain(bands)
    cepstra = to_cepstra(shapes)
    offsets = np.zeros_like(bands)
    unvoiced_strength = settings.unvoiced_strength * _trust_in_consonants(model)
    for frames, class_map, strength in ((voiced, model.voiced, 1.0), (~voiced, model.unvoiced, unvoiced_strength)):
        if frames.any():
            offsets[frames] = strength * _class_offsets(cepstra[frames], class_map)
    offsets = gaussian_filter1d(offsets, 2.0, axis=0)
    if voiced.any():
        offsets += _neighbour_offsets(shapes + offsets, voiced, model, settings)
    limit = settings.max_offset_db * NEPER_PER_DB
    return np.asarray(np.clip(offsets, -limit, limit))


def map_aperiodicity(aperiodicity: F64, voiced: Mask, model: VoiceModel, settings: ConversionSettings) -> F64:
    """(T, K) to (T, K): the reference's breathiness, trusted less the noisier its recording is."""
    if not voiced.any():
        return aperiodicity
    logits = aperiodicity_logits(aperiodicity[voiced])
    trust = settings.breathiness_strength * np.clip((model.snr_db - 8.0) / 20.0, 0.1, 1.0)
    ratio = np.clip(model.aperiodicity_spread / (model.source_aperiodicity_spread + 1e-6), 0.5, 1.5)
    target = model.aperiodicity_mean + (logits - model.source_aperiodicity_mean) * ratio
    shift = np.clip(trust * (target - logits), -4.0, 4.0)
    unknown = model.bandwidth_hz < APERIODICITY_CENTRES_HZ
    shift[:, unknown] = shift[:, ~unknown][:, -1:]
    shift = gaussian_filter1d(shift, 2.0, axis=0)
    curves = np.stack([np.interp(BIN_HZ, APERIODICITY_CENTRES_HZ, row) for row in shift])
    known = np.clip(aperiodicity[voiced], 1e-4, 1.0 - 1e-4)
    mapped = aperiodicity.copy()
    mapped[voiced] = np.clip(1.0 / (1.0 + (1.0 - known) / known * np.exp(-curves)), 1e-3, 1.0)
    return mapped


def _drift(f0_hz: F64, seed: int, settings: ConversionSettings) -> F64:
    """Small slow and fast wandering of pitch, as in every living voice; the seed decides which."""
    random = np.random.default_rng(seed)
    slow = gaussian_filter1d(random.standard_normal(len(f0_hz)), 25.0) * 8.0
    fast = gaussian_filter1d(random.standard_normal(len(f0_hz)), 1.0)
    return np.asarray(f0_hz * np.exp(settings.pitch_drift * (slow + fast)))


def _trust_in_consonants(model: VoiceModel) -> float:
    """1 for voices up to 210 Hz, falling to 0 at 250 Hz, where mapped consonants cost most."""
    return float(np.clip((250.0 - np.exp(model.log_f0_median)) / 40.0, 0.0, 1.0))


def _class_offsets(cepstra: F64, class_map: ClassMap) -> F64:
    """Mean of the classes' offsets, weighted by closeness. (T, C) to (T, M)."""
    place = (cepstra - class_map.mean) / (class_map.spread + 1e-6)
    distance = cdist(place, class_map.centres, "sqeuclidean")
    weights = np.exp(-(distance - distance.min(axis=1, keepdims=True)) / 8.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("tj,jm->tm", weights, class_map.offsets))


def _neighbour_offsets(shapes: F64, voiced: Mask, model: VoiceModel, settings: ConversionSettings) -> F64:
    """Lean on the most similar real frames of the reference. (T, M) to (T, M)."""
    frames = model.neighbours
    known = to_cepstra(frames)[:, :14]
    scale = known.std(axis=0) + 1e-6
    distance = cdist(to_cepstra(shapes[voiced])[:, :14] / scale, known / scale, "sqeuclidean")
    count = min(settings.neighbours, len(frames))
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :count]
    near = np.take_along_axis(distance, nearest, axis=1)
    weights = np.exp(-(near - near[:, :1]) / 4.0)
    weights /= weights.sum(axis=1, keepdims=True)
    delta = np.zeros_like(shapes)
    delta[voiced] = settings.neighbour_strength * (np.einsum("tr,trm->tm", weights, frames[nearest]) - shapes[voiced])
    return np.asarray(gaussian_filter1d(delta, 2.5, axis=0))


def _shelf(bandwidth_hz: float, settings: ConversionSettings) -> F64:
    """(M,): 0 up to the reference's bandwidth, falling to the shelf over a third of an octave."""
    octaves = np.log2(BAND_HZ / bandwidth_hz)
    return np.asarray(settings.shelf_db * NEPER_PER_DB * np.clip(octaves * 3.0, 0.0, 1.0))


def _deess(envelope: F64, voiced: Mask, settings: ConversionSettings) -> F64:
    """Turn down the top of unvoiced frames that are nearly nothing else. (T, K) to (T, K)."""
    top = settings.deess_above_hz <= BIN_HZ
    share = envelope[:, top].sum(axis=1) / np.maximum(envelope.sum(axis=1), 1e-16)
    gain = np.where(~voiced & (share > settings.deess_share), settings.deess_share / share, 1.0)
    gain = gaussian_filter1d(np.maximum(gain, _DEESS_FLOOR), 1.5)
    quieter = envelope.copy()
    quieter[:, top] *= gain[:, None]
    return quieter
