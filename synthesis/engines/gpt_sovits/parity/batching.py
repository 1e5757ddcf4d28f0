"""Which texts upstream decodes together.

Only to be compared: here rows need not be of like length, so all that wait are decoded together (decode_loop.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def bucket_by_length(lengths: Sequence[int], *, batch_size: int, threshold: float) -> list[list[int]]:
    """Indices of `lengths` in batches of at most `batch_size`, from the shortest on.

    A batch gives up its longest members until its middle length is at least `threshold` of its mean, so that a long
    text does not make short ones wait. Upstream's rule (TTS.py, to_batch), to the precision of its floats.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batches = []
    while order:
        taken = min(batch_size, len(order))
        while taken > 1 and not _is_even([lengths[index] for index in order[:taken]], threshold):
            taken -= 1
        batches.append(order[:taken])
        order = order[taken:]
    return batches


def _is_even(lengths: Sequence[int], threshold: float) -> bool:
    mean = float(np.mean(np.asarray(lengths, dtype=np.float32)))
    return lengths[len(lengths) // 2] / (mean + 1e-8) >= threshold


def group_in_order(count: int, *, batch_size: int) -> list[list[int]]:
    """Indices 0 .. count - 1 in consecutive batches of `batch_size`."""
    return [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]


def restore_order(batches: Sequence[Sequence[Item]], indices: Sequence[Sequence[int]]) -> list[Item]:
    """The items of `batches` in the order of the texts: `indices` are what made the batches."""
    placed = {
        index: item
        for batch, places in zip(batches, indices, strict=True)
        for item, index in zip(batch, places, strict=True)
    }
    return [placed[index] for index in range(len(placed))]
