"""Reads a checkpoint of any format that upstream or Hugging Face publish: what it is, and its tensors.

Formats: torch zip archives (also with upstream's two-digit version tag in place of the zip magic), torch's older
pickle sequence, safetensors. Tensors are views of the mapped file in the dtype they are stored in; nothing is cast.
"""

from __future__ import annotations

import enum
import io
import json
import mmap
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from synthesis.engines.gpt_sovits.config import ModelVersion
from synthesis.engines.gpt_sovits.errors import HostileCheckpointError, ModelFileError, UnsupportedModelVersionError
from synthesis.engines.gpt_sovits.inert_pickle import Storage, StoredTensor, plain, read_pickle

# Tied weights share a storage and count once each; nothing that upstream publishes reaches 1.1.
_MAX_EXPANSION = 2  # bytes of all tensors together, in file sizes
_V1_SYMBOLS = 322

# Upstream process_ckpt.head2version: two digits that its trainer writes over the "PK" of the zip magic.
_TAGS = {b"00": "v1", b"01": "v2", b"02": "v3", b"03": "v3", b"04": "v4", b"05": "v2Pro", b"06": "v2ProPlus"}

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER
_LEGACY_PROTOCOL = 1001


class CheckpointKind(enum.StrEnum):
    SEMANTIC = "semantic"  # text-to-semantic transformer ("GPT", s1)
    VITS = "vits"  # SoVITS decoder (s2G)
    CONTENT = "content"  # HuBERT
    BERT = "bert"  # RoBERTa
    SPEAKER = "speaker"  # ERes2NetV2


# A tensor that one kind of model has and no other.
_KIND_BY_TENSOR = {
    "ar_text_embedding.word_embeddings.weight": CheckpointKind.SEMANTIC,
    "enc_p.text_embedding.weight": CheckpointKind.VITS,
    "feature_extractor.conv_layers.0.conv.weight": CheckpointKind.CONTENT,
    "hubert.feature_extractor.conv_layers.0.conv.weight": CheckpointKind.CONTENT,
    "embeddings.word_embeddings.weight": CheckpointKind.BERT,
    "bert.embeddings.word_embeddings.weight": CheckpointKind.BERT,
    "fuse34.local_att.0.weight": CheckpointKind.SPEAKER,
}
_SEMANTIC_PREFIX = "model."  # upstream's Lightning module around the transformer


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One model's tensors. `state` has upstream's keys, the transformer's without the leading `model.`."""

    kind: CheckpointKind
    version: ModelVersion | None  # of a SoVITS file; the other kinds do not tell
    config: dict[str, Any]  # JSON-safe; from the file, else from a config.json beside it, else empty
    state: dict[str, Tensor]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: tuple(tensor.shape) for key, tensor in self.state.items()}


def read_checkpoint(path: Path) -> Checkpoint:
    """Find out what `path` is and read it. Executes nothing of the file.

    Tensors map the file: they are read as they are used, and the file must outlive them.
    Raises ModelFileError (HostileCheckpointError among them), UnsupportedModelVersionError.
    """
    try:
        tag, payload = _read_payload(path)
        state, config, is_lora = _split(payload)
    except ModelFileError as error:
        raise type(error)(f"{path.name}: {error.message}", **error.details) from error
    if is_lora or _is_diffusion(state):
        raise UnsupportedModelVersionError(
            f"{path.name} is a {_TAGS.get(tag, 'v3 or v4')} model. Only {', '.join(ModelVersion)} are supported so far."
        )
    kind = _detect_kind(path.name, state)
    if kind is CheckpointKind.SEMANTIC:
        state = {key.removeprefix(_SEMANTIC_PREFIX): tensor for key, tensor in state.items()}
    version = _detect_version(path.name, tag, state) if kind is CheckpointKind.VITS else None
    return Checkpoint(kind, version, config or _config_beside(path), state)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ModelFileError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path.name} cannot be read as JSON.") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path.name} holds no JSON object.")
    return value


def _config_beside(path: Path) -> dict[str, Any]:
    config = path.with_name("config.json")
    return plain(read_json(config)) if config.is_file() else {}


def _detect_kind(name: str, state: Mapping[str, Tensor]) -> CheckpointKind:
    for key in state:
        kind = _KIND_BY_TENSOR.get(key.removeprefix(_SEMANTIC_PREFIX))
        if kind is not None:
            return kind
    if any(key.startswith("discriminators.") for key in state):
        raise ModelFileError(f"{name} is a discriminator (s2D), which only training needs. Take the s2G file.")
    some = ", ".join(sorted(state)[:3]) or "none"
    raise ModelFileError(f"{name} is none of the models this engine has. Its first tensors: {some}.")


