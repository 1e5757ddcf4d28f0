"""A user dictionary for Open JTalk: the operator's `userdict.csv`, in the format of upstream's."""

from __future__ import annotations

import csv
import importlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthesis.engines.gpt_sovits.errors import ModelFileError

FILE_NAME = "userdict.csv"
_NUMBERS = slice(1, 4)  # left and right context, cost
_FEWEST_COLUMNS = 13  # up to the pronunciation


@dataclass(frozen=True, slots=True)
class UserDictionary:
    """An Open JTalk that knows the words of one file beside its own; may be shared between threads."""

    open_jtalk: Any

    @classmethod
    def load(cls, folder: Path) -> UserDictionary | None:
        """None if the file is not there. Raises ModelFileError if it is no dictionary."""
        path = next(filter(Path.is_file, (folder / FILE_NAME, folder / "ja_userdic" / FILE_NAME)), None)
        if path is None:
            return None
        _check(path)
        module = importlib.import_module("pyopenjtalk")
        with tempfile.TemporaryDirectory() as scratch:  # Open JTalk keeps the compiled file mapped, not its name
            compiled = Path(scratch) / "user.dic"
            try:
                module.mecab_dict_index(str(path), str(compiled))
                return cls(module.OpenJTalk(module.OPEN_JTALK_DICT_DIR, userdic=str(compiled).encode()))
            except (RuntimeError, FileNotFoundError) as error:
                raise ModelFileError("Open JTalk refuses the user dictionary.", path=path.name) from error


def _check(path: Path) -> None:
    """The compiler ends the whole process at a line that it cannot read."""
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        readable = bool(lines) and all(
            len(line) >= _FEWEST_COLUMNS and [int(number) for number in line[_NUMBERS]] for line in lines
        )
    except (ValueError, csv.Error):
        readable = False
    if not readable:
        raise ModelFileError("The user dictionary is not in MeCab's format.", path=path.name)
