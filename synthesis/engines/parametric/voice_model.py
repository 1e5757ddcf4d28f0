"""A prepared voice as typed fields, and as the flat arrays that a `VoicePrompt` stores.

Shapes: `J` classes, `C` = 23 cepstra, `M` = 72 mel bands, `R` real frames of the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthesis.engines.parametric.world import F64


@dataclass(frozen=True, slots=True)
class ClassMap:
    """For each class of the source's sounds: where it lies, and what turns it into the reference's."""

    mean: F64  # (C,), of the warped source's cepstra
    spread: F64  # (C,)
    centres: F64  # (J, C), in cepstra normalised by the two above
    offsets: F64  # (J, M), added to the log mel envelope


@dataclass(frozen=True, slots=True)
class VoiceModel:
    log_f0_median: float  # natural log of hertz
    log_f0_spread: float
    tract_scale: float  # formants of the source at f belong at tract_scale * f
    gain: float  # linear, the one gain of this voice
    rate_ratio: float  # syllables per second, reference to source
    snr_db: float
    bandwidth_hz: float
    voiced: ClassMap
    unvoiced: ClassMap
    aperiodicity_mean: F64  # (6,) logits, reference
    aperiodicity_spread: F64  # (6,)
    source_aperiodicity_mean: F64  # (6,)
    source_aperiodicity_spread: F64  # (6,)
    neighbours: F64  # (R, M), real voiced envelopes of the reference, gain removed

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {name: np.array(getattr(self, name), np.float32) for name in _FIELDS}
        for name in _CLASS_MAPS:
            for field in _CLASS_MAP_FIELDS:
                arrays[f"{name}.{field}"] = getattr(getattr(self, name), field).astype(np.float32)
        # Half precision halves the stored voice; an error of 0.1 % of a neper is not heard.
        arrays["neighbours"] = self.neighbours.astype(np.float16)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> VoiceModel:
        """Raises KeyError where an array is missing."""

        def vector(name: str) -> F64:
            return arrays[name].astype(np.float64)

        def class_map(name: str) -> ClassMap:
            return ClassMap(*(vector(f"{name}.{field}") for field in _CLASS_MAP_FIELDS))

        return cls(
            log_f0_median=float(arrays["log_f0_median"]),
            log_f0_spread=float(arrays["log_f0_spread"]),
            tract_scale=float(arrays["tract_scale"]),
            gain=float(arrays["gain"]),
            rate_ratio=float(arrays["rate_ratio"]),
            snr_db=float(arrays["snr_db"]),
            bandwidth_hz=float(arrays["bandwidth_hz"]),
            voiced=class_map("voiced"),
            unvoiced=class_map("unvoiced"),
            aperiodicity_mean=vector("aperiodicity_mean"),
            aperiodicity_spread=vector("aperiodicity_spread"),
            source_aperiodicity_mean=vector("source_aperiodicity_mean"),
            source_aperiodicity_spread=vector("source_aperiodicity_spread"),
            neighbours=vector("neighbours"),
        )


_CLASS_MAP_FIELDS = tuple(field.name for field in fields(ClassMap))
_CLASS_MAPS = ("voiced", "unvoiced")
_FIELDS = tuple(field.name for field in fields(VoiceModel) if field.name not in {*_CLASS_MAPS, "neighbours"})
