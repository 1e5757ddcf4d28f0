"""What a parity check says, and the reference sets it reads."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

RELATIVE_TOLERANCE = 1e-4  # waves, mels, features at fp32: of the largest magnitude in the reference


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison. For tokens, ids and text `error` is the share that differs and `tolerance` the share allowed."""

    name: str
    error: float
    tolerance: float
    note: str = ""  # what differs and why, printed after the verdict

    @property
    def holds(self) -> bool:
        return self.error <= self.tolerance  # False for NaN


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """`NAME.json` and, where the set has tensors, `NAME.safetensors`."""

    folder: Path
    name: str

    @property
    def description(self) -> Any:
        return json.loads((self.folder / f"{self.name}.json").read_text(encoding="utf-8"))

    @property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.folder / f"{self.name}.safetensors")


def worst(name: str, cases: Sequence[Case]) -> Case:
    """One case for several that look at the same items: the one nearest to failing, with the notes of all."""

    def strain(case: Case) -> float:
        if case.tolerance > 0.0:
            return case.error / case.tolerance
        return 0.0 if case.holds else float("inf")

    found = max(cases, key=strain)
    return Case(
        name, found.error, found.tolerance, "\n".join(f"{case.name}: {case.note}" for case in cases if case.note)
    )


Checker = Callable[[GoldenSet], Iterator[Case]]


def compare(name: str, found: Tensor, wanted: Tensor, relative_tolerance: float = RELATIVE_TOLERANCE) -> Case:
    """Element by element; another shape or a value that is not a number never holds."""
    if found.shape != wanted.shape:
        return Case(name, float("inf"), 0.0, f"shape {tuple(found.shape)}, wanted {tuple(wanted.shape)}")
    wanted = wanted.double()
    tolerance = relative_tolerance * float(wanted.abs().max())
    return Case(name, float((found.double() - wanted).abs().max()), tolerance)


def compare_equal(name: str, found: Sequence[Any], wanted: Sequence[Any]) -> Case:
    """The share of items that differ; none may."""
    longest = max(len(found), len(wanted), 1)
    same = sum(a == b for a, b in zip(found, wanted, strict=False))
    return Case(name, 1.0 - same / longest, 0.0)


def recipe(key: str, shape: Sequence[int], seed: int) -> NDArray[Any]:
    """The untrained weight of one state-dict entry, as the reference sets whose `weights` is `recipe` were made.

    `key` is upstream's full key (AR keys begin with `model.`). Depends on numpy's frozen RandomState alone.
    """
    random = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
    last = key.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if last in ("inited", "cluster_size"):
        return np.ones(shape, np.float32)
    if key.endswith("_codebook.embed_avg"):
        return recipe(key.removesuffix("_avg"), shape, seed)
    x = random.standard_normal(tuple(shape)).astype(np.float32)
    scaled = _scale(key, last, x)
    return scaled.astype(np.float32)


def _scale(key: str, last: str, x: NDArray[np.float32]) -> NDArray[Any]:
    is_upsampling = ".ups." in f".{key}"  # larger, or the signal dies out
    if key.endswith("_codebook.embed"):
        return x
    if key == "conv_post.weight_g":
        return 0.02 + 0.0 * x
    if key.endswith(("weight_g", "weight.original0")):
        return (2.0 if is_upsampling else 0.5) + 0.05 * x
    if last == "running_var":
        return 0.75 + 0.25 * np.abs(x)
    if last == "running_mean":
        return 0.1 * x
    if key.endswith("prelu.weight"):
        return 0.25 + 0.02 * x
    if key.endswith("position.alpha"):
        return 1.0 + 0.1 * x
    if "emb_rel_" in key:
        return 0.1 * x
    if "embedding" in key and x.ndim == 2:
        return x
    if x.ndim <= 1 or key.endswith(("grn.gamma", "grn.beta")):
        return 1.0 + 0.1 * x if last in ("weight", "gamma") else 0.05 * x
    root: float = np.sqrt(int(np.prod(x.shape[1:])))
    if key.endswith("ar_predict_layer.weight"):
        return 1.2 * x / root
    if key.endswith(("out_proj.weight", "linear2.weight", "output.dense.weight", "output_dense.weight")):
        return 0.2 * x / root  # keeps deep post-norm stacks from collapsing
    if key.endswith("in_proj_weight"):
        return 2.0 * x / root
    if key == "conv_post.weight":
        return 0.3 * x / root
    return 2.0 * x / root if is_upsampling else x / root


def recipe_state(shapes: Mapping[str, Sequence[int]], seed: int, prefix: str = "") -> dict[str, Tensor]:
    """A whole state dict; `prefix` is put before each key for the recipe only."""
    return {key: torch.from_numpy(recipe(prefix + key, shape, seed).copy()) for key, shape in shapes.items()}