def _is_diffusion(state: Mapping[str, Tensor]) -> bool:
    return any(key.startswith("cfm.") for key in state)


def _detect_version(name: str, tag: bytes, state: Mapping[str, Tensor]) -> ModelVersion:
    """By the tensors; a tag must agree. `config.model.version` is missing or stale in some files and is not asked."""
    try:
        symbols = state["enc_p.text_embedding.weight"].shape[0]
        first_kernel = state["dec.ups.0.weight_v"].shape[2]
    except (KeyError, IndexError) as error:
        raise ModelFileError(f"{name}: the tensor dec.ups.0.weight_v is missing or misshapen.") from error
    if "sv_emb.weight" in state:
        found = ModelVersion.V2_PRO_PLUS if first_kernel == 20 else ModelVersion.V2_PRO  # 16 in all others
    else:
        found = ModelVersion.V1 if symbols == _V1_SYMBOLS else ModelVersion.V2
    if tag in _TAGS and _TAGS[tag] != found:
        raise ModelFileError(f"{name} is marked as {_TAGS[tag]}, but its tensors are of {found}.")
    return found


def _split(payload: Any) -> tuple[dict[str, Tensor], dict[str, Any], bool]:
    """State dict, configuration ({} when the file has none), and whether it is a LoRA on another file."""
    if not isinstance(payload, dict):
        raise ModelFileError("The checkpoint holds no dictionary.")
    state, config = payload, None
    if isinstance(payload.get("weight"), dict):  # as upstream publishes models
        state, config = payload["weight"], payload.get("config")
    elif isinstance(payload.get("model"), dict):  # as upstream's trainer saves its progress (G_*.pth)
        state = payload["model"]
    if not state:
        raise ModelFileError("The checkpoint holds no tensors.")
    for key, tensor in state.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise ModelFileError(f"The checkpoint's entry {str(key)[:80]!r} is no tensor.")
    return state, plain(config) if isinstance(config, dict) else {}, "lora_rank" in payload


def _read_payload(path: Path) -> tuple[bytes, Any]:
    """The first two bytes, and the file's value with Tensors in it."""
    try:
        with path.open("rb") as file:
            head = file.read(32)
            if not head:
                raise ModelFileError("The file is empty.")
            # A private copy-on-write map: torch wants writable memory, and the file stays as it is.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except FileNotFoundError as error:
        raise ModelFileError("There is no such file.") from error
    except IsADirectoryError as error:
        raise ModelFileError("This is a folder, not a file.") from error
    except OSError as error:
        raise ModelFileError(f"The file cannot be read: {error.strerror}.") from error
    tag = head[:2]
    if head[2:4] == b"\x03\x04" and (tag == b"PK" or tag.isdigit()):
        if tag.isdigit() and tag not in _TAGS:
            raise UnsupportedModelVersionError(f"{path.name} has the version mark {tag.decode()}, which is not known.")
        return tag, _ZipArchive(mapped).read()
    if head[:1] == b"\x80":
        return tag, _read_legacy(mapped)
    if head[8:9] == b"{":
        try:
            return tag, load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"This is no sound safetensors file: {error}") from error
    if head.startswith(b"version https://git-lfs"):
        raise ModelFileError("This is a Git LFS pointer: the model itself was not downloaded.")
    raise ModelFileError("This is neither a torch checkpoint nor a safetensors file.")


class _ZipArchive:
    """torch's zip: `<folder>/data.pkl` and `<folder>/data/<key>`, stored without compression."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._bytes = memoryview(mapped)
        try:
            with zipfile.ZipFile(_Reader(self._bytes)) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise ModelFileError("The archive is truncated or damaged.") from error
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) != len(entries):
            raise HostileCheckpointError("The archive has two entries of one name.")
        pickles = [name for name in self._entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ModelFileError("The archive is no torch checkpoint: it has no data.pkl.")
        self._folder = pickles[0].removesuffix("data.pkl")

    def read(self) -> Any:
        order = f"{self._folder}byteorder"
        if order in self._entries and bytes(self._entry(order)) != sys.byteorder.encode():
            raise ModelFileError("The checkpoint was written on a machine of another byte order.")
        payload = read_pickle(io.BytesIO(self._entry(f"{self._folder}data.pkl")))
        return _fill_tensors(payload, self._storage, file_bytes=len(self._bytes))

    def _storage(self, key: str) -> memoryview:
        return self._entry(f"{self._folder}data/{key}")

    def _entry(self, name: str) -> memoryview:
        entry = self._entries.get(name)
        if entry is None:
            raise ModelFileError(f"The archive lacks the entry {name[:80]}.")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
            raise HostileCheckpointError("The archive has compressed or encrypted entries, which torch never writes.")
        start = entry.header_offset
        header = bytes(self._bytes[start : start + 30])
        # The first header's "PK" may be a version tag.
        if len(header) < 30 or header[2:4] != b"\x03\x04" or (start and header[:2] != b"PK"):
            raise ModelFileError("The archive is truncated or damaged.")
        name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
        begin = start + 30 + name_bytes + extra_bytes
        data = self._bytes[begin : begin + entry.file_size]
        if len(data) != entry.file_size or zlib.crc32(data) != entry.CRC:
            raise ModelFileError(f"The archive's entry {name[:80]} is truncated or damaged.")
        return data


class _Reader(io.RawIOBase):
    """A memoryview as the seekable file that zipfile wants; an mmap becomes one in Python 3.13."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = len(self._data) if size < 0 else self._position + size
        data = bytes(self._data[self._position : end])
        self._position += len(data)
        return data


