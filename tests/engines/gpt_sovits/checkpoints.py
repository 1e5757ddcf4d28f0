"""Checkpoint files for the tests: the small published-format ones, and variants made from them."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from synthesis.engines.gpt_sovits.bert import BertConfig, TextEncoder, Vocabulary
from synthesis.engines.gpt_sovits.content import ContentConfig, ContentEncoder

GOLDEN = Path(__file__).parents[1] / "golden" / "open"
AR_FILE = GOLDEN / "ar_tiny.ckpt"
VITS_FILE = GOLDEN / "vits_tiny_v2.pth"


class HParams:
    """What upstream's trainer pickles as the configuration."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


HParams.__module__ = "utils"


@contextmanager
def hparams_module() -> Iterator[None]:
    """`utils.HParams` can be imported inside, as in upstream's folder; pickling it asks for that."""
    module = types.ModuleType("utils")
    module.HParams = HParams  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "utils", module)
        yield


def save(payload: Any, path: Path, *, tag: bytes = b"PK", legacy: bool = False) -> Path:
    """torch.save, then upstream's version tag over the first two bytes."""
    with hparams_module():
        torch.save(payload, path, _use_new_zipfile_serialization=not legacy)
    return path if legacy else retag(path, tag, path)


def retag(source: Path, tag: bytes, path: Path) -> Path:
    data = source.read_bytes()
    path.write_bytes(tag + data[2:])
    return path


def payload_of(path: Path) -> dict[str, Any]:
    """A golden file as torch's own reader sees it: {"weight", "config", "info"}."""
    with hparams_module(), torch.serialization.safe_globals([HParams]):
        payload: dict[str, Any] = torch.load(path, weights_only=True)
    return payload


def state_of(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = payload_of(path)["weight"]
    return state


def pro_payload(*, plus: bool) -> dict[str, Any]:
    """The small v2 decoder with the tensors that make it look like a Pro one (it would not sound)."""
    payload = payload_of(VITS_FILE)
    width = payload["config"].model.gin_channels
    kernel = 20 if plus else 16
    state = dict(payload["weight"])
    state |= {
        "sv_emb.weight": torch.zeros(width, 20480, dtype=torch.float16),
        "sv_emb.bias": torch.zeros(width, dtype=torch.float16),
        "prelu.weight": torch.zeros(width, dtype=torch.float16),
        "dec.ups.0.weight_v": torch.zeros(*state["dec.ups.0.weight_v"].shape[:2], kernel, dtype=torch.float16),
    }
    return payload | {"weight": state}


def hubert_folder(folder: Path, *, seed: int = 0) -> Path:
    """HuBERT, small and untrained, as Hugging Face keeps it."""
    config = json.loads((GOLDEN / "hubert_tiny.json").read_text(encoding="utf-8"))["config"]
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    state = ContentEncoder(ContentConfig.from_hugging_face(config)).half().state_dict()
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config | {"_name_or_path": "/home/somebody"}), encoding="utf-8")
    (folder / "preprocessor_config.json").write_text("{}", encoding="utf-8")
    return folder


def roberta_folder(folder: Path, *, tokenizer: str) -> Path:
    """RoBERTa, in both of its formats; `tokenizer` names the vocabulary's file, or none."""
    config = json.loads((GOLDEN / "bert_tiny.json").read_text(encoding="utf-8"))["config"]
    tokens = (GOLDEN / "bert_vocab.txt").read_text(encoding="utf-8")
    folder.mkdir(parents=True)
    encoder = TextEncoder(BertConfig.from_hugging_face(config), Vocabulary({}, 0, 0, 0, 0))
    save_file({f"bert.{key}": tensor for key, tensor in encoder.state_dict().items()}, folder / "model.safetensors")
    torch.save({"not": "read"}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if tokenizer == "vocab.txt":
        (folder / tokenizer).write_text(tokens, encoding="utf-8")
    elif tokenizer:
        vocabulary = {token: index for index, token in reversed(list(enumerate(tokens.split())))}
        described = {"model": {"vocab": vocabulary}, "normalizer": {"lowercase": True}}
        (folder / tokenizer).write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
    return folder
