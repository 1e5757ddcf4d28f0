"""Models with untrained weights, written as upstream's checkpoints and imported like them.

They say nothing that anybody could understand, but every tensor has its place and size: `TINY` runs in milliseconds,
`FULL` has the sizes of the published models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synthesis.engines.gpt_sovits.bert import BertConfig
from synthesis.engines.gpt_sovits.config import ModelVersion, SemanticConfig
from synthesis.engines.gpt_sovits.content import ContentConfig
from synthesis.engines.gpt_sovits.importing import import_sources
from synthesis.engines.gpt_sovits.parity.features import content_shapes, text_encoder_shapes
from synthesis.engines.gpt_sovits.parity.report import recipe_state
from synthesis.engines.gpt_sovits.parity.vits import speaker_shapes, vits_shapes
from synthesis.engines.gpt_sovits.semantic import state_shapes

HANZI = "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会天气好世界今"
_SHARED = 10.0
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", ",", ".", "!", "?", "…", "-")


@dataclass(frozen=True)
class Sizes:
    semantic: SemanticConfig
    vits: Mapping[str, Any]
    mrte_width: int
    content: Mapping[str, Any]
    bert: Mapping[str, Any]


def _vits(**changes: Any) -> dict[str, Any]:
    return {
        "n_heads": 2,
        "kernel_size": 3,
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5]] * 3,
        "upsample_rates": [10, 8, 2, 2, 2],
        "upsample_kernel_sizes": [16, 16, 8, 2, 2],
        **changes,
    }


def _content(convolution: int, hidden: int, layers: int) -> dict[str, Any]:
    return {
        "model_type": "hubert",
        "hidden_size": 768,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "intermediate_size": hidden,
        "conv_dim": [convolution] * 7,
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
        "conv_bias": False,
        "feat_extract_norm": "group",
        "feat_extract_activation": "gelu",
        "hidden_act": "gelu",
        "do_stable_layer_norm": False,
        "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16,
        "layer_norm_eps": 1e-5,
    }


def _bert(layers: int, heads: int, hidden: int, vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "hidden_size": 1024,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": hidden,
        "vocab_size": vocabulary,
        "max_position_embeddings": 512,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }


TINY = Sizes(
    semantic=SemanticConfig(width=64, heads=4, layers=2, phones=732, codes=1025),
    vits=_vits(
        inter_channels=32,
        hidden_channels=48,
        filter_channels=64,
        n_layers=2,
        gin_channels=64,
        upsample_initial_channel=64,
    ),
    mrte_width=64,
    content=_content(32, 96, 1),
    bert=_bert(4, 4, 64, len(_SPECIAL) + len(HANZI)),
)
FULL = Sizes(
    semantic=SemanticConfig(width=512, heads=16, layers=24, phones=732, codes=1025),
    vits=_vits(
        inter_channels=192,
        hidden_channels=192,
        filter_channels=768,
        n_layers=6,
        gin_channels=512,
        upsample_initial_channel=512,
    ),
    mrte_width=512,
    content=_content(512, 3072, 12),
    bert=_bert(24, 16, 4096, 21128),
)
# What the versions differ in (gpt-sovits: SynthesizerTrn's constructor arguments).
_OF_VERSION: Mapping[ModelVersion, Mapping[str, Any]] = {
    ModelVersion.V1: {},
    ModelVersion.V2: {},
    ModelVersion.V2_PRO: {"gin_channels": 1024},
    ModelVersion.V2_PRO_PLUS: {
        "gin_channels": 1024,
        "upsample_initial_channel": 768,
        "upsample_kernel_sizes": [20, 16, 8, 2, 2],
    },
}


def write_checkpoints(
    folder: Path, version: ModelVersion, sizes: Sizes = TINY, *, seed: int = 1, end_logit: float | None = None
) -> list[Path]:
    """A transformer, a SoVITS file and the extractors, each in its publisher's format.

    `end_logit` is how likely the end of an utterance is at every step: an untrained transformer ends when it happens
    to, or never. One that is among the fifteen best ends its utterances after a second or two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    semantic = sizes.semantic
    if version is ModelVersion.V1:
        semantic = SemanticConfig(semantic.width, semantic.heads, semantic.layers, phones=512, codes=semantic.codes)
    sources = [_write_semantic(folder / "s1.ckpt", semantic, seed, end_logit)]
    vits = {**sizes.vits, **(_OF_VERSION[version] if sizes is FULL else {}), "version": str(version)}
    shapes = vits_shapes({"model": vits}, version, mrte_width=sizes.mrte_width)
    sources.append(_write(folder / "s2.pth", recipe_state(shapes, seed), {"model": vits}))
    sources.append(
        _write_hugging_face(
            folder / "hubert",
            content_shapes(ContentConfig.from_hugging_face(sizes.content)),
            sizes.content,
            seed,
        )
    )
    tokens = [*_SPECIAL, *HANZI]
    tokens += [f"[unused{number}]" for number in range(sizes.bert["vocab_size"] - len(tokens))]
    bert = _write_hugging_face(
        folder / "roberta", text_encoder_shapes(BertConfig.from_hugging_face(sizes.bert)), sizes.bert, seed
    )
    (bert / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    sources.append(bert)
    if version.has_speaker_vector:
        path = folder / "eres2netv2.ckpt"
        torch.save(_half(recipe_state(speaker_shapes(), seed)), path)
        sources.append(path)
    return sources


def install(
    model_path: Path,
    scratch: Path,
    version: ModelVersion = ModelVersion.V2,
    sizes: Sizes = TINY,
    *,
    name: str = "default",
    seed: int = 1,
    end_logit: float | None = None,
) -> None:
    """Write the checkpoints below `scratch` and import them as the model `name`."""
    sources = write_checkpoints(scratch, version, sizes, seed=seed, end_logit=end_logit)
    import_sources(sources, model_path=model_path, name=name, replace=True)


def _write_semantic(path: Path, config: SemanticConfig, seed: int, end_logit: float | None) -> Path:
    state = {
        f"model.{key}": tensor for key, tensor in recipe_state(state_shapes(config), seed, prefix="model.").items()
    }
    if end_logit is not None:
        # The last layer norm's bias is what all positions share. Make it large along one direction, and let the end
        # code's row point there: its logit is then the same wherever an utterance is, up to a tenth or so.
        direction = torch.zeros(config.width)
        direction[0] = _SHARED
        state[f"model.h.layers.{config.layers - 1}.norm2.bias"] += direction
        state["model.ar_predict_layer.weight"][config.end_code] = direction * (end_logit / _SHARED**2)
    upstream = {
        "model": {
            "vocab_size": config.codes,
            "phoneme_vocab_size": config.phones,
            "embedding_dim": config.width,
            "hidden_dim": config.width,
            "head": config.heads,
            "linear_units": 4 * config.width,
            "n_layer": config.layers,
            "EOS": config.end_code,
        },
        "data": {"max_sec": 54},
    }
    return _write(path, state, upstream)


def _write(path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> Path:
    torch.save({"weight": _half(state), "config": dict(config), "info": "untrained"}, path)
    return path


def _write_hugging_face(
    folder: Path, shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any], seed: int
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(_half(recipe_state(shapes, seed)), folder / "pytorch_model.bin")
    return folder


def _half(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
