"""Overrides of how words are said, applied to the text before any engine reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from synthesis.engines.base import Pronunciation
from synthesis.engines.mapped_text import MappedText
from synthesis.engines.scripts import UNSPACED_SCRIPTS, script_of


def apply_pronunciations(text: str, pronunciations: Sequence[Pronunciation]) -> MappedText:
    """`text` with what is to be said in place of what is written; every character keeps its place in `text`."""
    mapped = MappedText.of(text)
    spoken_of: dict[str, str] = {}
    for entry in pronunciations:
        if entry.written.strip():
            spoken_of.setdefault(entry.written.casefold(), entry.spoken)
    if not spoken_of:
        return mapped
    longest_first = sorted(spoken_of, key=lambda written: (-len(written), written))
    pattern = re.compile("|".join(_whole_word(written) for written in longest_first), re.IGNORECASE)
    pieces = []
    position = 0
    for match in pattern.finditer(text):
        spoken = spoken_of.get(match.group().casefold())
        if spoken is None:  # case folding found more than the table knows (Turkish dotless i)
            continue
        pieces += [mapped.slice(position, match.start()), mapped.slice(match.start(), match.end()).rewritten(spoken)]
        position = match.end()
    pieces.append(mapped.slice(position, len(text)))
    return MappedText.join(pieces)


def _whole_word(written: str) -> str:
    def needs_edge(letter: str) -> bool:
        return letter.isalnum() and script_of(letter) not in UNSPACED_SCRIPTS

    before = r"(?<![^\W_])" if needs_edge(written[0]) else ""
    after = r"(?![^\W_])" if needs_edge(written[-1]) else ""
    return before + re.escape(written) + after
