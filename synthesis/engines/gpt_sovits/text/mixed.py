"""Which stretch of a text is spoken in which language.

Equal to what GPT-SoVITS does at commit 48b1a016: split-lang 2.1.1 (MIT) cuts the text by script, tells Chinese from
Japanese word by word and merges the doubtful words into their neighbours; `LangSegmenter` then settles numbers, short
English, and kana or hangul inside other languages. Both are written anew here, over offsets. Differs in one thing: what
upstream leaves as "punctuation" or "newline", which no front reads, goes with its neighbour.
"""

from __future__ import annotations

import importlib
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from itertools import groupby
from typing import Any, Literal

from synthesis.engines.gpt_sovits.text.language_detector import LanguageDetector
from synthesis.engines.mapped_text import MappedText

SegmentLanguage = Literal["zh", "ja", "ko", "en"]

_DIGIT = "digit"
_MARK = "mark"
_NEWLINE = "newline"
_UNKNOWN = "x"

# Every mark stands alone, except that an apostrophe inside a word belongs to it. "/" is no mark to split-lang.
_MARKS = frozenset(string.punctuation) - {"/"} | frozenset("〜，。！？；：、·（【《〈「『“‘）】》〉」』”’—…￥")
_SENTENCE_MARKS = frozenset(",.!?，。！？")
_KANA = re.compile("[\u3040-\u30ff々]")
_HAN_OR_KANA = re.compile("[\u4e00-\u9fff\u3040-\u30ff々]")
_HANGUL = re.compile("[\uac00-\ud7af]")

# Latin letters among ASCII, general and CJK punctuation and full-width forms, whatever the detector says.
_ENGLISH = re.compile("(?=.*[A-Za-z])[\\s -~\u2000-\u206f\u3000-\u303f\uff00-\uffef]+")
_BETWEEN_RUNS = "[0-9\u3001-\u301c。！？.!?… ]+"  # what kana and hangul runs take along
_KANA_LETTERS = "[\u3041-\u3096\u3099\u309a\u30a1-\u30fa\u30fc]"
_HANGUL_LETTERS = "[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]"
_KANA_RUN = re.compile(f"{_KANA_LETTERS}+(?:{_BETWEEN_RUNS}{_KANA_LETTERS}*)*")
_HANGUL_RUN = re.compile(f"{_HANGUL_LETTERS}+(?:{_BETWEEN_RUNS}{_HANGUL_LETTERS}*)*")
_CHINESE = re.compile(
    "[\u4e00-\u9fff\u3400-\u4db5\U00020000-\U0002a6df\U0002a700-\U0002ee5d\U00030000-\U0003134a"
    "\U00031350-\U000323af"
    "0-9\u3001-\u301c。！？.!?… /]"
)

# The detector's labels. Everything else is unknown.
_HAN_LANGUAGES = {"zh": "zh", "yue": "zh", "wuu": "zh", "ja": "ja"}
_OTHER_LANGUAGES = {**_HAN_LANGUAGES, "ko": "ko", "en": "en"}
_OUTWEIGHS = 10  # a run next to one ten times its length is a mistake of the detector


class _Script(Enum):
    HAN_OR_KANA = auto()
    HANGUL = auto()
    DIGIT = auto()
    MARK = auto()
    NEWLINE = auto()
    OTHER = auto()


@dataclass(slots=True)
class _Run:
    language: str
    start: int
    end: int

    @property
    def chars(self) -> int:
        return self.end - self.start


@dataclass(slots=True)
class _Section:
    script: _Script
    runs: list[_Run] = field(default_factory=list)


def split_languages(
    text: MappedText, *, default: SegmentLanguage | None, detector: LanguageDetector
) -> list[tuple[SegmentLanguage, MappedText]]:
    """The text in stretches of one language each; neighbours differ. Space around the text is dropped.

    With a `default` all that is not English is of that language; without one, Chinese, Japanese and Korean are told
    apart. Letters of unknown scripts next to punctuation are dropped, as upstream does: no front reads them.
    """
    start = len(text.text) - len(text.text.lstrip())
    text = text.slice(start, max(start, len(text.text.rstrip())))
    if not text.text:
        return []
    parts = [
        part
        for run in _SplitLang(text.text, detector).runs()
        for part in _settle(run.language, text.slice(run.start, run.end), default)
    ]
    return _settle_unknown(_settle_digits(_merged(parts)))


