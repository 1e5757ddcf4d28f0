"""From a text to what espeak-ng is told to say, with every word's place in the text kept."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from synthesis.engines.base import Pronunciation
from synthesis.engines.mapped_text import MappedText
from synthesis.engines.parametric.japanese import read_japanese
from synthesis.engines.parametric.languages import LANGUAGES, VOICE_OF_SCRIPT, Language
from synthesis.engines.pronunciations import apply_pronunciations
from synthesis.engines.scripts import script_of

_KANA_SCRIPTS = frozenset({"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH"})
_INNER_MARKS = frozenset("'’ʼ‌‍")  # join the letters around them into one word
_NUMBER_MARKS = frozenset(".,:")


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word of the text and the stretch of a run's spoken text that says it."""

    text_start: int
    text_end: int
    spoken_start: int
    spoken_end: int


@dataclass(frozen=True, slots=True)
class SpokenRun:
    """A stretch of text for one espeak-ng voice."""

    text: str
    language: Language
    words: tuple[SpokenWord, ...]


def is_speakable(text: str) -> bool:
    """Whether there is a letter or digit of any script in it."""
    return any(letter.isalnum() for letter in text)


def plan_speech(text: str, language: Language, pronunciations: Sequence[Pronunciation] = ()) -> tuple[SpokenRun, ...]:
    """The runs that say `text`, in order. Only runs with something to say are returned."""
    mapped = _clean(apply_pronunciations(text, pronunciations))
    runs = []
    for run_language, piece in _split_byscript_of(mapped, language):
        if not is_speakable(piece.text):
            continue
        if run_language.code == "ja":
            reading = read_japanese(piece)
            spoken, spans = reading.kana, reading.words
        else:
            spoken, spans = piece, _find_words(piece.text)
        if spans:
            runs.append(SpokenRun(spoken.text, run_language, _merge_words(spoken, spans)))
    return tuple(runs)


def _clean(mapped: MappedText) -> MappedText:
    """One for one: controls, lone surrogates and unassigned code points to spaces, digits of all scripts to ASCII."""
    return MappedText("".join(map(_clean_letter, mapped.text)), mapped.origins)


def _clean_letter(letter: str) -> str:
    if letter.isdecimal():
        return str(unicodedata.decimal(letter))  # few voices read digits other than these
    return " " if unicodedata.category(letter) in {"Cc", "Cs", "Cn"} else letter


def _split_byscript_of(mapped: MappedText, language: Language) -> list[tuple[Language, MappedText]]:
    """Neighbouring letters with one voice stay together; digits, marks and spaces go with what precedes them."""
    has_kana = any(script_of(letter) in _KANA_SCRIPTS for letter in mapped.text)
    pieces: list[tuple[Language, MappedText]] = []
    start, current = 0, language
    has_letters = False
    for index, letter in enumerate(mapped.text):
        script = script_of(letter)
        if not script:
            continue
        wanted = _voice_for(script, language, has_kana)
        if wanted != current and has_letters:
            pieces.append((current, mapped.slice(start, index)))
            start = index
        current, has_letters = wanted, True
    pieces.append((current, mapped.slice(start, len(mapped.text))))
    return pieces


def _voice_for(script: str, language: Language, has_kana: bool) -> Language:
    if script == language.script or (language.code == "ja" and script in _KANA_SCRIPTS):
        return language
    if script == "CJK" and has_kana:
        return LANGUAGES["ja"]
    if script == "LATIN" and language.code == "ja":
        return LANGUAGES["en"]  # the Japanese dictionary spells most foreign words letter by letter
    return LANGUAGES[VOICE_OF_SCRIPT[script]] if script in VOICE_OF_SCRIPT else language


def _find_words(text: str) -> tuple[tuple[int, int], ...]:
    """Spans of words: a Han character each, elsewhere letters, digits and the signs that belong to them."""
    spans: list[tuple[int, int]] = []
    start: int | None = None
    for index, letter in enumerate(text):
        is_single = script_of(letter) == "CJK"
        if start is not None and (is_single or not _continues_word(text, index)):
            spans.append((start, index))
            start = None
        if is_single:
            spans.append((index, index + 1))
        elif start is None and _is_word_sign(letter):
            start = index
    if start is not None:
        spans.append((start, len(text)))
    return tuple((first, last) for first, last in spans if is_speakable(text[first:last]))


def _is_word_sign(letter: str) -> bool:
    return letter.isalnum() or letter == "%" or unicodedata.category(letter) in {"Mn", "Mc", "Sc"}


def _continues_word(text: str, index: int) -> bool:
    letter = text[index]
    if _is_word_sign(letter):
        return True
    between = text[index - 1 : index] + text[index + 1 : index + 2]
    if letter in _INNER_MARKS:
        return len(between) == 2 and _is_word_sign(between[0]) and _is_word_sign(between[1])
    return letter in _NUMBER_MARKS and len(between) == 2 and between.isdigit()


def _merge_words(spoken: MappedText, spans: Sequence[tuple[int, int]]) -> tuple[SpokenWord, ...]:
    """Words that stand for overlapping pieces of the text (an override of two words) become one."""
    words: list[SpokenWord] = []
    for start, end in spans:
        text_start, text_end = spoken.origin(start, end)
        if words and text_start < words[-1].text_end:
            before = words.pop()
            start = before.spoken_start
            text_start, text_end = before.text_start, max(before.text_end, text_end)
        words.append(SpokenWord(text_start, text_end, start, end))
    return tuple(words)
