"""From upstream's state dicts to our modules: what is left out is listed, everything else must fit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from synthesis.engines.gpt_sovits.errors import CheckpointMismatchError

# Both spellings of torch's weight norm: the old hook's, and torch.nn.utils.parametrizations'.
_MAGNITUDE_AND_DIRECTION = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)


def drop(state: Mapping[str, Tensor], left_out: Mapping[str, str]) -> dict[str, Tensor]:
    """`state` without the keys that begin with one of `left_out`, a table from prefix to the reason."""
    return {key: tensor for key, tensor in state.items() if not key.startswith(tuple(left_out))}


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each pair of magnitude g and direction v by the weight g * v / |v| they stand for.

    The norm runs over the dimensions in which g has size 1: all but the first for upstream's convolutions (the input
    channel, for transposed ones), all but the last for HuBERT's positional convolution. A g without its v, or the other
    way round, stays as it is and fails when the state is loaded.
    """
    folded = dict(state)
    for magnitude, direction in _MAGNITUDE_AND_DIRECTION:
        for key in [key for key in folded if key.endswith(magnitude)]:
            name = key.removesuffix(magnitude)
            if name + direction not in folded:
                continue
            g, v = folded.pop(key).float(), folded.pop(name + direction).float()
            reduced = [dim for dim in range(v.ndim) if g.shape[dim] == 1]
            folded[f"{name}.weight"] = v * (g / torch.linalg.vector_norm(v, dim=reduced, keepdim=True))
    return folded


class Table(nn.Module):
    """Rows to look up. nn.Embedding would do, but its initialisation on the meta device imports dynamo: 1.2 s."""

    def __init__(self, name: str, rows: int, width: int) -> None:
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.zeros(rows, width)))


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, model: str) -> None:
    """Make `state`'s tensors the parameters of `module` (built on the meta device), without copying them.

    Raises CheckpointMismatchError naming every key that is missing, unexpected or of another shape; `model` is what it
    calls the network. Nothing is loaded then.
    """
    wanted = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in state.items()}
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys())
    misshapen = sorted(key for key in wanted.keys() & found.keys() if wanted[key] != found[key])
    if missing or unexpected or misshapen:
        raise CheckpointMismatchError(
            model=model,
            missing=missing,
            unexpected=unexpected,
            misshapen={key: (found[key], wanted[key]) for key in misshapen},
        )
    module.load_state_dict(dict(state), strict=True, assign=True)