class _SplitLang:
    """One text on its way through split-lang's rules, as upstream sets them (digits are not merged away)."""

    def __init__(self, text: str, detector: LanguageDetector) -> None:
        self._text = text
        self._detector = detector

    def runs(self) -> list[_Run]:
        sections = [_Section(script, self._words(script, start, end)) for script, start, end in _scripts(self._text)]
        for section in sections:
            section.runs = self._merge_doubtful(section.runs)
        sections = _across_newlines(_across_marks(sections))
        for section in sections:
            if section.script is _Script.HAN_OR_KANA:
                section.runs = _absorb_slips(section.runs)
        return [run for section in sections for run in section.runs]

    def _words(self, script: _Script, start: int, end: int) -> list[_Run]:
        if script is _Script.HAN_OR_KANA:
            return [
                _Run(
                    "ja" if _KANA.search(word) else _HAN_LANGUAGES.get(self._detector.likeliest(word), _UNKNOWN), *span
                )
                for word, span in _spans(_han_or_kana_words(self._text[start:end]), start)
            ]
        if script is _Script.OTHER:
            return [
                _Run(_OTHER_LANGUAGES.get(self._detector.likeliest(word), _UNKNOWN), *span)
                for word, span in _spans(re.findall(r"\S+\s*", self._text[start:end]), start)
            ]
        return [_Run(_LANGUAGE_OF_SCRIPT[script], start, end)]

    def _merge_doubtful(self, runs: list[_Run]) -> list[_Run]:
        if len(runs) == 1:
            return runs
        for _ in range(2):
            runs = _merged_runs(self._settle_middles(_merged_runs(runs)))
        _fill_unknown(runs)
        self._settle_side(runs[0], runs[1:])
        self._settle_side(runs[-1], runs[-2::-1])
        return _merged_runs(self._settle_middles(_merged_runs(runs)))

    def _settle_middles(self, runs: list[_Run]) -> list[_Run]:
        """A run between two of one language joins them where it may be of that language or is short."""
        for left, middle, right in zip(runs, runs[1:], runs[2:], strict=False):
            if left.language == right.language != _UNKNOWN and (
                middle.language == _UNKNOWN
                or (
                    not self._has_kana(middle)
                    and (
                        (middle.chars <= 4 and left.chars + right.chars >= 6) or left.language in self._possible(middle)
                    )
                )
            ):
                middle.language = left.language
        return runs

    def _settle_side(self, run: _Run, others: list[_Run]) -> None:
        """The first or last run, with the others from its neighbour on, joins the neighbour on the same grounds."""
        if not others:
            return
        near = others[0]
        joins = run.language == _UNKNOWN
        if not joins and not self._has_kana(run) and not self._has_kana(near):
            joins = near.language == "zh" and near.chars > run.chars and near.chars >= 6
            joins = joins or near.language in self._possible(run)
        if joins or (near.chars <= 5 and near.language in self._possible(run)):
            run.language = _nearest(run, others)

    def _has_kana(self, run: _Run) -> bool:
        return _KANA.search(self._text, run.start, run.end) is not None

    def _possible(self, run: _Run) -> tuple[str, ...]:
        return self._detector.possible(self._text[run.start : run.end])


_LANGUAGE_OF_SCRIPT = {
    _Script.HANGUL: "ko",
    _Script.DIGIT: _DIGIT,
    _Script.MARK: _MARK,
    _Script.NEWLINE: _NEWLINE,
}


def _scripts(text: str) -> Iterator[tuple[_Script, int, int]]:
    script, start = _Script.OTHER, 0
    for index, letter in enumerate(text):
        new = _script_of(letter, text[index - 1 : index])
        if new is None or (new is script and script not in (_Script.MARK, _Script.NEWLINE)):
            continue
        if index > start:
            yield script, start, index
        script, start = new, index
    yield script, start, len(text)


def _script_of(letter: str, previous: str) -> _Script | None:
    """None for what goes with the letter before it: space, and an apostrophe inside a word."""
    if _HAN_OR_KANA.match(letter):
        return _Script.HAN_OR_KANA
    if _HANGUL.match(letter):
        return _Script.HANGUL
    if letter.isdigit():
        return _Script.DIGIT
    if letter in _MARKS:
        return None if letter == "'" and previous and not previous.isspace() else _Script.MARK
    if letter in "\n\r":
        return _Script.NEWLINE
    return None if letter.isspace() else _Script.OTHER


def _spans(words: list[str], start: int) -> Iterator[tuple[str, tuple[int, int]]]:
    for word in words:
        yield word, (start, start + len(word))
        start += len(word)


