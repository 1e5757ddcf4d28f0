"""The symbol tables and the Mandarin and Cantonese front ends against their reference sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.parity.report import Case, Checker, GoldenSet, compare_equal
from synthesis.engines.gpt_sovits.parity.text_report import text_case
from synthesis.engines.gpt_sovits.text.phones import Phones
from synthesis.engines.gpt_sovits.text.symbols import SymbolTable
from synthesis.engines.gpt_sovits.text.yue import read_cantonese
from synthesis.engines.gpt_sovits.text.zh import PinyinReader, read_chinese, read_word
from synthesis.engines.mapped_text import MappedText

_TONES = "list of neutral-tone words is ours, not upstream's"
_WORDS = "normalised otherwise: "


def check_symbols(golden: GoldenSet) -> Iterator[Case]:
    tables = golden.description
    yield compare_equal("symbols.v1", SymbolTable.V1.symbols, tables["v1"])
    yield compare_equal("symbols.v2", SymbolTable.V2.symbols, tables["v2"])


def check_chinese(golden: GoldenSet) -> Iterator[Case]:
    """One case for each mode of the set."""
    items = golden.description["items"]
    for mode in dict.fromkeys(item["mode"] for item in items):
        yield _case(f"{golden.name}.{mode}", [item for item in items if item["mode"] == mode])


def check_cantonese(golden: GoldenSet) -> Iterator[Case]:
    yield _case(golden.name, golden.description["items"])


def _case(name: str, items: list[dict[str, Any]]) -> Case:
    compared = []
    causes = {}
    for item in items:
        found = _read(item)
        wanted = [str(phone) for phone in item["phones"]]
        compared.append((item["text"], found.symbols, wanted))
        if found.norm_text != item["norm_text"]:
            causes[item["text"]] = f"{_WORDS}{found.norm_text} / {item['norm_text']}"
        elif item["lang"] == "zh":
            causes[item["text"]] = _TONES
        table = SymbolTable.named(item["version"])
        if table.ids(wanted) != item["phone_ids"]:  # the reference's own symbols do not give its ids: another table
            return Case(name, float("inf"), 0.0, f"ids of {item['text']}")
        if list(found.phones_per_character or ()) != item["word2ph"] and found.norm_text == item["norm_text"]:
            return Case(name, float("inf"), 0.0, f"phones per character of {item['text']}")
    return text_case(name, compared, causes=causes)


def _read(item: dict[str, Any]) -> Phones:
    text = MappedText.of(item["text"])
    try:
        if item["lang"] == "yue":
            return read_cantonese(text)
        return read_chinese(text, table=item["version"], pinyin=_injected(item))
    except UnspeakableTextError:
        return Phones(item["lang"], "", (), (), ())


def _injected(item: dict[str, Any]) -> PinyinReader | None:
    """The network's readings as the set gives them: [segment, one pinyin a character]."""
    if not item.get("g2pw"):
        return None
    readings: dict[str, list[str]] = dict(item["g2pw"])

    def read(segments: Sequence[str]) -> list[list[str]]:
        # A segment that is normalised otherwise has no reading in the set; the note says so.
        return [readings.get(segment) or read_word(segment) for segment in segments]

    return read


CHECKERS: dict[str, Checker] = {"symbols": check_symbols, "text_zh": check_chinese, "text_yue": check_cantonese}
