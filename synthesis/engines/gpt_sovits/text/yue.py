"""Cantonese text to phones."""

from __future__ import annotations

import importlib
import re

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.text.normalise_zh import normalise_cantonese
from synthesis.engines.gpt_sovits.text.phones import Phones
from synthesis.engines.gpt_sovits.text.symbols import PUNCTUATION, UNKNOWN, SymbolTable
from synthesis.engines.mapped_text import MappedText

# Where a syllable is split, upstream's text/cantonese.py INITIALS: the first that fits, vowels as well; order matters.
_SYLLABLE = re.compile(
    r"(aa|a[iuptk]|a|p|b|e|t|d|kw?|gw?|f|h|l|m|ng?|s|y|w|c|z|j|ong|o[nuik]|o|uk|ung)([a-z]*)([1-6])",
)


def read_cantonese(text: MappedText) -> Phones:
    """What Cantonese `text` sounds like, in symbols of the second table.

    Numbers and signs are spelled out as for Mandarin, then each character is read by ToJyutping in its context; one
    that it does not know is UNK twice. Raises UnspeakableTextError if no phone is left.
    """
    spoken = normalise_cantonese(text)
    if not spoken.text:
        raise UnspeakableTextError("The text holds nothing that can be said in Cantonese.")
    readings = importlib.import_module("ToJyutping").get_jyutping_list(spoken.text)
    symbols: list[str] = []
    counts: list[int] = []
    for letter, (_, jyutping) in zip(spoken.text, readings, strict=True):
        phones = [letter] if letter in PUNCTUATION else _phones(jyutping or "")
        symbols += phones
        counts.append(len(phones))
    origins = tuple(span for span, count in zip(spoken.origins, counts, strict=True) for _ in range(count))
    return Phones("yue", spoken.text, tuple(symbols), origins, tuple(counts))


def _phones(jyutping: str) -> list[str]:
    """Two for each syllable; a syllable that is all initial ends in that initial's last letter (`m4`: m m4)."""
    phones: list[str] = []
    for syllable in jyutping.split():
        match = _SYLLABLE.fullmatch(syllable)
        if match:
            initial, final, tone = match.groups()
            phones += ["Y" + initial, f"Y{final or initial[-1]}{tone}"]
    known = [phone if phone in SymbolTable.V2 else UNKNOWN for phone in phones]
    return known or [UNKNOWN, UNKNOWN]
