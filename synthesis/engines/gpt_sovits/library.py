"""The models of this process: opened by name, their shared parts loaded once."""

from __future__ import annotations

import enum
import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from synthesis.engines.gpt_sovits.bert import TextEncoder, Vocabulary
from synthesis.engines.gpt_sovits.config import ModelVersion
from synthesis.engines.gpt_sovits.content import ContentEncoder
from synthesis.engines.gpt_sovits.engine import GptSovitsEngine
from synthesis.engines.gpt_sovits.errors import UnsupportedModelError
from synthesis.engines.gpt_sovits.features import REFERENCE_HOP
from synthesis.engines.gpt_sovits.model_folder import (
    TEXT_FOLDER,
    ExtractorFiles,
    VoiceModelFiles,
    choose_model,
    open_extractor,
    read_tensors,
)
from synthesis.engines.gpt_sovits.pipeline import Models
from synthesis.engines.gpt_sovits.semantic import SemanticDecoder
from synthesis.engines.gpt_sovits.speaker import SpeakerNetwork
from synthesis.engines.gpt_sovits.text.reading import TextData
from synthesis.engines.gpt_sovits.vits import Vits
from synthesis.engines.gpt_sovits.weights import CheckpointKind


class Precision(enum.StrEnum):
    """Of the weights and of the arithmetic with them. float32 until the others are judged on trained weights."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"  # GPUs only

    @property
    def dtype(self) -> torch.dtype:
        return {Precision.FP32: torch.float32, Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}[self]


def choose_device(name: str = "") -> torch.device:
    """`name` as torch knows it; without one the first GPU, or else the CPU."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


class Library:
    """Voice models under one folder. What hears references and reads Chinese is shared by all of them."""

    def __init__(
        self,
        model_path: Path,
        *,
        default_model: str = "",
        device: str = "",
        precision: Precision = Precision.FP32,
        hop_length: int | None = None,
    ) -> None:
        """`hop_length`: samples between frames of the spectrogram as the operator believes; checked, not used.

        Raises UnsupportedModelError when it is not the models'.
        """
        if hop_length not in (None, REFERENCE_HOP):
            raise UnsupportedModelError("model", option="HOP_LENGTH", found=hop_length, wanted=REFERENCE_HOP)
        self._path = model_path
        self._default_model = default_model
        self._device = choose_device(device)
        self._precision = precision
        self._lock = threading.Lock()
        self._engines: dict[str, GptSovitsEngine] = {}
        self._text_data: TextData | None = None
        self._extractors: dict[CheckpointKind, tuple[str, Any]] = {}  # digest and network

    def open(self, name: str = "") -> GptSovitsEngine:
        """The engine of a model, loaded at the first call. Raises ModelNotFoundError, ModelFileError."""
        with self._lock:
            wanted = name or self._default_model
            files = None
            if wanted not in self._engines:
                files = choose_model(self._path, wanted or None)
                wanted = files.name
            if wanted not in self._engines:
                assert files is not None
                self._engines[wanted] = self._load(files)
            if not name and not self._default_model:
                self._default_model = wanted
            return self._engines[wanted]

    def close(self) -> None:
        with self._lock:
            for engine in self._engines.values():
                engine.close()

    def _load(self, files: VoiceModelFiles) -> GptSovitsEngine:
        placed: Mapping[str, Any] = {"device": self._device, "dtype": self._precision.dtype}
        kinds = [CheckpointKind.CONTENT, CheckpointKind.BERT]
        if files.version.has_speaker_vector:
            kinds.append(CheckpointKind.SPEAKER)
        for kind in kinds:
            if kind not in self._extractors:
                self._extractors[kind] = self._load_extractor(open_extractor(self._path, kind))
        if self._text_data is None:
            vocabulary = open_extractor(self._path, CheckpointKind.BERT).vocabulary
            self._text_data = TextData.load(self._path / TEXT_FOLDER, bert_vocabulary=vocabulary)
        models = Models(
            version=ModelVersion(files.version),
            semantic=SemanticDecoder.from_state(read_tensors(files.semantic), files.semantic_config, **placed),
            vits=Vits.from_state(read_tensors(files.vits), files.vits_config, **placed),
            content=self._extractors[CheckpointKind.CONTENT][1],
            bert=self._extractors[CheckpointKind.BERT][1],
            speaker=self._extractors[CheckpointKind.SPEAKER][1] if files.version.has_speaker_vector else None,
            text_data=self._text_data,
        )
        heard_by = hashlib.sha256("".join(self._extractors[kind][0] for kind in kinds).encode()).hexdigest()[:8]
        return GptSovitsEngine(models, digest=f"{files.digest}-{heard_by}-{self._precision}")

    def _load_extractor(self, files: ExtractorFiles) -> tuple[str, Any]:
        """What hears the reference stays float32: half precision would change the codes that a voice starts from."""
        state = read_tensors(files.model)
        match files.kind:
            case CheckpointKind.CONTENT:
                return files.digest, ContentEncoder.from_state(state, files.config, device=self._device)
            case CheckpointKind.BERT:
                assert files.vocabulary is not None
                vocabulary = Vocabulary.read(files.vocabulary)
                return files.digest, TextEncoder.from_state(
                    state, files.config, vocabulary, device=self._device, dtype=self._precision.dtype
                )
            case _:
                return files.digest, SpeakerNetwork.from_state(state, device=self._device)
