"""ERes2NetV2: the speaker vector that v2Pro and v2ProPlus take beside the reference's spectrogram.

A residual network over the picture of a clip's filter bank (arXiv 2406.02167; upstream eres2net/ERes2NetV2.py,
forward3). Batch norm is folded into the convolutions when the checkpoint is loaded. Letters in shapes: F frames of
10 ms, C channels, H height (80 mel bands, halved three times), W width (F, halved three times). B is 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthesis.engines.gpt_sovits.errors import CheckpointMismatchError
from synthesis.engines.gpt_sovits.loading import drop, load_strictly

LEFT_OUT: Mapping[str, str] = {
    "seg_1.": "the layer behind the vector that is used: 192 numbers for speaker verification",
}

_CEILING = 20.0  # of the clipped ReLU, upstream eres2net/ERes2NetV2.py ReLU
_NORM_EPSILON = 1e-5  # torch's default of BatchNorm2d
_STAGES = ("layer1", "layer2", "layer3", "layer4")

# The convolution that each batch norm follows, and whether it has a bias of its own.
_CONVOLUTION_OF_NORM = (
    (re.compile(r"\bbn(\d)$"), r"conv\1", False),
    (re.compile(r"\bbns\.(\d+)$"), r"convs.\1", False),
    (re.compile(r"\bshortcut\.1$"), "shortcut.0", False),
    (re.compile(r"\blocal_att\.1$"), "local_att.0", True),
    (re.compile(r"\blocal_att\.4$"), "local_att.3", True),
)


@dataclass(frozen=True, slots=True)
class _BlockSizes:
    """What the tensors of one block show."""

    entering: int
    width: int  # of one split
    splits: int
    leaving: int
    has_shortcut: bool
    fused: int  # channels inside a fusion; 0 where splits are added

    @classmethod
    def read(cls, state: Mapping[str, Tensor], name: str) -> _BlockSizes:
        split, entering, _, _ = _shape(state, f"{name}.conv1.weight")
        width = _shape(state, f"{name}.convs.0.weight")[0]
        fusion = f"{name}.fuse_models.0.local_att.0.weight"
        return cls(
            entering=entering,
            width=width,
            splits=split // width,
            leaving=_shape(state, f"{name}.conv3.weight")[0],
            has_shortcut=f"{name}.shortcut.0.weight" in state,
            fused=state[fusion].shape[0] if fusion in state else 0,
        )


class _Fusion(nn.Module):
    """Attentional feature fusion (arXiv 2009.14082; upstream eres2net/fusion.py AFF)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        layers = {"0": nn.Conv2d(2 * channels, inner, 1), "3": nn.Conv2d(inner, channels, 1)}
        self.local_att = nn.ModuleDict(layers)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y: (1, C, H, W). Returns their mix, the same shape."""
        inner = F.silu(self.local_att["0"](torch.cat([x, y], dim=1)))
        attention = self.local_att["3"](inner).tanh()  # -1..1
        mixed: Tensor = x * (1 + attention) + y * (1 - attention)
        return mixed


class _Block(nn.Module):
    """1x1 convolution, splits that each hear the one before, 1x1 convolution, shortcut."""

    def __init__(self, sizes: _BlockSizes, stride: int) -> None:
        super().__init__()
        self.width = sizes.width
        self.conv1 = nn.Conv2d(sizes.entering, sizes.width * sizes.splits, 1, stride=stride)
        self.convs = nn.ModuleList(nn.Conv2d(sizes.width, sizes.width, 3, padding=1) for _ in range(sizes.splits))
        self.conv3 = nn.Conv2d(sizes.width * sizes.splits, sizes.leaving, 1)
        self.fuse_models = nn.ModuleList(
            _Fusion(sizes.width, sizes.fused) for _ in range(sizes.splits - 1 if sizes.fused else 0)
        )
        self.shortcut = nn.ModuleDict(
            {"0": nn.Conv2d(sizes.entering, sizes.leaving, 1, stride=stride)} if sizes.has_shortcut else {}
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (1, C, H, W). Returns (1, C', H', W')."""
        splits = self.conv1(x).clamp_(0, _CEILING).split(self.width, dim=1)
        heard: list[Tensor] = []
        for i, (split, conv) in enumerate(zip(splits, self.convs, strict=True)):
            if i == 0:
                mixed = split
            elif len(self.fuse_models):
                mixed = self.fuse_models[i - 1](heard[-1], split)
            else:
                mixed = heard[-1] + split
            heard.append(conv(mixed).clamp_(0, _CEILING))
        out: Tensor = self.conv3(torch.cat(heard, dim=1))
        return out.add_(self.shortcut["0"](x) if len(self.shortcut) else x).clamp_(0, _CEILING)


