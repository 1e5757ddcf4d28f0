"""Which seconds of a recording the voice is learned from."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from voices.errors import AudioTooShortError
from voices.inspection.limits import MAX_REFERENCE_SECONDS, MIN_REFERENCE_SECONDS, MIN_SPEECH_SECONDS
from voices.inspection.measuring import Envelope

_MARGIN_SECONDS = 0.25  # kept before the first and after the last word
_CUT_SPACING_SECONDS = 0.25

# The worth of a window, in seconds of speech: what one would give up for a cleaner window.
_PAUSE_COST = 0.3  # per second without speech
_CLIPPING_COST = 40.0  # per share of clipped samples
_SNR_WORTH = 0.05  # per dB, up to 40 dB
_CUT_COST = 0.05  # per dB that an edge is above the noise


def choose_window(
    envelope: Envelope, clipped: npt.NDArray[np.int64], *, sample_count: int, sample_rate_hz: int
) -> tuple[int, int]:
    """The best 3 to 10 seconds as samples [start, end): clean, dense speech, cut in pauses.

    `clipped` is (F,), clipped samples per frame of `envelope`, at any rate. Raises AudioTooShortError.
    """
    hop, active = envelope.hop, envelope.is_active
    frames_per_second = sample_rate_hz / hop
    voiced_frames = np.flatnonzero(active)
    margin = round(_MARGIN_SECONDS * frames_per_second)
    first = max(int(voiced_frames[0]) - margin, 0)
    last = min(int(voiced_frames[-1]) + 1 + margin, len(active))
    if (last - first) * hop > MAX_REFERENCE_SECONDS * sample_rate_hz:
        first, last = _best_frames(envelope, clipped, first, last, frames_per_second)
    start, end = first * hop, min(last * hop, sample_count)
    end = min(end, start + int(MAX_REFERENCE_SECONDS * sample_rate_hz))
    seconds, speech_seconds = (end - start) / sample_rate_hz, int(active[first:last].sum()) / frames_per_second
    if seconds < MIN_REFERENCE_SECONDS:
        raise _too_short(
            f"The recording has {seconds:.1f} seconds without the silence around them; at least "
            f"{MIN_REFERENCE_SECONDS:.0f} are needed.",
            seconds,
            MIN_REFERENCE_SECONDS,
        )
    if speech_seconds < MIN_SPEECH_SECONDS:
        raise _too_short(
            f"Only {speech_seconds:.1f} seconds of the recording are speech; at least {MIN_SPEECH_SECONDS} are needed.",
            speech_seconds,
            MIN_SPEECH_SECONDS,
        )
    return start, end


def _too_short(message: str, seconds: float, minimum_seconds: float) -> AudioTooShortError:
    return AudioTooShortError(message, seconds=round(seconds, 3), minimum_seconds=minimum_seconds)


def _best_frames(
    envelope: Envelope, clipped: npt.NDArray[np.int64], first: int, last: int, frames_per_second: float
) -> tuple[int, int]:
    """Frames [start, end): of all pairs of cuts 3 to 10 s apart the one worth most, the earlier of equals."""
    cuts = _quiet_cuts(envelope, first, last, frames_per_second)  # (K,)
    power, active = envelope.power, envelope.is_active
    clipped = np.pad(clipped, (0, max(len(power) - len(clipped), 0)))[: len(power)]

    def sums(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])

    speech_sum, clip_sum = sums(active), sums(clipped)
    speech_power_sum, noise_power_sum = sums(power * active), sums(power * ~active)
    typical_noise = max(float(np.percentile(power[first:last], 10)), 1e-10)
    cut_db = 10 * np.log10(np.maximum(power[np.minimum(cuts, len(power) - 1)], typical_noise) / typical_noise)
    cut_db[[0, -1]] = 0.0  # the ends of the recording are no cuts

    shortest = math.ceil(MIN_REFERENCE_SECONDS * frames_per_second)
    longest = math.floor(MAX_REFERENCE_SECONDS * frames_per_second)
    best, best_worth = (first, first + longest), -math.inf
    for index, start in enumerate(cuts):
        low, high = np.searchsorted(cuts, start + shortest), np.searchsorted(cuts, start + longest, side="right")
        ends = cuts[low:high]
        if not len(ends):
            continue
        length = ends - start
        speech = speech_sum[ends] - speech_sum[start]
        pause = length - speech
        noise = np.where(
            pause >= 10, (noise_power_sum[ends] - noise_power_sum[start]) / np.maximum(pause, 1), typical_noise
        )
        speech_power = (speech_power_sum[ends] - speech_power_sum[start]) / np.maximum(speech, 1)
        snr_db = 10 * np.log10(np.maximum(speech_power, 1e-10) / np.maximum(noise, 1e-10))
        clipped_frames_share = (clip_sum[ends] - clip_sum[start]) / (length * envelope.hop)
        worth = (
            (speech - _PAUSE_COST * pause) / frames_per_second
            + _SNR_WORTH * np.clip(snr_db, 0, 40)
            - _CLIPPING_COST * clipped_frames_share
            - _CUT_COST * np.minimum(cut_db[index] + cut_db[low:high], 60)
        )
        if (top := int(worth.argmax())) is not None and worth[top] > best_worth:
            best, best_worth = (int(start), int(ends[top])), float(worth[top])
    return best


def _quiet_cuts(envelope: Envelope, first: int, last: int, frames_per_second: float) -> npt.NDArray[np.int64]:
    """The quietest frame of every quarter of a second, and both ends."""
    spacing = max(round(_CUT_SPACING_SECONDS * frames_per_second), 1)
    starts = range(first, last, spacing)
    quietest = [begin + int(np.argmin(envelope.power[begin : min(begin + spacing, last)])) for begin in starts]
    return np.unique(np.array([first, *quietest, last], np.int64))
