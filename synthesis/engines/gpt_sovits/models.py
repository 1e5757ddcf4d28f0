"""Which models there are under MODEL_PATH: names only, without torch, for every process that must know them."""

from __future__ import annotations

import re
from pathlib import Path

CONFIG_FILE = "config.json"
EXTRACTORS_FOLDER = "extractors"
TEXT_FOLDER = "text"
DEFAULT_NAME = "default"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_LONGEST_NAME_CHARS = 64


def list_models(model_path: Path) -> list[str]:
    """Names of the voice models, sorted; none where the folder does not exist."""
    folders = model_path.iterdir() if model_path.is_dir() else ()
    return sorted(folder.name for folder in folders if is_model_name(folder.name) and (folder / CONFIG_FILE).is_file())


def is_model_name(name: str) -> bool:
    """Small letters, digits, `_` and `-`, at most 64 of them; `extractors` and `text` are taken."""
    return (
        _NAME.fullmatch(name) is not None
        and len(name) <= _LONGEST_NAME_CHARS
        and name not in (EXTRACTORS_FOLDER, TEXT_FOLDER)
    )