def _read_legacy(mapped: mmap.mmap) -> Any:
    """torch before 1.6: magic, protocol, system, value, list of storage keys; then per key a count and its data."""
    stream = cast(IO[bytes], mapped)  # it reads, reads lines and tells as files do
    magic, protocol, system = (read_pickle(stream) for _ in range(3))
    if (magic, protocol) != (_LEGACY_MAGIC, _LEGACY_PROTOCOL) or not isinstance(system, dict):
        raise ModelFileError("This is a pickle, but no torch checkpoint.")
    if system.get("little_endian") is not (sys.byteorder == "little"):
        raise ModelFileError("The checkpoint was written on a machine of another byte order.")
    payload, keys = read_pickle(stream), read_pickle(stream)
    if not isinstance(keys, list):
        raise ModelFileError("The checkpoint's list of stored data is damaged.")
    sizes = {tensor.storage.key: tensor.storage for tensor in _stored_tensors(payload)}
    found: dict[str, memoryview] = {}
    position, data = mapped.tell(), memoryview(mapped)
    for key in keys:
        storage = sizes.get(key) if isinstance(key, str) else None
        count = data[position : position + 8]
        if storage is None or len(count) < 8 or int.from_bytes(count, sys.byteorder) != storage.elements:
            raise ModelFileError("The checkpoint's stored data is truncated or damaged.")
        size = storage.elements * storage.dtype.itemsize
        found[key] = data[position + 8 : position + 8 + size]
        position += 8 + size

    def storage_bytes(key: str) -> memoryview:
        if key not in found:
            raise ModelFileError(f"The checkpoint lacks the stored data {key[:80]}.")
        return found[key]

    return _fill_tensors(payload, storage_bytes, file_bytes=len(data))


def _stored_tensors(payload: Any) -> list[StoredTensor]:
    """All tensors two levels down, where every checkpoint has its state dict."""
    levels = [payload, *payload.values()] if isinstance(payload, dict) else []
    return [
        item for level in levels if isinstance(level, dict) for item in level.values() if isinstance(item, StoredTensor)
    ]


def _fill_tensors(payload: Any, storage_bytes: Callable[[str], memoryview], *, file_bytes: int) -> Any:
    """`payload` with the StoredTensors of its first two levels replaced by Tensors."""
    total = sum(_element_count(tensor) * tensor.storage.dtype.itemsize for tensor in _stored_tensors(payload))
    if total > _MAX_EXPANSION * file_bytes:
        raise HostileCheckpointError("The checkpoint's tensors claim more data than the file holds.")
    opened: dict[Storage, Tensor] = {}

    def tensor_of(stored: StoredTensor) -> Tensor:
        storage = stored.storage
        if storage not in opened:
            opened[storage] = _open_storage(storage, storage_bytes(storage.key))
        last = stored.offset + sum((n - 1) * step for n, step in zip(stored.shape, stored.stride, strict=True))
        if _element_count(stored) and last >= storage.elements:
            raise HostileCheckpointError("A tensor of the checkpoint reaches beyond its stored data.")
        return opened[storage].as_strided(stored.shape, stored.stride, min(stored.offset, storage.elements))

    def fill(level: Any) -> Any:
        if not isinstance(level, dict):
            return level
        return {key: tensor_of(item) if isinstance(item, StoredTensor) else item for key, item in level.items()}

    filled = fill(payload)
    return {key: fill(item) for key, item in filled.items()} if isinstance(filled, dict) else filled


def _element_count(stored: StoredTensor) -> int:
    count = 1
    for size in stored.shape:
        count *= size
    return count


def _open_storage(storage: Storage, data: memoryview) -> Tensor:
    size = storage.elements * storage.dtype.itemsize
    if len(data) != size:
        raise ModelFileError("The checkpoint's stored data is truncated or damaged.")
    if not size:
        return torch.empty(0, dtype=storage.dtype)
    return torch.frombuffer(data, dtype=storage.dtype)
