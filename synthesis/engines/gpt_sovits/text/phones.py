"""What a stretch of text sounds like, for every language the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from synthesis.engines.mapped_text import Span

PhoneLanguage = Literal["zh", "yue", "en", "ja", "ko"]


@dataclass(frozen=True, slots=True)
class Phones:
    """The reading of one stretch of text in one language. `n` phones.

    `phones_per_character`, where the language has it (zh, yue), counts the phones of each character of `norm_text` and
    sums to n; it is how Chinese BERT rows are spread over phones. `origins[i]` is the span of the text that was handed
    in (code points) which phone i says; spans never go backwards.
    """

    language: PhoneLanguage
    norm_text: str
    symbols: tuple[str, ...]  # n, all of them entries of the symbol table
    origins: tuple[Span, ...]  # n
    phones_per_character: tuple[int, ...] | None = None