class SpeakerNetwork(nn.Module):
    """Make it with `from_state`; it holds nothing of a clip and is safe to share between threads."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        """`state`, batch norms folded, gives the sizes only."""
        super().__init__()
        first, _, height, width = _shape(state, "conv1.weight")
        self.conv1 = nn.Conv2d(1, first, (height, width), padding=(height // 2, width // 2))
        self.stages: list[nn.ModuleList] = []
        for number, name in enumerate(_STAGES):
            blocks = sorted({int(key.split(".")[1]) for key in state if key.startswith(f"{name}.")})
            strides = [1 if number == 0 or i else 2 for i in range(len(blocks))]
            stage = nn.ModuleList(
                _Block(_BlockSizes.read(state, f"{name}.{i}"), stride)
                for i, stride in zip(blocks, strides, strict=True)
            )
            self.add_module(name, stage)
            self.stages.append(stage)
        fourth, third, height, width = _shape(state, "layer3_ds.weight")
        self.layer3_ds = nn.Conv2d(
            third, fourth, (height, width), stride=2, padding=(height // 2, width // 2), bias=False
        )
        self.fuse34 = _Fusion(fourth, _shape(state, "fuse34.local_att.0.weight")[0])

    @classmethod
    def from_state(
        cls, state: Mapping[str, Tensor], *, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> SpeakerNetwork:
        """Build the network from a checkpoint's tensors (upstream's keys).

        Raises CheckpointMismatchError where a key is missing, unknown (not in LEFT_OUT) or of another shape.
        """
        folded = _fold_batch_norms(drop(state, LEFT_OUT))
        with torch.device("meta"):
            network = cls(folded)
        load_strictly(network, folded, model="speaker network")
        for parameter in network.parameters():
            layout = torch.channels_last if parameter.ndim == 4 else torch.contiguous_format
            parameter.data = parameter.data.to(device=device, dtype=dtype, memory_format=layout)
        return network.eval().requires_grad_(False)

    @torch.inference_mode()
    def embed(self, filter_bank: Tensor) -> Tensor:
        """filter_bank: (F, 80) log energies of 16 kHz audio each 10 ms. Returns (20480,) float32: channels x height."""
        x = filter_bank.T[None, None].to(self.conv1.weight)  # (1, 1, 80, F)
        x = self.conv1(x.contiguous(memory_format=torch.channels_last)).relu_()
        outputs: list[Tensor] = []
        for stage in self.stages:
            for block in stage:
                x = block(x)
            outputs.append(x)
        third, fourth = outputs[-2:]
        fused = self.fuse34(fourth, self.layer3_ds(third))  # (1, 2048, 10, W)
        vector: Tensor = fused[0].float().mean(dim=2).flatten()
        return vector


def _shape(state: Mapping[str, Tensor], key: str) -> Sequence[int]:
    if key not in state:
        raise CheckpointMismatchError(model="speaker network", missing=[key])
    return tuple(state[key].shape)


def _fold_batch_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scale and shift each convolution as the batch norm behind it would, in float32.

    Where a part is missing, the others stay as they are and fail when the state is loaded.
    """
    folded = {key: tensor.float() for key, tensor in state.items() if not key.endswith(".num_batches_tracked")}
    for name in [key.removesuffix(".running_var") for key in folded if key.endswith(".running_var")]:
        for pattern, replacement, has_bias in _CONVOLUTION_OF_NORM:
            if not pattern.search(name):
                continue
            convolution = pattern.sub(replacement, name)
            parts = [f"{name}.weight", f"{name}.bias", f"{name}.running_mean", f"{name}.running_var"]
            parts += [f"{convolution}.weight"] + ([f"{convolution}.bias"] if has_bias else [])
            if folded.keys() >= set(parts):
                scale, shift, mean, variance, kernel, *bias = (folded.pop(part) for part in parts)
                scale = scale * (variance + _NORM_EPSILON).rsqrt()
                folded[f"{convolution}.weight"] = kernel * scale[:, None, None, None]
                folded[f"{convolution}.bias"] = (bias[0] - mean if bias else -mean) * scale + shift
    return folded
