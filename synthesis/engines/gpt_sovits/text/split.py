"""Cutting a long text into pieces that are spoken one after another.

The methods and their limits are GPT-SoVITS's (TTS_infer_pack/text_segmentation_method.py and TextPreprocessor.py,
commit 48b1a016). Pieces keep their place in the request's text; a mark that was put in stands for its neighbour.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Literal

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.mapped_text import MappedText

SplitMethod = Literal["cut0", "cut1", "cut2", "cut3", "cut4", "cut5"]

END_MARKS = frozenset("，。？！,.?!~:：—…")  # a piece that ends in one of these needs no full stop
LONGEST_PIECE_CHARS = 510  # BERT has 512 positions, two of them taken by [CLS] and [SEP]

_SHORTEST_PIECE_CHARS = 5
_SHORTEST_OPENING_CHARS = 4
_SENTENCES_PER_PIECE = 4  # cut1
_PIECE_CHARS = 50  # cut2
_IDLE_CHARACTERS = frozenset("!?…,.- ")  # pieces of nothing else are dropped
_CUT5_MARKS = frozenset(",.;?!、，。？！：…")

_REPEATED_MARKS = re.compile(r"([!?…,.\-])[!?…,.\-]+")
_LONG_MARKS = re.compile("……|——")
_FULL_STOP = re.compile(r"(?<!\d)\.(?!\d)")
_END_MARK = re.compile(f"[{''.join(sorted(END_MARKS))}]")
_LETTER = re.compile(r"\w")


def collapse_punctuation(text: MappedText) -> MappedText:
    """Of several of `! ? … , . -` in a row the first one stays."""
    return text.substitute(_REPEATED_MARKS, lambda marks: marks.group(1))


def cut(text: MappedText, method: SplitMethod) -> MappedText:
    """`text` with a newline wherever `method` ends a piece.

    cut0: nowhere. cut1: after every fourth mark. cut2: after the mark that makes a piece longer than 50 characters.
    cut3: at `。`, cut4: at `.` outside numbers; the mark is lost. cut5: after every mark.
    """
    return _METHODS[method](text) if text.text else text


def split_text(text: MappedText, method: SplitMethod, *, english: bool) -> list[MappedText]:
    """The pieces to speak: each ends in a mark, has a letter or digit in it and at most 510 characters.

    Pieces under five characters join a neighbour. `english` says which full stop is put in. An empty text, or one of
    marks alone, has no pieces; raises UnspeakableTextError if the method leaves nothing but space of a longer one.
    """
    full_stop = "." if english else "。"
    text = _strip(text, "\n")
    if not text.text:
        return []
    if (
        text.text[0] not in END_MARKS
        and len(_END_MARK.split(text.text, maxsplit=1)[0].strip()) < _SHORTEST_OPENING_CHARS
    ):
        # A very short opening is often swallowed; a pause before it helps.
        text = MappedText.join([text.slice(0, 1).rewritten(full_stop), text])
    lines = [line for line in _split_at(cut(text, method), re.compile("\n")) if line.text not in ("", " ")]
    if not lines:
        raise UnspeakableTextError("The text holds nothing to say.")
    return list(_finished(_merge_short(lines), full_stop))


def halve(text: str) -> tuple[str, str] | None:
    """Cut near the middle: at a space or mark in the middle half, or else through it. None if a half would be mute."""
    middle = len(text) // 2
    places = [
        index + 1
        for index in range(len(text) // 4, len(text) - len(text) // 4)
        if text[index].isspace() or text[index] in END_MARKS
    ]
    place = min(places, key=lambda index: abs(index - middle), default=middle)
    first, second = text[:place], text[place:]
    return (first, second) if _LETTER.search(first) and _LETTER.search(second) else None


def _finished(pieces: Iterable[MappedText], full_stop: str) -> Iterator[MappedText]:
    for piece in pieces:
        if not _LETTER.search(piece.text):
            continue
        if piece.text[-1] not in END_MARKS:
            piece = _with_mark(piece, full_stop)
        yield from [piece] if len(piece.text) <= LONGEST_PIECE_CHARS else _cut_long(piece)


def _merge_short(pieces: list[MappedText]) -> list[MappedText]:
    merged: list[MappedText] = []
    waiting = MappedText.of("")
    for piece in pieces:
        waiting = MappedText.join([waiting, piece])
        if len(waiting.text) >= _SHORTEST_PIECE_CHARS:
            merged.append(waiting)
            waiting = MappedText.of("")
    if waiting.text:
        merged[-1:] = [MappedText.join([*merged[-1:], waiting])]
    return merged


def _cut_long(piece: MappedText) -> Iterator[MappedText]:
    """At marks where there are any, otherwise through the words: a longer piece would overflow BERT."""
    waiting = MappedText.of("")
    for part in _pieces_and_marks(piece):
        if len(waiting.text) + len(part.text) > LONGEST_PIECE_CHARS:
            if waiting.text:
                yield waiting
            waiting = MappedText.of("")
        while len(part.text) > LONGEST_PIECE_CHARS:
            yield part.slice(0, LONGEST_PIECE_CHARS)
            part = part.slice(LONGEST_PIECE_CHARS, len(part.text))
        waiting = MappedText.join([waiting, part])
    if waiting.text:
        yield waiting


def _pieces_and_marks(text: MappedText) -> Iterator[MappedText]:
    position = 0
    for mark in _END_MARK.finditer(text.text):
        yield text.slice(position, mark.start())
        yield text.slice(mark.start(), mark.end())
        position = mark.end()
    yield text.slice(position, len(text.text))


def _cut0(text: MappedText) -> MappedText:
    return text.slice(0, 1).rewritten("\n") if set(text.text) <= _IDLE_CHARACTERS else text


def _cut1(text: MappedText) -> MappedText:
    text = _strip(text, "\n")
    sentences = _sentences(text)
    starts = range(0, len(sentences), _SENTENCES_PER_PIECE)[:-1]  # what is left over joins the last piece
    if not starts:
        return _lines([text])
    ends = [*starts[1:], len(sentences)]
    return _lines([MappedText.join(sentences[start:end]) for start, end in zip(starts, ends, strict=True)])


def _cut2(text: MappedText) -> MappedText:
    text = _strip(text, "\n")
    sentences = _sentences(text)
    if len(sentences) < 2:
        return text
    pieces: list[MappedText] = []
    waiting = MappedText.of("")
    for sentence in sentences:
        waiting = MappedText.join([waiting, sentence])
        if len(waiting.text) > _PIECE_CHARS:
            pieces.append(waiting)
            waiting = MappedText.of("")
    if waiting.text:
        pieces.append(waiting)
    if len(pieces) > 1 and len(pieces[-1].text) < _PIECE_CHARS:
        pieces[-2:] = [MappedText.join(pieces[-2:])]
    return _lines(pieces)


def _cut3(text: MappedText) -> MappedText:
    return _lines(_split_at(_strip(_strip(text, "\n"), "。"), re.compile("。")))


def _cut4(text: MappedText) -> MappedText:
    return _lines(_split_at(_strip(_strip(text, "\n"), "."), _FULL_STOP))


def _cut5(text: MappedText) -> MappedText:
    text = _strip(text, "\n")
    letters = text.text
    ends = [
        index + 1
        for index, letter in enumerate(letters)
        if letter in _CUT5_MARKS
        and not (letter == "." and letters[index - 1 : index].isdigit() and letters[index + 1 : index + 2].isdigit())
    ]
    bounds = [0, *ends, len(letters)]
    pieces = [text.slice(start, end) for start, end in pairwise(bounds) if end > start]
    return _lines(pieces, idle=_CUT5_MARKS)


_METHODS: Mapping[SplitMethod, Callable[[MappedText], MappedText]] = {
    "cut0": _cut0,
    "cut1": _cut1,
    "cut2": _cut2,
    "cut3": _cut3,
    "cut4": _cut4,
    "cut5": _cut5,
}


def _sentences(text: MappedText) -> list[MappedText]:
    """Cut after every end mark; a doubled ellipsis or dash becomes one mark, and the last sentence gets one."""
    if not text.text:
        return []
    text = text.substitute(_LONG_MARKS, lambda mark: "。" if mark.group() == "……" else "，")
    if text.text[-1] not in END_MARKS:
        text = _with_mark(text, "。")
    ends = [mark.end() for mark in _END_MARK.finditer(text.text)]
    return [text.slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _lines(pieces: Iterable[MappedText], idle: frozenset[str] = _IDLE_CHARACTERS) -> MappedText:
    kept = [piece for piece in pieces if not set(piece.text) <= idle]
    return MappedText.join(
        part
        for index, piece in enumerate(kept)
        for part in ([_mark_after(kept[index - 1], "\n")] if index else []) + [piece]
    )


def _split_at(text: MappedText, pattern: re.Pattern[str]) -> list[MappedText]:
    matches = list(pattern.finditer(text.text))
    starts = [0, *(match.end() for match in matches)]
    ends = [*(match.start() for match in matches), len(text.text)]
    return [text.slice(start, end) for start, end in zip(starts, ends, strict=True)]


def _strip(text: MappedText, letters: str) -> MappedText:
    start = len(text.text) - len(text.text.lstrip(letters))
    return text.slice(start, max(start, len(text.text.rstrip(letters))))


def _mark_after(text: MappedText, mark: str) -> MappedText:
    return text.slice(len(text.text) - 1, len(text.text)).rewritten(mark)


def _with_mark(text: MappedText, mark: str) -> MappedText:
    return MappedText.join([text, _mark_after(text, mark)])
