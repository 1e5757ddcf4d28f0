"""Sizes of the models, read from their checkpoints: plain numbers, no torch."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

SAMPLE_RATE_HZ = 32_000  # of the wave, and of the reference spectrogram
CONTENT_RATE_HZ = 16_000  # HuBERT and the speaker network hear this rate
CODE_RATE_HZ = 25  # semantic codes; one code is 1,280 samples
SAMPLES_PER_CODE = SAMPLE_RATE_HZ // CODE_RATE_HZ
CODEBOOK_SIZE = 1024  # codes 0..1023; 1024 ends an utterance


class ModelVersion(enum.StrEnum):
    """As upstream names them."""

    V1 = "v1"
    V2 = "v2"
    V2_PRO = "v2Pro"
    V2_PRO_PLUS = "v2ProPlus"

    @property
    def has_speaker_vector(self) -> bool:
        return self in (ModelVersion.V2_PRO, ModelVersion.V2_PRO_PLUS)

    @property
    def symbol_table(self) -> Literal["v1", "v2"]:
        return "v1" if self is ModelVersion.V1 else "v2"

    @property
    def reference_bins(self) -> int:
        """How many of the spectrogram's 1,025 bins the style encoder sees."""
        return 1025 if self is ModelVersion.V1 else 704


@dataclass(frozen=True, slots=True)
class SemanticConfig:
    """The text-to-semantic transformer. `heads` cannot be read off tensors; the rest can."""

    width: int
    heads: int
    layers: int
    phones: int  # rows of the phone embedding
    codes: int  # rows of the code embedding; the last one ends an utterance

    @property
    def end_code(self) -> int:
        return self.codes - 1

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> SemanticConfig:
        """`config`: the checkpoint's own; `shapes`: of its tensors, keys without the leading `model.`."""
        phones, width = shapes["ar_text_embedding.word_embeddings.weight"]
        layers = 1 + max(int(key.split(".")[2]) for key in shapes if key.startswith("h.layers."))
        return cls(
            width=width,
            heads=int(config["model"]["head"]),
            layers=layers,
            phones=phones,
            codes=shapes["ar_audio_embedding.word_embeddings.weight"][0],
        )


@dataclass(frozen=True, slots=True)
class VitsConfig:
    """The SoVITS decoder (upstream SynthesizerTrn). Sizes that tensors show are read from them when it is built."""

    version: ModelVersion
    heads: int  # of the relative-attention encoders
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any], version: ModelVersion) -> VitsConfig:
        model = config["model"]
        return cls(
            version=version,
            heads=int(model["n_heads"]),
            upsample_rates=tuple(model["upsample_rates"]),
            upsample_kernel_sizes=tuple(model["upsample_kernel_sizes"]),
            resblock_kernel_sizes=tuple(model["resblock_kernel_sizes"]),
            resblock_dilation_sizes=tuple(tuple(dilations) for dilations in model["resblock_dilation_sizes"]),
        )