def _han_or_kana_words(text: str) -> list[str]:
    """Words with kana joined to one another, and single Han to what is before them (the first one to what follows)."""
    words: list[str] = []
    for phrase in _phrases(text):
        has_kana = _KANA.search(phrase) is not None
        if words and has_kana == (_KANA.search(words[-1]) is not None) and (has_kana or len(phrase) == 1):
            words[-1] += phrase
        else:
            words.append(phrase)
    if len(words) > 1 and len(words[0]) == 1:
        words[:2] = ["".join(words[:2])]
    return words


def _phrases(text: str) -> list[str]:
    """BudouX's phrases, its Japanese model's cut once more by its Chinese one, as in split-lang."""
    japanese, chinese = _phrase_parsers()
    return [phrase for part in japanese.parse(text) for phrase in chinese.parse(part)]


@cache
def _phrase_parsers() -> tuple[Any, Any]:
    budoux = importlib.import_module("budoux")
    return budoux.load_default_japanese_parser(), budoux.load_default_simplified_chinese_parser()


def _merged_runs(runs: list[_Run]) -> list[_Run]:
    groups = (list(group) for _, group in groupby(runs, key=lambda run: run.language))
    return [_Run(group[0].language, group[0].start, group[-1].end) for group in groups]


def _nearest(run: _Run, others: list[_Run]) -> str:
    return next((other.language for other in others if other.language != _UNKNOWN), run.language)


def _fill_unknown(runs: list[_Run]) -> None:
    for index, run in enumerate(runs):
        if run.language == _UNKNOWN:
            before, after = runs[:index][::-1], runs[index + 1 :]
            goes_left = not after or (before and before[0].chars >= after[0].chars)
            run.language = _nearest(run, before if goes_left else after)


def _across_marks(sections: list[_Section]) -> list[_Section]:
    """Marks join the section before them; those that open the text join the one after."""
    joined = sections[:1]
    for section in sections[1:]:
        last = joined[-1]
        if last.script is _Script.MARK:
            first, *rest = section.runs
            opening = _Run(first.language, last.runs[0].start, first.end)
            joined[-1] = _Section(section.script, [*last.runs[:-1], opening, *rest])
        elif section.script is _Script.MARK:
            last.runs[-1].end = section.runs[-1].end
        else:
            joined.append(section)
    return [_Section(section.script, _merged_runs(section.runs)) for section in _same_script_joined(joined)]


def _across_newlines(sections: list[_Section]) -> list[_Section]:
    """Line ends join the run before them."""
    joined = sections[:1]
    for section in sections[1:]:
        last = joined[-1]
        if last.script is _Script.NEWLINE:
            joined[-1] = _Section(section.script, last.runs + section.runs)
        elif section.script is _Script.NEWLINE:
            last.runs += section.runs
        else:
            joined.append(section)
    joined = _same_script_joined(joined)
    for section in joined:
        runs: list[_Run] = []
        previous = ""
        for run in section.runs:
            if runs and run.language in (_NEWLINE, previous):
                runs[-1].end = run.end
            else:
                runs.append(run)
            previous = run.language
        section.runs = runs
    return joined


def _same_script_joined(sections: list[_Section]) -> list[_Section]:
    groups = groupby(sections, key=lambda section: section.script)
    return [_Section(script, [run for section in group for run in section.runs]) for script, group in groups]


def _absorb_slips(runs: list[_Run]) -> list[_Run]:
    """Between Chinese and Japanese, a run is a slip of the detector where its neighbours are ten times as long."""
    if len(runs) == 1:
        return runs
    kept: list[_Run] = []
    chars = dict.fromkeys(("zh", "ja", _UNKNOWN, _NEWLINE), 0)  # of the runs that were looked at, not of those skipped
    index = 0
    while index < len(runs):
        run = runs[index]
        following = runs[index + 1] if index + 1 < len(runs) else None
        chars[run.language] += run.chars
        if following is None:
            if (
                kept[-1].language in ("zh", "ja")
                and run.language != _NEWLINE
                and run.chars * _OUTWEIGHS < kept[-1].chars
            ):
                kept[-1].end = run.end
            else:
                kept.append(run)
        elif not kept:
            if (
                following.language in ("zh", "ja")
                and run.language != _NEWLINE
                and run.chars * _OUTWEIGHS < following.chars
            ):
                kept.append(_Run(following.language, run.start, following.end))
                index += 1
            else:
                kept.append(run)
        elif (
            kept[-1].language == following.language
            and following.language in ("zh", "ja")
            and run.chars * _OUTWEIGHS < kept[-1].chars + following.chars
        ):
            kept[-1].end = following.end
            index += 1
        else:
            kept.append(run)
        index += 1
    commonest = max(chars, key=lambda language: chars[language])
    mostly_japanese = chars["ja"] >= _OUTWEIGHS * chars["zh"]
    for run in kept:
        if run.language == _UNKNOWN:
            run.language = commonest
        if run.language == "zh" and mostly_japanese:
            run.language = "ja"
    return _merged_runs(kept)


