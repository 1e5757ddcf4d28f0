"""Text that remembers where it came from, so that it can be rewritten before it is spoken."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
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

    def substitute(self, pattern: re.Pattern[str], replacement: str | Callable[[re.Match[str]], str]) -> MappedText:
        """`re.sub`. What a replacement keeps of its match's beginning and end keeps its own place; what is new stands
        for the rest of the match. An empty match inserts text that stands for the neighbour before it."""
        pieces: list[MappedText] = []
        position = 0
        for match in pattern.finditer(self.text):
            start, end = match.span()
            new = match.expand(replacement) if isinstance(replacement, str) else replacement(match)
            pieces += [self.slice(position, start), self._replaced(start, end, new)]
            position = end
        return MappedText.join([*pieces, self.slice(position, len(self.text))]) if pieces else self

    def translate(self, table: Mapping[str, str]) -> MappedText:
        """Each character that is in `table` becomes its entry (none, one or several characters)."""
        pairs = [
            (new, span)
            for letter, span in zip(self.text, self.origins, strict=True)
            for new in table.get(letter, letter)
        ]
        return MappedText("".join(letter for letter, _ in pairs), tuple(span for _, span in pairs))

    def _replaced(self, start: int, end: int, new: str) -> MappedText:
        old = self.text[start:end]
        shorter = min(len(old), len(new))
        head = next((i for i in range(shorter) if old[i] != new[i]), shorter)
        tail = next((i for i in range(shorter - head) if old[-1 - i] != new[-1 - i]), shorter - head)
        middle = new[head : len(new) - tail]
        if not middle:
            return MappedText.join([self.slice(start, start + head), self.slice(end - tail, end)])
        first, last = start + head, end - tail
        if first >= last:  # nothing is left of the match: the inserted text stands for a neighbour
            first = max(first - 1, 0)
            last = min(first + 1, len(self.text))
        span = self.origin(first, last) if last > first else (0, 0)
        inserted = MappedText(middle, (span,) * len(middle))
        return MappedText.join([self.slice(start, start + head), inserted, self.slice(end - tail, end)])
