"""Content encoder: HuBERT base, from 16 kHz audio to one vector each 20 ms.

Our own network over Hugging Face's `config.json` and tensor names: importing `transformers`' HuBERT and BERT costs
2.9 s of CPU time in every process (torch itself 1.2 s), and these are two plain encoders.
Letters in shapes: B batch, N samples at 16 kHz, T frames (50 Hz), C channels, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from synthesis.engines.gpt_sovits.errors import UnsupportedModelError
from synthesis.engines.gpt_sovits.loading import drop, fold_weight_norm, load_strictly

LEFT_OUT = {
    "masked_spec_embed": "stands for masked frames; only training masks any",
    "lm_head.": "the speech-recognition head of HubertForCTC files",
}

# What a Hugging Face configuration may also ask for. HuBERT base, which all codes of upstream's models come from, is
# built so; other answers are refused instead of carried along untested.
ONLY_SUPPORTED = {
    "model_type": "hubert",
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "hidden_act": "gelu",
    "conv_bias": False,
    "conv_pos_batch_norm": False,
    "feat_proj_layer_norm": True,
    "do_stable_layer_norm": False,
}


@dataclass(frozen=True, slots=True)
class ContentConfig:
    """Sizes of HuBERT."""

    width: int
    heads: int
    layers: int
    hidden: int  # of the feed-forward blocks
    conv_widths: tuple[int, ...]
    conv_kernels: tuple[int, ...]
    conv_strides: tuple[int, ...]
    position_kernel: int
    position_groups: int
    norm_epsilon: float

    @classmethod
    def from_hugging_face(cls, config: Mapping[str, Any]) -> Self:
        """From `config.json`. Raises UnsupportedModelError for a HuBERT of another build."""
        for option, wanted in ONLY_SUPPORTED.items():
            if config.get(option, wanted) != wanted:
                raise UnsupportedModelError("content encoder", option=option, found=config[option], wanted=wanted)
        return cls(
            width=int(config["hidden_size"]),
            heads=int(config["num_attention_heads"]),
            layers=int(config["num_hidden_layers"]),
            hidden=int(config["intermediate_size"]),
            conv_widths=tuple(config["conv_dim"]),
            conv_kernels=tuple(config["conv_kernel"]),
            conv_strides=tuple(config["conv_stride"]),
            position_kernel=int(config["num_conv_pos_embeddings"]),
            position_groups=int(config["num_conv_pos_embedding_groups"]),
            norm_epsilon=float(config["layer_norm_eps"]),
        )


class ContentEncoder(nn.Module):
    """HuBERT's last hidden state. Modules carry Hugging Face's names, so that its state dicts load as they are."""

    def __init__(self, config: ContentConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_extractor = _Convolutions(config)
        self.feature_projection = nn.ModuleDict(
            {
                "layer_norm": nn.LayerNorm(config.conv_widths[-1], eps=config.norm_epsilon),
                "projection": nn.Linear(config.conv_widths[-1], config.width),
            }
        )
        self.encoder = _Encoder(config)

    @classmethod
    def from_state(
        cls,
        state: Mapping[str, Tensor],
        config: Mapping[str, Any],
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """From a Hugging Face state dict, with or without the prefix `hubert.`, and its `config.json`.

        Weight norm of the positional convolution may be spelled either way and is folded. Half precision moves the
        output, root mean square: bfloat16 by 1.7 %, float16 by 0.2 % (12 layers, untrained weights), enough to change
        some codes. Raises UnsupportedModelError, CheckpointMismatchError.
        """
        with torch.device("meta"):
            model = cls(ContentConfig.from_hugging_face(config))
        state = drop({key.removeprefix("hubert."): tensor for key, tensor in state.items()}, LEFT_OUT)
        load_strictly(model, fold_weight_norm(state), model="content encoder")
        return model.to(device, dtype).eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def forward(self, audio: Tensor) -> Tensor:
        """(B, N) at 16 kHz, not normalised, to (B, C, T) float32; T = 49 for the first second, then 50 a second.

        Upstream hands it the bare samples; Hugging Face's extractor would normalise them and change the codes.
        """
        dtype = next(self.parameters()).dtype
        x = self.feature_extractor(audio[:, None].to(dtype))  # (B, conv C, T)
        x = self.feature_projection["layer_norm"](x.transpose(1, 2))
        x = self.feature_projection["projection"](x)  # (B, T, C)
        encoded: Tensor = self.encoder(x)
        return encoded.transpose(1, 2).float()


class _Convolutions(nn.Module):
    """320 samples to one frame. Only the first layer is normalised: each channel over the whole clip."""

    def __init__(self, config: ContentConfig) -> None:
        super().__init__()
        widths = pairwise((1, *config.conv_widths))
        self.conv_layers = nn.ModuleList(
            _Convolution(narrow, wide, kernel, stride, is_normalized=index == 0)
            for index, ((narrow, wide), kernel, stride) in enumerate(
                zip(widths, config.conv_kernels, config.conv_strides, strict=True)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, N) to (B, conv C, T)."""
        for layer in self.conv_layers:
            x = layer(x)
        return x


class _Convolution(nn.Module):
    def __init__(self, narrow: int, wide: int, kernel: int, stride: int, *, is_normalized: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(narrow, wide, kernel, stride, bias=False)
        self.layer_norm = nn.GroupNorm(wide, wide) if is_normalized else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.layer_norm(self.conv(x)))


class _Encoder(nn.Module):
    """Positions from a grouped convolution, then post-norm transformer layers."""

    def __init__(self, config: ContentConfig) -> None:
        super().__init__()
        kernel = config.position_kernel
        position = nn.Conv1d(config.width, config.width, kernel, padding=kernel // 2, groups=config.position_groups)
        self.pos_conv_embed = nn.ModuleDict({"conv": position})
        self.layer_norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        position = self.pos_conv_embed["conv"](x.transpose(1, 2))  # (B, C, T + 1) for an even kernel
        x = x + functional.gelu(position[..., : x.shape[1]]).transpose(1, 2)
        x = self.layer_norm(x)
        for layer in self.layers:
            x = layer(x)
        return x


class _Layer(nn.Module):
    def __init__(self, config: ContentConfig) -> None:
        super().__init__()
        self.attention = _Attention(config.width, config.heads)
        self.layer_norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.feed_forward = nn.ModuleDict(
            {
                "intermediate_dense": nn.Linear(config.width, config.hidden),
                "output_dense": nn.Linear(config.hidden, config.width),
            }
        )
        self.final_layer_norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm(x + self.attention(x))
        hidden = functional.gelu(self.feed_forward["intermediate_dense"](x))
        normed: Tensor = self.final_layer_norm(x + self.feed_forward["output_dense"](hidden))
        return normed


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, D)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = functional.scaled_dot_product_attention(q, k, v)
        projected: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return projected
