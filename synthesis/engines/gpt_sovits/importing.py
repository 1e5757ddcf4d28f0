"""From published checkpoints to a model folder: read safely, checked once, written at one stroke."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from synthesis.engines.gpt_sovits.bert import TextEncoder, Vocabulary
from synthesis.engines.gpt_sovits.config import (
    SAMPLE_RATE_HZ,
    SAMPLES_PER_CODE,
    ModelVersion,
    SemanticConfig,
    VitsConfig,
)
from synthesis.engines.gpt_sovits.content import ContentEncoder
from synthesis.engines.gpt_sovits.errors import (
    IncompatibleModelError,
    ModelExistsError,
    ModelFileError,
    UnsupportedModelVersionError,
)
from synthesis.engines.gpt_sovits.model_folder import (
    EXTRACTOR_FILE,
    EXTRACTOR_KINDS,
    FORMAT,
    SEMANTIC_FILE,
    VITS_FILE,
    VOCABULARY_FILE,
    extractor_folder,
    file_sha256,
    header_sha256,
)
from synthesis.engines.gpt_sovits.models import CONFIG_FILE, is_model_name
from synthesis.engines.gpt_sovits.semantic import SemanticDecoder
from synthesis.engines.gpt_sovits.speaker import SpeakerNetwork
from synthesis.engines.gpt_sovits.vits import Vits
from synthesis.engines.gpt_sovits.weights import Checkpoint, CheckpointKind, read_checkpoint, read_json

# Left out of the folder, by prefix. What else is not needed costs little and is left to the networks' own tables.
TRAINING_ONLY = {"enc_q.": "the posterior encoder, a tenth of a pretrained file, hears the wave that is to be made"}

_HOP_SAMPLES = SAMPLES_PER_CODE // 2
# What this engine computes and upstream's data configuration may contradict.
_REQUIRED_DATA = {
    "sampling_rate": SAMPLE_RATE_HZ,
    "hop_length": _HOP_SAMPLES,
    "filter_length": 2048,
    "win_length": 2048,
}
_VITS_OPTIONS = (
    "n_heads",
    "upsample_rates",
    "upsample_kernel_sizes",
    "resblock_kernel_sizes",
    "resblock_dilation_sizes",
)
_V2_SYMBOLS = 732  # of the v2 table; transformers of v1 have 512 rows for its 322 symbols
_CHECKPOINT_SUFFIXES = (".ckpt", ".pth", ".pt", ".bin", ".safetensors")
_HUGGING_FACE_FILES = ("model.safetensors", "pytorch_model.bin")  # the same weights; one is enough
_TOKENIZER_FILES = (VOCABULARY_FILE, "tokenizer.json")
_DIGEST_CHARS = 12


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint file that was understood."""

    path: Path
    size_bytes: int
    sha256: str
    checkpoint: Checkpoint

    @property
    def recorded(self) -> dict[str, Any]:
        return {"name": self.path.name, "size_bytes": self.size_bytes, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class ImportedFolder:
    """A folder that now holds what some of the sources held."""

    folder: Path
    kind: str  # "voice model", or the extractor's
    version: ModelVersion | None
    digest: str
    size_bytes: int
    was_there: bool  # the same extractor had been imported before; nothing was written


@dataclass(frozen=True, slots=True)
class ImportReport:
    sources: tuple[Source, ...]
    folders: tuple[ImportedFolder, ...]


def import_sources(
    paths: Sequence[Path], *, model_path: Path, name: str | None, version: str | None = None, replace: bool = False
) -> ImportReport:
    """Turn checkpoints (files, or Hugging Face folders) into folders under `model_path`.

    A transformer and a SoVITS file together become the voice model `name`; HuBERT, RoBERTa and ERes2NetV2 become the
    shared extractors. `version`, if given, must be what the SoVITS file is. Everything is read and checked before
    anything is written. The same extractor once more changes nothing; another one, or a voice model of a name in use,
    needs `replace`: running workers keep the files that they have mapped.

    Raises ModelFileError, UnsupportedModelVersionError, UnsupportedModelError, IncompatibleModelError,
    ModelExistsError, OSError.
    """
    sources = _read_sources(paths)
    _check_version(sources, version)
    builders: list[_FolderBuilder] = []
    if CheckpointKind.SEMANTIC in sources or CheckpointKind.VITS in sources:
        builders.append(_voice_builder(sources, model_path, name))
    builders += [_extractor_builder(sources[kind], model_path) for kind in EXTRACTOR_KINDS if kind in sources]
    for builder in builders:
        if builder.folder.exists() and not replace and not builder.is_there():
            raise ModelExistsError(f"{builder.folder} is there already. Replace it with --replace.")
    folders = tuple(builder.write(replace=replace) for builder in builders)
    return ImportReport(sources=tuple(sources.values()), folders=folders)


def parse_version(text: str) -> ModelVersion:
    """Raises UnsupportedModelVersionError."""
    for version in ModelVersion:
        if text.lower() == version.lower():
            return version
    raise UnsupportedModelVersionError(f"The model version {text!r} is not supported; {', '.join(ModelVersion)} are.")


# --- Reading ---------------------------------------------------------------------------------------------------------


def _read_sources(paths: Sequence[Path]) -> dict[CheckpointKind, Source]:
    sources: dict[CheckpointKind, Source] = {}
    for path in [file for named in paths for file in _checkpoint_files(named)]:
        checkpoint = read_checkpoint(path)
        if checkpoint.kind in sources:
            other = sources[checkpoint.kind].path.name
            raise ModelFileError(f"{other} and {path.name} are both a {checkpoint.kind} model. Name one of them.")
        _check_content(path.name, checkpoint)
        sources[checkpoint.kind] = Source(path, path.stat().st_size, file_sha256(path), checkpoint)
    if not sources:
        raise ModelFileError("No checkpoint was named.")
    return sources


def _checkpoint_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    for name in _HUGGING_FACE_FILES:
        if (path / name).is_file():
            return [path / name]
    files = sorted(file for file in path.iterdir() if file.suffix in _CHECKPOINT_SUFFIXES and file.is_file())
    if not files:
        raise ModelFileError(f"The folder {path} holds no checkpoint ({', '.join(_CHECKPOINT_SUFFIXES)}).")
    return files


def _check_content(name: str, checkpoint: Checkpoint) -> None:
    """Every number is one, and the network that will be built from the tensors takes them all."""
    for key, tensor in checkpoint.state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelFileError(f"{name}: the tensor {key} holds values that are not finite numbers.", key=key)
    state, nowhere = _without_training_only(checkpoint.state), torch.device("meta")
    try:
        if checkpoint.kind is CheckpointKind.SEMANTIC:
            SemanticDecoder.from_state(state, _semantic_config(checkpoint), device=nowhere, dtype=torch.float32)
        elif checkpoint.kind is CheckpointKind.VITS:
            Vits.from_state(state, _vits_config(checkpoint), device=nowhere)
        elif checkpoint.kind is CheckpointKind.CONTENT:
            ContentEncoder.from_state(state, checkpoint.config, device=nowhere)
        elif checkpoint.kind is CheckpointKind.BERT:
            TextEncoder.from_state(state, checkpoint.config, Vocabulary({}, 0, 0, 0, 0), device=nowhere)
        else:
            SpeakerNetwork.from_state(state, device=torch.device("cpu"))  # it sets its tensors' layout in place
    except ModelFileError as error:
        raise ModelFileError(f"{name}: {error.message}", **error.details) from error
    except (KeyError, TypeError, ValueError, IndexError) as error:
        # Sizes come from the configuration and from tensors: one is absent, or of another rank.
        raise ModelFileError(f"{name}: the configuration or a tensor is missing or misshapen ({error}).") from error


def _semantic_config(checkpoint: Checkpoint) -> SemanticConfig:
    return SemanticConfig.from_upstream(checkpoint.config, checkpoint.shapes)


def _vits_config(checkpoint: Checkpoint) -> VitsConfig:
    assert checkpoint.version is not None  # read_checkpoint finds it for every SoVITS file
    data = checkpoint.config.get("data", {})
    for option, wanted in _REQUIRED_DATA.items():
        if data.get(option, wanted) != wanted:
            raise IncompatibleModelError(
                f"The model was trained with {option} {data[option]}; this engine has {wanted}."
            )
    return VitsConfig.from_upstream(checkpoint.config, checkpoint.version)


def _check_version(sources: Mapping[CheckpointKind, Source], version: str | None) -> None:
    if version is None:
        return
    wanted = parse_version(version)
    if CheckpointKind.VITS not in sources:
        raise ModelFileError("A version was named, but no SoVITS file, the only kind that has one.")
    source = sources[CheckpointKind.VITS]
    if source.checkpoint.version is not wanted:
        raise IncompatibleModelError(f"{source.path.name} is a {source.checkpoint.version} model, not {wanted}.")


def _without_training_only(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if not key.startswith(tuple(TRAINING_ONLY))}


# --- Writing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _FolderBuilder:
    """A folder in memory: `tensors` by file name, `texts` by file name, and what config.json says besides."""

    folder: Path
    kind: str
    version: ModelVersion | None
    tensors: Mapping[str, Mapping[str, Tensor]]
    texts: Mapping[str, str]
    description: Mapping[str, Any]
    source_digests: Mapping[str, Any]

    def is_there(self) -> bool:
        """Whether the folder is an extractor imported from the very same files."""
        try:
            recorded = read_json(self.folder / CONFIG_FILE)
        except ModelFileError:
            return False
        return self.version is None and recorded.get("source") == self.source_digests

    def write(self, *, replace: bool) -> ImportedFolder:
        was_there = self.is_there() and not replace
        if not was_there:
            with _published(self.folder, replace=replace) as folder:
                self._write_to(folder)
        recorded = read_json(self.folder / CONFIG_FILE)
        size = sum(file.stat().st_size for file in self.folder.iterdir())
        return ImportedFolder(self.folder, self.kind, self.version, recorded["digest"], size, was_there)

    def _write_to(self, folder: Path) -> None:
        files = {}
        for file_name, tensors in self.tensors.items():
            path = folder / file_name
            # Views and tied weights get storages of their own, which the format asks for.
            save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, path)
            path.chmod(0o644)  # safetensors writes for its own user only; workers run as somebody else
            files[file_name] = {
                "size_bytes": path.stat().st_size,
                "sha256": file_sha256(path),
                "header_sha256": header_sha256(path),
            }
        for file_name, text in self.texts.items():
            (folder / file_name).write_text(text, encoding="utf-8")
        description = {"format": FORMAT, **self.description, "files": files}
        canonical = json.dumps([description, dict(self.texts)], sort_keys=True)
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_CHARS]
        complete = {**description, "digest": digest, "source": self.source_digests}
        (folder / CONFIG_FILE).write_text(json.dumps(complete, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _voice_builder(sources: Mapping[CheckpointKind, Source], model_path: Path, name: str | None) -> _FolderBuilder:
    if name is None:
        raise ModelFileError("A voice model needs a name: --name NAME.")
    if not is_model_name(name):
        raise ModelFileError(
            f"{name!r} cannot name a model: small letters, digits, _ and -, at most 64; extractors and text are taken."
        )
    for kind, what in ((CheckpointKind.SEMANTIC, "transformer (.ckpt)"), (CheckpointKind.VITS, "SoVITS file (.pth)")):
        if kind not in sources:
            raise ModelFileError(f"A voice model needs both of its files. The {what} is missing.")
    semantic, vits = sources[CheckpointKind.SEMANTIC], sources[CheckpointKind.VITS]
    _check_fit(semantic, vits)
    version = vits.checkpoint.version
    vits_model = vits.checkpoint.config["model"]
    return _FolderBuilder(
        folder=model_path / name,
        kind="voice model",
        version=version,
        tensors={SEMANTIC_FILE: semantic.checkpoint.state, VITS_FILE: _without_training_only(vits.checkpoint.state)},
        texts={},
        description={
            "version": version,
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "hop_samples": _HOP_SAMPLES,
            "semantic": dataclasses.asdict(_semantic_config(semantic.checkpoint)),
            "vits": {option: vits_model[option] for option in _VITS_OPTIONS},
        },
        source_digests={"semantic": semantic.recorded, "vits": vits.recorded},
    )


def _check_fit(semantic: Source, vits: Source) -> None:
    """The transformer must know the decoder's symbols, and the decoder the transformer's codes."""
    rows = semantic.checkpoint.state["ar_text_embedding.word_embeddings.weight"].shape[0]
    table = "v2" if rows >= _V2_SYMBOLS else "v1"
    assert vits.checkpoint.version is not None
    if table != vits.checkpoint.version.symbol_table:
        raise IncompatibleModelError(
            f"{semantic.path.name} has {rows} symbols, those of {table}, but {vits.path.name} is a "
            f"{vits.checkpoint.version} model and has those of {vits.checkpoint.version.symbol_table}."
        )
    codes = _semantic_config(semantic.checkpoint).end_code
    codebook = vits.checkpoint.state["quantizer.vq.layers.0._codebook.embed"].shape[0]
    if codes != codebook:
        raise IncompatibleModelError(
            f"{semantic.path.name} speaks in {codes} codes, but {vits.path.name} has {codebook}."
        )


def _extractor_builder(source: Source, model_path: Path) -> _FolderBuilder:
    kind = source.checkpoint.kind
    texts = {VOCABULARY_FILE: _vocabulary(source)} if kind is CheckpointKind.BERT else {}
    # `_name_or_path` and its like say where somebody else's file once lay.
    config = {key: value for key, value in source.checkpoint.config.items() if not key.startswith("_")}
    return _FolderBuilder(
        folder=extractor_folder(model_path, kind),
        kind=kind,
        version=None,
        tensors={EXTRACTOR_FILE: source.checkpoint.state},
        texts=texts,
        description={"kind": kind, "config": {} if kind is CheckpointKind.SPEAKER else config},
        source_digests=source.recorded,
    )


def _vocabulary(source: Source) -> str:
    """One token a line, in the order of their ids. Raises ModelFileError."""
    for file_name in _TOKENIZER_FILES:
        path = source.path.with_name(file_name)
        if path.is_file():
            break
    else:
        raise ModelFileError(f"Beside {source.path.name} there is neither {' nor '.join(_TOKENIZER_FILES)}.")
    if not Vocabulary.read(path).lower_case:
        raise ModelFileError(f"{path.name} keeps capitals apart; the RoBERTa that this engine needs does not.")
    if path.name == VOCABULARY_FILE:
        tokens = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    else:
        ids: dict[str, int] = read_json(path)["model"]["vocab"]
        tokens = sorted(ids, key=ids.__getitem__)
        if [ids[token] for token in tokens] != list(range(len(tokens))):
            raise ModelFileError(f"{path.name}: the ids of its tokens have gaps.")
    rows = next(
        tensor.shape[0]
        for key, tensor in source.checkpoint.state.items()
        if key.removeprefix("bert.") == "embeddings.word_embeddings.weight"
    )
    if len(tokens) != rows:
        raise IncompatibleModelError(f"{path.name} has {len(tokens)} tokens, {source.path.name} {rows}.")
    return "\n".join(tokens) + "\n"


@contextmanager
def _published(folder: Path, *, replace: bool) -> Iterator[Path]:
    """A new folder that becomes `folder` when the block ends well, and vanishes otherwise.

    An older `folder` steps aside for the length of one rename and is deleted last.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    nonce = secrets.token_hex(4)
    fresh, aside = (folder.with_name(f".{folder.name}.{nonce}.{state}") for state in ("new", "old"))
    fresh.mkdir()  # by the umask: workers run as somebody else
    try:
        yield fresh
        if replace and folder.exists():
            folder.rename(aside)
        try:
            fresh.rename(folder)
        except OSError as error:
            if aside.exists():
                aside.rename(folder)
            raise ModelExistsError(f"{folder} was written by somebody else at the same time.") from error
    finally:
        for leftover in (fresh, aside):
            shutil.rmtree(leftover, ignore_errors=True)
