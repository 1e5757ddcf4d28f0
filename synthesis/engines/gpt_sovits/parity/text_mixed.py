"""Cutting texts into pieces and languages, and the phones of whole texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.parity.report import Case, Checker, GoldenSet, compare_equal
from synthesis.engines.gpt_sovits.parity.text_report import text_case
from synthesis.engines.gpt_sovits.text.mixed import split_languages
from synthesis.engines.gpt_sovits.text.reading import Reading, TextData, read_text
from synthesis.engines.gpt_sovits.text.split import collapse_punctuation, cut, split_text
from synthesis.engines.gpt_sovits.text.symbols import PUNCTUATION, SymbolTable
from synthesis.engines.mapped_text import MappedText

_ACCENTS = frozenset("[]")


def check_split(golden: GoldenSet) -> Iterator[Case]:
    """`.cut`: each method's text with its newlines. `.pieces`: what is spoken, inserted marks included."""
    items = golden.description["items"]
    cuts = [(item, method, wanted) for item in items for method, wanted in item["cut"].items()]
    found = [cut(MappedText.of(item["text"]), method).text for item, method, _ in cuts]
    yield compare_equal(f"{golden.name}.cut", found, [wanted for _, _, wanted in cuts])
    pieces = [(item, method, wanted) for item in items for method, wanted in item["pre_seg"].items()]
    yield compare_equal(
        f"{golden.name}.pieces",
        [_pieces(item, method) for item, method, _ in pieces],
        [None if _is_error(wanted) else wanted for _, _, wanted in pieces],
    )


def _pieces(item: Mapping[str, Any], method: Any) -> list[str] | None:
    text = collapse_punctuation(MappedText.of(item["text"]))
    try:
        return [piece.text for piece in split_text(text, method, english=item["lang"] == "en")]
    except UnspeakableTextError:
        return None


def _is_error(wanted: object) -> bool:
    return isinstance(wanted, str) and wanted.startswith("error")


def check_mixed(golden: GoldenSet) -> Iterator[Case]:
    """`.segments`: the language of every character. `.phones`, `.norm_text`: of each text in each setting.

    Accent marks of Japanese are left out, as its own set's bound has it: the dictionaries differ.
    """
    items = golden.description["items"]
    data = TextData.load()
    yield text_case(
        f"{golden.name}.segments",
        [
            (
                f"{item['text']} ({setting})",
                _labels(_segments(item["text"], None if setting == "auto" else setting, data)),
                _labels(wanted),
            )
            for item in items
            for setting, wanted in item["segments"].items()
        ],
    )
    texts = [
        (f"{item['text']} ({setting})", _read(item["text"], setting, data), wanted)
        for item in items
        for setting, wanted in item["result"].items()
    ]
    yield text_case(
        f"{golden.name}.phones",
        [(name, reading.symbols if reading else (), _sounding(wanted["phone_ids"])) for name, reading, wanted in texts],
        ignore=_ACCENTS,
        causes={name: "another Open JTalk dictionary" for name, _, _ in texts if name.endswith("ja)")},
    )
    yield text_case(
        f"{golden.name}.norm_text",
        [
            (name, reading.norm_text if reading else "", wanted["norm_text"])
            for name, reading, wanted in texts
            if reading or _sounding(wanted["phone_ids"])
        ],
    )


def _segments(text: str, default: Any, data: TextData) -> list[tuple[str, str]]:
    parts = split_languages(MappedText.of(text), default=default, detector=data.detector)
    return [(language, part.text) for language, part in parts]


def _labels(segments: Iterable[Sequence[str]]) -> list[str]:
    return [f"{letter}/{language}" for language, text in segments for letter in text]


def _read(text: str, setting: str, data: TextData) -> Reading | None:
    try:
        return read_text(text, language=setting, table="v2", data=data)
    except UnspeakableTextError:
        return None


def _sounding(ids: Sequence[int]) -> list[str]:
    """Nothing for marks alone: where upstream makes the sound of a comma, a text that cannot be said is an error."""
    symbols = [SymbolTable.V2.symbols[index] for index in ids]
    return symbols if not PUNCTUATION.issuperset(symbols) else []


CHECKERS: dict[str, Checker] = {"text_split": check_split, "text_mixed": check_mixed}
