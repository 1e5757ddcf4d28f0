"""Japanese text to the kana that espeak-ng can read: it has no readings for kanji.

Readings come from the dictionary of pyopenjtalk (Open JTalk), particles as they are spoken. Phrases are separated by
spaces, because espeak-ng would read a sentence without any as one word.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import sys
import threading
import unicodedata
from dataclasses import dataclass
from typing import Any

from synthesis.engines.mapped_text import MappedText

_FULL_STOPS = frozenset("。．.!?！？…\n")
_DEVOICED = "’"  # Open JTalk's mark after a whispered vowel
_LONG = "ー"
_ROWS = {
    "あ": "ぁあかがさざただなはばぱまゃやらゎわ",
    "い": "ぃいきぎしじちぢにひびぴみりゐ",
    "う": "ぅうくぐすずつづぬふぶぷむゅゆるゔ",
    "え": "ぇえけげせぜてでねへべぺめれゑ",
    "お": "ぉおこごそぞとどのほぼぽもょよろを",
}
_VOWEL_OF = {kana: vowel for vowel, row in _ROWS.items() for kana in row}
_KATAKANA_TO_HIRAGANA = {code: code - 0x60 for code in range(ord("ァ"), ord("ヶ") + 1)}

_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class Reading:
    """Kana for espeak-ng, and the words in it: spans of the kana, each from one word of the text."""

    kana: MappedText
    words: tuple[tuple[int, int], ...]


def to_hiragana(kana: str) -> str:
    """Katakana to hiragana, long vowels written out: espeak-ng's dictionary knows neither."""
    letters: list[str] = []
    for letter in kana.translate(_KATAKANA_TO_HIRAGANA):
        if letter == _LONG:
            letter = _VOWEL_OF.get(letters[-1], "") if letters else ""
        letters.append(letter)
    return "".join(letters)


def read_japanese(text: MappedText) -> Reading:
    """Kana with the words' places in it. What the dictionary cannot read stays as written."""
    tokens = _tokenize(text.text)
    spans = _align([token["string"] for token in tokens], text.text)
    pieces: list[MappedText] = []
    words: list[tuple[int, int]] = []
    length = 0
    for token, (start, end) in zip(tokens, spans, strict=True):
        written = text.slice(*_cover_number(text.text, start, end))
        is_word = any(letter.isalnum() for letter in token["string"]) and any(map(str.isalnum, written.text))
        if is_word:
            reading = to_hiragana(token["pron"].replace(_DEVOICED, ""))
            spoken = reading if any(letter.isalnum() for letter in reading) else written.text
            if words and token["chain_flag"] != 1 and length == words[-1][1]:
                pieces.append(written.rewritten(" "))  # a new accent phrase begins
                length += 1
            words.append((length, length + len(spoken)))
        elif token["string"].isspace():
            spoken = " "
        else:
            spoken = "。" if _FULL_STOPS.intersection(written.text) else "、"
        pieces.append(written.rewritten(spoken))
        length += len(spoken)
    return Reading(MappedText.join(pieces), tuple(words))


def _cover_number(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without spaces around it, and with all of a number: its words do not follow its digits one by one.

    A token for which nothing of the text was left belongs to the number it touches, or else to the letter before it.
    """
    while end - start > 1 and text[end - 1].isspace():
        end -= 1
    while end - start > 1 and text[start].isspace():
        start += 1
    if start == end:
        start = max(0, start if start < len(text) and text[start].isdecimal() else start - 1)
        end = start + 1
    if any(letter.isdecimal() for letter in text[start:end]):
        while start > 0 and text[start - 1].isdecimal():
            start -= 1
        while end < len(text) and text[end].isdecimal():
            end += 1
    return start, end


def _tokenize(text: str) -> list[dict[str, Any]]:
    tokens: list[dict[str, Any]] = _load_open_jtalk().run_frontend(text)
    return tokens


@functools.cache
def _load_open_jtalk() -> Any:
    """The module; its import takes half a second, which only Japanese pays for."""
    with _loading, contextlib.redirect_stdout(sys.stderr):  # it prints a hint about an extra that is not used here
        return importlib.import_module("pyopenjtalk")


def _align(tokens: list[str], text: str) -> list[tuple[int, int]]:
    """The span of `text` that each token stands for.

    Open JTalk widens letters, drops spaces and writes numbers out, so tokens are matched by their characters, and what
    does not match is shared out between the matches around it.
    """
    folded: list[str] = []
    places: list[int] = []  # of each folded character in `text`
    for place, letter in enumerate(text):
        for part in unicodedata.normalize("NFKC", letter):
            if not part.isspace():
                folded.append(part)
                places.append(place)
    places.append(len(text))
    joined: list[str] = []
    ends: list[int] = []
    for token in tokens:
        joined.extend(unicodedata.normalize("NFKC", token))
        ends.append(len(joined))
    position = [0] * (len(joined) + 1)  # boundary between token characters -> boundary in `text`
    matcher = difflib.SequenceMatcher(None, joined, folded, autojunk=False)
    for _, start, end, text_start, text_end in matcher.get_opcodes():
        for boundary in range(start, end):
            share = (boundary - start) / (end - start)
            position[boundary] = places[text_start + int(share * (text_end - text_start))]
    position[len(joined)] = len(text)
    starts = [0, *ends[:-1]]
    return [(position[start], max(position[start], position[end])) for start, end in zip(starts, ends, strict=True)]
