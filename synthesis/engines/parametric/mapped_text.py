"""Text that remembers where it came from, so that it can be rewritten before it is spoken."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Span = tuple[int, int]  # first code point and the one after the last


@dataclass(frozen=True, slots=True)
class MappedText:
    """`origins[i]` is the span of the original text that `text[i]` stands for."""

    text: str
    origins: tuple[Span, ...]

    @classmethod
    def of(cls, text: str) -> MappedText:
        return cls(text, tuple((index, index + 1) for index in range(len(text))))

    @classmethod
    def join(cls, pieces: Iterable[MappedText]) -> MappedText:
        parts = list(pieces)
        return cls("".join(part.text for part in parts), tuple(span for part in parts for span in part.origins))

    def slice(self, start: int, end: int) -> MappedText:
        return MappedText(self.text[start:end], self.origins[start:end])

    def origin(self, start: int, end: int) -> Span:
        """The span of the original that the characters `start` to `end` (at least one) stand for."""
        return self.origins[start][0], self.origins[end - 1][1]

    def rewritten(self, text: str) -> MappedText:
        """Other words for the same piece of the original: each new character stands for all of it."""
        return MappedText(text, (self.origin(0, len(self.text)),) * len(text))
