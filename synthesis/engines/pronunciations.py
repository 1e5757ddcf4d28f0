"""Overrides of how words are said, applied to the text before any engine reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from synthesis.engines.base import Pronunciation
from synthesis.engines.mapped_text import MappedText
from synthesis.engines.scripts import UNSPACED_SCRIPTS, script_of

# A letter or digit that goes on with the word beside it. Those of scripts without spaces (see UNSPACED_SCRIPTS) do not:
# in 我在USA the word is USA. Blocks: Thai and Lao, Myanmar, Khmer, kana, Han, more Han, half-width kana, rare Han.
_WORD_LETTER = (
    r"[^\W_\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f"
    r"\U00020000-\U000323af]"
)


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

    before = f"(?<!{_WORD_LETTER})" if needs_edge(written[0]) else ""
    after = f"(?!{_WORD_LETTER})" if needs_edge(written[-1]) else ""
    return before + re.escape(written) + after
