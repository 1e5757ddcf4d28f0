"""How the next code is chosen from the logits (upstream AR/models/utils.py: `logits_to_probs`, `sample`).

Order: repetition penalty, top-p, temperature, top-k, softmax, exponential race. Each row of a batch has its own options
and noise, and no row's result depends on another row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synthesis.engines.gpt_sovits.errors import InvalidSamplingError

_LOWEST_TEMPERATURE = 1e-5  # upstream logits_to_probs divides by no less


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """The defaults are upstream's (TTS_infer_pack/TTS.py, `run`). `top_k` = 1 is greedy; `top_p` = 1 filters nothing.

    Raises InvalidSamplingError: `top_k` >= 1, 0 < `top_p` <= 1, `temperature` >= 0, `repetition_penalty` > 0 (1 leaves
    the logits alone), and all of them finite.
    """

    top_k: int = 15
    top_p: float = 1.0
    temperature: float = 1.0
    repetition_penalty: float = 1.35

    def __post_init__(self) -> None:
        allowed = {
            "top_k": self.top_k >= 1,
            "top_p": 0 < self.top_p <= 1,
            "temperature": self.temperature >= 0 and math.isfinite(self.temperature),
            "repetition_penalty": self.repetition_penalty > 0 and math.isfinite(self.repetition_penalty),
        }
        for option, is_allowed in allowed.items():
            if not is_allowed:
                raise InvalidSamplingError(option, getattr(self, option))


class Sampler:
    """The options of the rows of one batch, as tensors: make a new one when a row joins or leaves."""

    def __init__(self, options: Sequence[SamplingOptions], vocabulary: int, device: torch.device) -> None:
        """`vocabulary`: V, the width of the logits."""

        def column(values: list[float]) -> Tensor:  # (B, 1)
            return torch.tensor(values, dtype=torch.float32, device=device)[:, None]

        ks = [min(row.top_k, vocabulary) for row in options]
        self._largest_k = max(ks)
        self._pivot = torch.tensor([k - 1 for k in ks], device=device)[:, None]  # where the top-k values end
        self._has_one_k = min(ks) == self._largest_k
        self._penalty = column([row.repetition_penalty for row in options])
        self._has_penalty = any(row.repetition_penalty != 1 for row in options)
        # Rounding lifts a cumulative sum over 1; a row without top-p must not lose its tail to that.
        self._top_p = column([row.top_p if row.top_p < 1 else math.inf for row in options])
        self._has_top_p = any(row.top_p < 1 for row in options)
        self._temperature = column([max(row.temperature, _LOWEST_TEMPERATURE) for row in options])
        self._has_temperature = any(row.temperature != 1 for row in options)

    def penalise(self, logits: Tensor, seen: Tensor) -> None:
        """Make the codes of each row's history less likely, in place.

        logits: (B, V) float32. seen: (B, V) bool, the row's prompt and its codes so far; how often a code came does not
        count.
        """
        if self._has_penalty:
            penalised = torch.where(logits < 0, logits * self._penalty, logits / self._penalty)
            torch.where(seen, penalised, logits, out=logits)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, V) logits, which stay as they are, to probabilities after all filters."""
        if self._has_top_p:
            ordered, order = logits.sort(dim=-1, descending=True)
            # The code that crosses top_p goes too, unlike in the usual definition; the best one always stays.
            surplus = ordered.softmax(dim=-1).cumsum(dim=-1) > self._top_p
            surplus[:, 0] = False
            logits = logits.masked_fill(torch.zeros_like(surplus).scatter_(1, order, surplus), -math.inf)
        if self._has_temperature:
            logits = logits / self._temperature
        best = logits.topk(self._largest_k, dim=-1).values
        pivot = best[:, -1:] if self._has_one_k else best.gather(1, self._pivot)
        return torch.where(logits < pivot, -math.inf, logits).softmax(dim=-1)  # equals of the k-th stay in


def draw_noise(noise: Tensor, generators: Sequence[torch.Generator]) -> None:
    """Fill each row of (B, V) float32 from the exponential distribution of rate 1, with its own generator.

    As -log u, because `exponential_` takes three times as long. u keeps off 0 and 1: a noise of 0 or infinity would
    make 0/0 of a code that is filtered out, or lose the only one that is not.
    """
    for row, generator in zip(noise, generators, strict=True):
        if generator.device == noise.device:
            row.uniform_(2**-25, 1.0, generator=generator)
        else:
            row.copy_(torch.empty_like(row, device=generator.device).uniform_(2**-25, 1.0, generator=generator))
    noise.log_().neg_()


def draw(probabilities: Tensor, noise: Tensor) -> Tensor:
    """One code a row, (B,) int64. noise: (B, V), drawn from the exponential distribution of rate 1; used up."""
    return torch.div(probabilities, noise, out=noise).argmax(dim=-1)
