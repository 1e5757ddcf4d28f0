"""Cutting texts into pieces and languages, and the phones of whole texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.parity.report import Case, Checker, GoldenSet, compare_equal
from synthesis.engines.gpt_sovits.parity.text_report import text_case
from synthesis.engines.gpt_sovits.text.language_detector import LanguageDetector
from synthesis.engines.gpt_sovits.text.mixed import split_languages
from synthesis.engines.gpt_sovits.text.split import collapse_punctuation, cut, split_text
from synthesis.engines.mapped_text import MappedText


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
    """`.segments`: the language of every character."""
    items = golden.description["items"]
    detector = LanguageDetector.load()
    yield text_case(
        f"{golden.name}.segments",
        [
            (
                f"{item['text']} ({setting})",
                _labels(_segments(item["text"], None if setting == "auto" else setting, detector)),
                _labels(wanted),
            )
            for item in items
            for setting, wanted in item["segments"].items()
        ],
    )


def _segments(text: str, default: Any, detector: LanguageDetector) -> list[tuple[str, str]]:
    parts = split_languages(MappedText.of(text), default=default, detector=detector)
    return [(language, part.text) for language, part in parts]


def _labels(segments: Iterable[Sequence[str]]) -> list[str]:
    return [f"{letter}/{language}" for language, text in segments for letter in text]


CHECKERS: dict[str, Checker] = {"text_split": check_split, "text_mixed": check_mixed}
