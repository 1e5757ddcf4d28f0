"""A prepared voice as typed fields, and as the flat arrays that a `VoicePrompt` stores.

Shapes: `M` = 72 mel bands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthesis.engines.parametric.world import F64


@dataclass(frozen=True, slots=True)
class VoiceModel:
    log_f0_median: float  # natural log of hertz
    log_f0_spread: float
    tract_scale: float  # formants of the source at f belong at tract_scale * f
    gain: float  # linear, the one gain of this voice
    rate_ratio: float  # syllables per second, reference to source
    snr_db: float
    bandwidth_hz: float
    voiced_timbre: F64  # (M,) log mel, added to every voiced frame; leaves the mean energy as it is
    unvoiced_timbre: F64  # (M,), the same for unvoiced sound
    aperiodicity_mean: F64  # (6,) logits, reference
    aperiodicity_spread: F64  # (6,)
    source_aperiodicity_mean: F64  # (6,)
    source_aperiodicity_spread: F64  # (6,)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {field.name: np.array(getattr(self, field.name), np.float32) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> VoiceModel:
        """Raises KeyError where an array is missing."""

        def number(name: str) -> float:
            return float(arrays[name])

        def vector(name: str) -> F64:
            return arrays[name].astype(np.float64)

        return cls(
            log_f0_median=number("log_f0_median"),
            log_f0_spread=number("log_f0_spread"),
            tract_scale=number("tract_scale"),
            gain=number("gain"),
            rate_ratio=number("rate_ratio"),
            snr_db=number("snr_db"),
            bandwidth_hz=number("bandwidth_hz"),
            voiced_timbre=vector("voiced_timbre"),
            unvoiced_timbre=vector("unvoiced_timbre"),
            aperiodicity_mean=vector("aperiodicity_mean"),
            aperiodicity_spread=vector("aperiodicity_spread"),
            source_aperiodicity_mean=vector("source_aperiodicity_mean"),
            source_aperiodicity_spread=vector("source_aperiodicity_spread"),
        )
