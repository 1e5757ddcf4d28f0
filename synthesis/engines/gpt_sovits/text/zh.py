"""Mandarin text to phones."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.errors import ModelFileError
from synthesis.engines.gpt_sovits.text.neutral_tones import COLOURED_ER_WORDS, SEPARATE_ER_WORDS
from synthesis.engines.gpt_sovits.text.normalise_zh import normalise_mandarin
from synthesis.engines.gpt_sovits.text.phones import Phones
from synthesis.engines.gpt_sovits.text.syllables import NEUTRAL, NO_TONE, Syllable
from synthesis.engines.gpt_sovits.text.symbols import PUNCTUATION, TableName
from synthesis.engines.gpt_sovits.text.tone_sandhi import change_tones, merge_words
from synthesis.engines.gpt_sovits.text.words_zh import Word, split_words
from synthesis.engines.mapped_text import MappedText

# Given the segments of a text, one pinyin with its tone digit for each of their characters: `zhong1`, `lv4`, `,`.
PinyinReader = Callable[[Sequence[str]], Sequence[Sequence[str]]]

_SEGMENT = re.compile(r"[^!?…,.-]*[!?…,.-]?")
_PAUSES = (("￥", "SP2"), ("^", "SP3"))  # upstream's cleaner.py: such a sign turns every comma into this symbol


@dataclass(frozen=True, slots=True)
class Corrections:
    """Readings that overrule a network's, by whole word or by single character: {word: one pinyin a character}."""

    readings: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Corrections:
        """Upstream's `polyphonic.rep` and `polyphonic-fix.rep` (later lines win), as far as they lie in `folder`.

        Raises ModelFileError if one is no text.
        """
        readings: dict[str, Sequence[str]] = {}
        for name in ("polyphonic.rep", "polyphonic-fix.rep"):
            path = folder / name
            if path.is_file():
                try:
                    lines = path.read_text(encoding="utf-8").splitlines()
                except UnicodeDecodeError as error:
                    raise ModelFileError("The list of readings is not UTF-8 text.", file=name) from error
                for line in lines:
                    word, _, pinyin = line.partition(":")
                    syllables = re.findall(r"'([a-zü:]+[1-5])'", pinyin)
                    if word.strip() and len(syllables) == len(word.strip()):
                        readings[word.strip()] = syllables
        return cls(readings)

    def apply(self, word: str, pinyin: Sequence[str]) -> Sequence[str]:
        whole = self.readings.get(word)
        if whole is not None:
            return whole
        return [
            self.readings[letter][0] if letter in self.readings else reading
            for letter, reading in zip(word, pinyin, strict=True)
        ]


# Where pypinyin's phrases give the rarer of two readings, or take 子 for a suffix.
_OWN_READINGS = {
    "朝鲜": ("chao2", "xian3"),
    "圈养": ("juan4", "yang3"),
    "分子": ("fen1", "zi3"),
    "原子": ("yuan2", "zi3"),
    "电子": ("dian4", "zi3"),
    "男子": ("nan2", "zi3"),
    "瓜子": ("gua1", "zi3"),
    "莲子": ("lian2", "zi3"),
}


class DictionaryCorrections(Corrections):
    """What stands in for upstream's files: pypinyin's own phrases."""

    def apply(self, word: str, pinyin: Sequence[str]) -> Sequence[str]:
        return read_word(word) if word in _OWN_READINGS or (len(word) > 1 and word in _phrases()) else pinyin


def read_chinese(
    text: MappedText,
    *,
    table: TableName,
    pinyin: PinyinReader | None = None,
    corrections: Corrections | None = None,
) -> Phones:
    """What Mandarin `text` sounds like. Latin letters and emoji are silent; marks are phones.

    `table` "v1" is the front end of the v1 models, which does not colour vowels by 儿. `pinyin` is the polyphone
    network; its readings go through `corrections`. Without it pypinyin reads word by word, as upstream does where the
    network is off. Raises UnspeakableTextError if no phone is left.
    """
    pause = next((symbol for sign, symbol in _PAUSES if sign in text.text), ",")
    for sign, symbol in _PAUSES:
        if symbol == pause:
            text = text.translate({sign: ","})
    spoken = normalise_mandarin(text)
    if not spoken.text:
        raise UnspeakableTextError("The text holds nothing that can be said in Chinese.")
    segments = [segment for segment in _SEGMENT.findall(spoken.text) if segment]
    readings = pinyin(segments) if pinyin is not None else None
    syllables: list[Syllable] = []
    for index, segment in enumerate(segments):
        read = None if readings is None else readings[index]
        syllables += _read_segment(segment, read, corrections or DictionaryCorrections(), colours_er=table != "v1")

    symbols: list[str] = []
    counts: list[int] = []
    for letter, syllable in zip(spoken.text, syllables, strict=True):
        phones = (pause if letter == "," else letter,) if letter in PUNCTUATION else syllable.phones()
        symbols += phones
        counts.append(len(phones))
    origins = tuple(span for span, count in zip(spoken.origins, counts, strict=True) for _ in range(count))
    return Phones("zh", spoken.text, tuple(symbols), origins, tuple(counts))


def read_word(word: str) -> list[str]:
    """One pinyin a character by pypinyin, as `zhong1`; "" where it has none (punctuation)."""
    return list(_OWN_READINGS.get(word) or _read_word(word))


@lru_cache(maxsize=8192)
def _read_word(word: str) -> tuple[str, ...]:
    pypinyin = importlib.import_module("pypinyin")
    return tuple(
        pypinyin.lazy_pinyin(
            word,
            style=pypinyin.Style.TONE3,
            neutral_tone_with_five=True,
            errors=lambda letters: [""] * len(letters),
        )
    )


@lru_cache(maxsize=1)
def _phrases() -> Mapping[str, object]:
    phrases: Mapping[str, object] = importlib.import_module("pypinyin.constants").PHRASES_DICT
    return phrases


def _read_tones(word: str) -> list[int]:
    return [Syllable.of(reading).tone for reading in read_word(word)]


def _read_segment(
    segment: str, readings: Sequence[str] | None, corrections: Corrections, *, colours_er: bool
) -> list[Syllable]:
    """One Syllable a character."""
    syllables: list[Syllable] = []
    for word in merge_words(split_words(segment), _read_tones):
        start = len(syllables)
        if readings is None:
            read: Sequence[str] = read_word(word.text)
        else:
            read = corrections.apply(word.text, list(readings[start : start + len(word.text)]))
        plain = [Syllable.of(reading) for reading in read]
        tones = change_tones(word, [syllable.tone for syllable in plain])
        changed = [replace(syllable, tone=tone) for syllable, tone in zip(plain, tones, strict=True)]
        syllables += _colour_by_er(word, changed) if colours_er else changed
    return syllables


def _colour_by_er(word: Word, syllables: list[Syllable]) -> list[Syllable]:
    """儿 at the end of a word takes the tone before it, unless it is a syllable of its own (女儿)."""
    if not word.text.endswith("儿") or syllables[-1].final != "er":
        return syllables
    last = syllables[-1]
    if last.tone == 1:
        last = replace(last, tone=2)
    is_separate = word.text in SEPARATE_ER_WORDS or word.kind in {"a", "j", "nr"}
    if (
        len(syllables) > 1
        and last.tone in (2, NEUTRAL)
        and syllables[-2].tone != NO_TONE
        and word.text[-2:] not in SEPARATE_ER_WORDS
        and (word.text in COLOURED_ER_WORDS or not is_separate)
    ):
        last = replace(last, tone=syllables[-2].tone)
    return [*syllables[:-1], last]