def _settle(language: str, text: MappedText, default: SegmentLanguage | None) -> list[tuple[str, MappedText]]:
    """One of split-lang's runs: one stretch, or several where kana or hangul stand in another language."""
    if language == _DIGIT:
        return [(default or _DIGIT, text)]
    if _ENGLISH.fullmatch(text.text):
        return [("en", text)]
    if default:
        return [(default, text)]
    if language in (_NEWLINE, _MARK):
        return [(_UNKNOWN, text)]
    parts = [(language, text)]
    if language != "ja":
        parts = _without(parts, "ja", _KANA_RUN)
    if language != "ko":
        parts = _without(parts, "ko", _HANGUL_RUN)
    if len(parts) == 1:
        parts = [(language, text)]
    return [
        _only_chinese(part) if part_language == _UNKNOWN else (part_language, part) for part_language, part in parts
    ]


def _without(
    parts: list[tuple[str, MappedText]], language: str, pattern: re.Pattern[str]
) -> list[tuple[str, MappedText]]:
    result: list[tuple[str, MappedText]] = []
    for own, part in parts:
        position = 0
        for match in pattern.finditer(part.text):
            if match.start() > position:
                result.append((own, part.slice(position, match.start())))
            result.append((language, part.slice(match.start(), match.end())))
            position = match.end()
        if position < len(part.text):
            result.append((own, part.slice(position, len(part.text))))
    return result


def _only_chinese(text: MappedText) -> tuple[str, MappedText]:
    chinese = MappedText.join(text.slice(match.start(), match.end()) for match in _CHINESE.finditer(text.text))
    return ("zh", chinese) if chinese.text else (_UNKNOWN, text)


def _merged(parts: list[tuple[str, MappedText]]) -> list[tuple[str, MappedText]]:
    groups = groupby(parts, key=lambda part: part[0])
    return [(language, MappedText.join(text for _, text in group)) for language, group in groups]


def _settle_digits(parts: list[tuple[str, MappedText]]) -> list[tuple[str, MappedText]]:
    """Digits take the language of a neighbour: across no sentence mark, of the longer one otherwise."""
    settled: list[tuple[str, MappedText]] = []
    for index, (language, text) in enumerate(parts):
        following = parts[index + 1] if index + 1 < len(parts) else None
        if language == _DIGIT:
            language = _language_of_digits(text.text, settled[-1] if settled else None, following)
        if settled and settled[-1][0] == language:
            settled[-1] = (language, MappedText.join([settled[-1][1], text]))
        else:
            settled.append((language, text))
    return settled


def _language_of_digits(
    digits: str, before: tuple[str, MappedText] | None, after: tuple[str, MappedText] | None
) -> str:
    if before is None or after is None:
        neighbour = before or after
        return neighbour[0] if neighbour else "zh"
    stays_left = before[1].text[-1] not in _SENTENCE_MARKS and (
        after[1].text[0] in _SENTENCE_MARKS or digits[-1] in "。." or len(before[1].text) >= len(after[1].text)
    )
    return before[0] if stays_left else after[0]


def _settle_unknown(parts: list[tuple[str, MappedText]]) -> list[tuple[SegmentLanguage, MappedText]]:
    """What no rule knows goes with what is before it, at the beginning with what follows."""
    settled: list[tuple[SegmentLanguage, MappedText]] = []
    for name, text in parts:
        neighbour = settled[-1][0] if settled else (parts[1][0] if len(parts) > 1 else "zh")
        language = _LANGUAGES[neighbour if name == _UNKNOWN else name]
        if settled and settled[-1][0] == language:
            settled[-1] = (language, MappedText.join([settled[-1][1], text]))
        else:
            settled.append((language, text))
    return settled


_LANGUAGES: dict[str, SegmentLanguage] = {"zh": "zh", "ja": "ja", "ko": "ko", "en": "en"}
