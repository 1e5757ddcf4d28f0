"""The least time each workload can take: bytes that must be read and multiplications that must be made.

Both against rates that torch itself reached on this machine in the same run; the larger of the two is the floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.benchmarks.engine.workloads import MEAN_CONTEXT, PHONES, PREFILL_PROMPT_CODES

# Of the published text-to-semantic models.
_WIDTH, _LAYERS, _CODES = 512, 24, 1025
_BLOCK_WEIGHTS = _LAYERS * 12 * _WIDTH * _WIDTH  # 3 C² for q, k, v, C² for the output, 8 C² for the two wide layers
_HEAD_WEIGHTS = _CODES * _WIDTH
_BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True)
class Floor:
    """What one unit of a workload takes, whoever does it."""

    read_bytes: float
    macs: float  # multiply-accumulates

    def seconds(self, rates: Mapping[str, float], precision: str) -> float:
        return max(self.read_bytes / rates["bytes a second"], self.macs / rates[f"{precision} MAC a second"])


def code_step(rows: int, precision: str) -> Floor:
    """One step of `rows` utterances: all weights once, each row's keys and values once (float32 on a CPU)."""
    positions = 2 * _LAYERS * _WIDTH * MEAN_CONTEXT  # keys and values of a row
    return Floor(
        read_bytes=_BLOCK_WEIGHTS * _BYTES[precision] + _HEAD_WEIGHTS * 4 + rows * positions * 4,
        macs=rows * (_BLOCK_WEIGHTS + _HEAD_WEIGHTS + positions),
    )


def prefill(rows: int, precision: str) -> Floor:
    length = PHONES + PREFILL_PROMPT_CODES
    seen = PHONES * PHONES + PREFILL_PROMPT_CODES * PHONES + PREFILL_PROMPT_CODES * (PREFILL_PROMPT_CODES + 1) / 2
    return Floor(
        read_bytes=_BLOCK_WEIGHTS * _BYTES[precision],
        macs=rows * (_BLOCK_WEIGHTS * length + 2 * _LAYERS * _WIDTH * seen),
    )
