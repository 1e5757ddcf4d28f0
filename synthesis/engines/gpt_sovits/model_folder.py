"""The model folder: what lies where under MODEL_PATH, and how it is opened.

    <name>/config.json, semantic.safetensors, vits.safetensors     one voice model; several live side by side
    extractors/<kind>/config.json, model.safetensors[, vocab.txt]  content, bert, speaker: shared by all models
    text/                                                          optional data of the text front ends

Written by `importing`, read-only from then on, so the folder may be a read-only network mount. `config.json` names the
version, the sizes and, for each tensor file, its length and digests; file names are fixed and never read from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from synthesis.engines.gpt_sovits.config import ModelVersion, SemanticConfig, VitsConfig
from synthesis.engines.gpt_sovits.errors import ModelFileError, ModelNotFoundError
from synthesis.engines.gpt_sovits.models import CONFIG_FILE, DEFAULT_NAME, EXTRACTORS_FOLDER, list_models
from synthesis.engines.gpt_sovits.models import TEXT_FOLDER as TEXT_FOLDER
from synthesis.engines.gpt_sovits.weights import CheckpointKind, read_json

FORMAT = 1  # of config.json
SEMANTIC_FILE = "semantic.safetensors"
VITS_FILE = "vits.safetensors"
EXTRACTOR_FILE = "model.safetensors"
VOCABULARY_FILE = "vocab.txt"
EXTRACTOR_KINDS = (CheckpointKind.CONTENT, CheckpointKind.BERT, CheckpointKind.SPEAKER)

_LONGEST_HEADER_BYTES = 100_000_000  # as the safetensors format says


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A safetensors file and what it was when it was imported."""

    path: Path
    size_bytes: int
    sha256: str
    header_sha256: str  # of the names, dtypes, shapes and places of its tensors


@dataclass(frozen=True, slots=True)
class VoiceModelFiles:
    """One model that speaks: text to semantic codes, codes to a wave."""

    name: str
    version: ModelVersion
    digest: str  # 12 hex digits; another one means other weights or sizes
    semantic_config: SemanticConfig
    vits_config: VitsConfig
    semantic: TensorFile  # upstream's keys without `model.`
    vits: TensorFile  # upstream's keys


@dataclass(frozen=True, slots=True)
class ExtractorFiles:
    """A network that hears the reference or reads the text, shared by all voice models."""

    kind: CheckpointKind
    digest: str
    config: Mapping[str, Any]  # Hugging Face's config.json; empty for the speaker network
    model: TensorFile
    vocabulary: Path | None  # of bert only


def open_model(folder: Path) -> VoiceModelFiles:
    """Read the description of a voice model; its tensors are read by `read_tensors`.

    Raises ModelNotFoundError, and ModelFileError when the folder is incomplete or its tensor files have changed length.
    """
    described = _describe(folder, f"The model {folder.name!r}")
    try:
        return VoiceModelFiles(
            name=folder.name,
            version=ModelVersion(described["version"]),
            digest=str(described["digest"]),
            semantic_config=SemanticConfig(**described["semantic"]),
            vits_config=VitsConfig.from_upstream({"model": described["vits"]}, ModelVersion(described["version"])),
            semantic=_tensor_file(folder / SEMANTIC_FILE, described),
            vits=_tensor_file(folder / VITS_FILE, described),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _bad_description(folder) from error


def open_extractor(model_path: Path, kind: CheckpointKind) -> ExtractorFiles:
    """Read the description of a shared extractor. Raises ModelNotFoundError, ModelFileError."""
    folder = extractor_folder(model_path, kind)
    described = _describe(folder, f"The {kind} extractor")
    vocabulary = folder / VOCABULARY_FILE if kind is CheckpointKind.BERT else None
    if vocabulary is not None and not vocabulary.is_file():
        raise ModelFileError(f"The {kind} extractor has no {VOCABULARY_FILE}. Import it again.")
    try:
        return ExtractorFiles(
            kind=CheckpointKind(described["kind"]),
            digest=str(described["digest"]),
            config=dict(described["config"]),
            model=_tensor_file(folder / EXTRACTOR_FILE, described),
            vocabulary=vocabulary,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _bad_description(folder) from error


def choose_model(model_path: Path, name: str | None = None) -> VoiceModelFiles:
    """The named model, or without a name the one called `default`, or the only one there is.

    Raises ModelNotFoundError, ModelFileError.
    """
    names = list_models(model_path)
    if name is None:
        name = DEFAULT_NAME if DEFAULT_NAME in names or len(names) != 1 else names[0]
    if name not in names:  # also keeps a path out of the name
        there = f"There are: {', '.join(names)}." if names else "There are none: see `import_model`."
        raise ModelNotFoundError(f"There is no model {name!r} in {model_path}. {there}", name=name, models=names)
    return open_model(model_path / name)


def read_tensors(file: TensorFile, *, verify: bool = False) -> dict[str, Tensor]:
    """All tensors of a file, mapped: bytes are read from disk when they are used, and shared between processes.

    The length and the header are compared with the import's; `verify` compares the whole content, which reads it.
    Raises ModelFileError.
    """
    try:
        if file.path.stat().st_size != file.size_bytes:
            raise ModelFileError(f"{file.path} has another length than when it was imported.")
        if header_sha256(file.path) != file.header_sha256:
            raise ModelFileError(f"The header of {file.path} is not the one that was imported.")
        if verify and file_sha256(file.path) != file.sha256:
            raise ModelFileError(f"The content of {file.path} is not the one that was imported.")
        tensors: dict[str, Tensor] = load_file(file.path)
    except OSError as error:
        raise ModelFileError(f"{file.path} cannot be read: {error.strerror}.") from error
    except SafetensorError as error:
        raise ModelFileError(f"{file.path} is no sound safetensors file: {error}.") from error
    return tensors


def extractor_folder(model_path: Path, kind: CheckpointKind) -> Path:
    return model_path / EXTRACTORS_FOLDER / kind


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def header_sha256(path: Path) -> str:
    """Of the safetensors header: eight bytes of length, then JSON."""
    with path.open("rb") as file:
        length = file.read(8)
        header = file.read(min(int.from_bytes(length, "little"), _LONGEST_HEADER_BYTES))
    return hashlib.sha256(length + header).hexdigest()


def _describe(folder: Path, what: str) -> dict[str, Any]:
    if not (folder / CONFIG_FILE).is_file():
        raise ModelNotFoundError(f"{what} is not in {folder}. See `import_model` and `fetch_models`.", name=folder.name)
    described = read_json(folder / CONFIG_FILE)
    if described.get("format") != FORMAT:
        raise ModelFileError(f"{folder / CONFIG_FILE} is of format {described.get('format')!r}, not {FORMAT}.")
    return described


def _bad_description(folder: Path) -> ModelFileError:
    return ModelFileError(f"{folder / CONFIG_FILE} is not as `import_model` wrote it. Import the model again.")


def _tensor_file(path: Path, described: Mapping[str, Any]) -> TensorFile:
    recorded = described["files"][path.name]
    if not path.is_file():
        raise ModelFileError(f"{path} is missing. Import the model again.")
    return TensorFile(
        path=path,
        size_bytes=int(recorded["size_bytes"]),
        sha256=str(recorded["sha256"]),
        header_sha256=str(recorded["header_sha256"]),
    )
