"""Where phones come from, kept in the order of the text."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence

from synthesis.engines.mapped_text import Span


def never_backwards(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The spans with each begin and end at least where the one before was."""
    ordered: list[Span] = []
    start = end = 0
    for first, last in spans:
        start = max(start, first)
        end = max(end, last, start)
        ordered.append((start, end))
    return tuple(ordered)


def spans_of_words(words: Sequence[str], text: str) -> list[Span]:
    """The part of `text` (at least one character) that each word stands for.

    A dictionary widens letters and writes numbers out, so words are matched by their characters, and what does not
    match is shared out between the matches around it.
    """
    folded = [(part, place) for place, letter in enumerate(text) for part in unicodedata.normalize("NFKC", letter)]
    places = [place for _, place in folded] + [len(text)]
    joined: list[str] = []
    ends: list[int] = []
    for word in words:
        joined.extend(unicodedata.normalize("NFKC", word))
        ends.append(len(joined))
    boundary = [0] * len(joined) + [len(text)]
    matcher = difflib.SequenceMatcher(None, joined, [part for part, _ in folded], autojunk=False)
    for _, start, end, text_start, text_end in matcher.get_opcodes():
        for at in range(start, end):
            share = (at - start) / (end - start)
            boundary[at] = places[text_start + int(share * (text_end - text_start))]
    spans = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        first = min(boundary[start], len(text) - 1)
        spans.append((first, max(boundary[end], first + 1)))
    return spans
