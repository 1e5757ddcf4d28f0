"""How upstream makes one wave of pieces. `N` samples, float32, full scale is +-1.

Only to be compared: here the pieces of a stream belong to one wave (vits_stream.py), and the renderer sets pauses.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

SEARCH_SAMPLES = 320  # upstream sola_algorithm: how far a piece may be moved to fit the one before it


def fade_over(tail: Tensor, following: Tensor, *, search_samples: int = SEARCH_SAMPLES) -> Tensor:
    """Continue a wave that ends in `tail` by `following`, which says the tail again: (overlap,), (N,) to (N - shift,).

    SOLA (synchronous overlap-add): `following` is moved forward by the shift, at most `search_samples`, at which it is
    most like the tail, and faded in over it. Put the result in the tail's place. `following` must be at least as long
    as the tail; neither argument is changed.
    """
    overlap = len(tail)
    assert len(following) >= overlap
    tail = tail.float()
    searched = following[: overlap + search_samples].float()
    likeness = functional.conv1d(searched[None, None], tail[None, None])[0, 0]  # (shifts,)
    energy = functional.conv1d(searched.square()[None, None], torch.ones_like(tail)[None, None])[0, 0]
    shift = int((likeness / (energy + 1e-8).sqrt()).argmax())
    shifted = following[shift:].float()
    window = torch.hann_window(2 * overlap, device=tail.device)
    return torch.cat((window[:overlap] * shifted[:overlap] + window[overlap:] * tail, shifted[overlap:]))


def join_overlapping(pieces: Sequence[Tensor], *, overlap_samples: int, search_samples: int = SEARCH_SAMPLES) -> Tensor:
    """One wave from pieces (N,) each of which begins with the last `overlap_samples` of the one before, said again."""
    parts: list[Tensor] = []
    current = pieces[0].float()
    for following in pieces[1:]:
        parts.append(current[:-overlap_samples])
        current = fade_over(current[-overlap_samples:], following, search_samples=search_samples)
    return torch.cat([*parts, current])


def limit_peak(audio: Tensor) -> Tensor:
    """(N,), scaled down to full scale where it exceeds it; quieter audio keeps its level."""
    return audio / audio.abs().max().clamp(min=1.0) if len(audio) else audio


def join_with_pauses(utterances: Sequence[Tensor], *, pause_samples: int) -> Tensor:
    """One wave from utterances (N,), each with its peak limited and followed by silence, the last one too."""
    return torch.cat([functional.pad(limit_peak(utterance), (0, pause_samples)) for utterance in utterances])
