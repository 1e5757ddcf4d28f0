"""From the request's own text to text an engine can read, with an exact way back.

Cleaning: canonical composition (NFC), control and invisible format characters removed, white space reduced to three
characters: space, line break, paragraph break. Every character kept knows the code points of the request it came from.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

LINE_BREAK = "\n"
PARAGRAPH_BREAK = "\u2029"
_JOINERS = "\u200c\u200d"  # they shape Indic and Persian words and hold emoji together
_LINE_ENDS = "\n\r\v\f\x85\u2028\u2029"
_INVISIBLE_LETTERS = "\u115f\u1160\u3164\uffa0"  # Hangul fillers: letters by category, blank on paper


@dataclass(frozen=True, slots=True)
class CleanText:
    """`text[i]` was made from the request's code points `starts[i]:ends[i]`.

    What was removed belongs to no character. `source_chars` is the length of the request's text.
    """

    text: str
    starts: Sequence[int]
    ends: Sequence[int]
    source_chars: int

    def source_boundary(self, index: int) -> int:
        """The request's code point at which `text[index:]` begins; its whole length at the end."""
        return self.starts[index] if index < len(self.text) else self.source_chars


def clean_text(text: str) -> CleanText:
    """Clean any string, lone surrogates included; never raises."""
    chars: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for cluster, indices in _clusters(text):
        composed = unicodedata.normalize("NFC", cluster)
        for offset, char in enumerate(composed):
            # A cluster of equal length maps one to one; in a composed one the surplus belongs to the last character.
            place = min(offset, len(indices) - 1)
            chars.append(char)
            starts.append(indices[place])
            ends.append(indices[place] + 1)
        if len(composed) < len(indices):
            ends[-1] = indices[-1] + 1
    return _reduce_white_space(chars, starts, ends, len(text))


def is_speakable(text: str) -> bool:
    """Whether `text` holds a letter or a digit: punctuation, symbols and emoji alone say nothing."""
    return any(_is_speakable_char(char) for char in text)


def is_grapheme_start(text: str, index: int) -> bool:
    """Whether `text` may be cut before `index` without tearing one visible character apart.

    The rules of UAX 29 that speech meets: combining marks, joiners, conjoining jamo, Thai and Lao AM, emoji sequences.
    """
    if index <= 0 or index >= len(text):
        return True
    char, previous = text[index], text[index - 1]
    if char in _JOINERS or previous in _JOINERS or continues_cluster(char) or char in "\u0e33\u0eb3":
        return False
    if "\U0001f3fb" <= char <= "\U0001f3ff":  # skin tones
        return False
    if _is_flag_half(char) and _is_flag_half(previous):
        first = index
        while first > 0 and _is_flag_half(text[first - 1]):
            first -= 1
        return (index - first) % 2 == 0
    return True


@lru_cache(maxsize=4096)
def continues_cluster(char: str) -> bool:
    """Whether NFC may join `char` to what stands before it: marks, and the vowels and finals of conjoining Hangul."""
    return unicodedata.category(char)[0] == "M" or "\u1160" <= char <= "\u11ff"


@lru_cache(maxsize=4096)
def _is_speakable_char(char: str) -> bool:
    category = unicodedata.category(char)
    return (category[0] == "N" or (category[0] == "L" and category != "Lm")) and char not in _INVISIBLE_LETTERS


def _is_flag_half(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


@lru_cache(maxsize=4096)
def _is_removed(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Cs") and not char.isspace() and char not in _JOINERS


def _clusters(text: str) -> Iterator[tuple[str, list[int]]]:
    """Pieces that NFC treats independently of each other, without the removed characters; with their code points."""
    cluster: list[str] = []
    indices: list[int] = []
    for index, char in enumerate(text):
        if _is_removed(char):
            continue
        if cluster and not continues_cluster(char):
            yield "".join(cluster), indices
            cluster, indices = [], []
        cluster.append(char)
        indices.append(index)
    if cluster:
        yield "".join(cluster), indices


def _reduce_white_space(chars: list[str], starts: list[int], ends: list[int], source_chars: int) -> CleanText:
    kept: list[str] = []
    kept_starts: list[int] = []
    kept_ends: list[int] = []
    index = 0
    while index < len(chars):
        stop = index
        while stop < len(chars) and chars[stop].isspace():
            stop += 1
        if stop == index:
            kept.append(chars[index])
            stop = index + 1
        else:
            kept.append(_white_space("".join(chars[index:stop])))
        kept_starts.append(starts[index])
        kept_ends.append(ends[stop - 1])
        index = stop
    return CleanText("".join(kept), kept_starts, kept_ends, source_chars)


def _white_space(run: str) -> str:
    lines = run.replace("\r\n", "\n")
    breaks = sum(char in _LINE_ENDS for char in lines)
    if breaks > 1 or PARAGRAPH_BREAK in lines:
        return PARAGRAPH_BREAK
    return LINE_BREAK if breaks else " "
