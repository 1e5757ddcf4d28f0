"""Split a request's text into segments: what is synthesised, sent and charged one after the other.

Segments partition the request's text: each code point lies in exactly one. A segment is one or more sentences, or a
part of a sentence too long to be spoken in one go; its runs are the stretches spoken in one language, each by one call
of the engine.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from synthesis.contracts import AUTO_LANGUAGE
from synthesis.languages import (
    HAN,
    HANGUL,
    KANA,
    detect_language,
    find_language,
    is_japanese,
    language_of_script,
    reads_script,
    script_of,
)
from synthesis.text import LINE_BREAK, PARAGRAPH_BREAK, CleanText, clean_text, is_grapheme_start, is_speakable

# Lengths are weighed: a Han, kana or Hangul character takes about as long to say as two and a half Latin letters.
_LETTER_WEIGHT, _WIDE_WEIGHT = 2, 5
MAX_SEGMENT_CHARS = 200  # 80 of Han, kana or Hangul
MAX_FIRST_SEGMENT_CHARS = 80  # 32 of those: sound starts when the first segment is done
_TINY_SENTENCE_CHARS = 12  # engines speak words alone badly, so "Yes." is said with its neighbour
_FALLBACK_LANGUAGE = "en"

_TERMINATORS = ".!?…‼⁇⁈⁉;؟۔؛।॥։።፧။។。！？；｡．"
_WIDE_TERMINATORS = "。！？；｡"  # these end a sentence without white space after them
_CLOSERS = "\"'”’»›)]}」』】）〉》〕］｝"
_COMMAS = ",:،、，：､–—"
_WIDE_COMMAS = "、，：､"
_BREAKS = f" {LINE_BREAK}{PARAGRAPH_BREAK}"
_LINES = re.compile(f"[{LINE_BREAK}{PARAGRAPH_BREAK}]")
# Before a full stop: words that never end a sentence, that do not before a number, that do before a capital.
_TITLES = re.compile(r"dr|mr|mrs|ms|mx|prof|rev|hon|gen|sgt|capt|lt|sr|sra|srta|dra|mme|mlle|hr|vs", re.IGNORECASE)
_COUNTED = re.compile(r"no|nos|nr|vol|fig|pp|art|abs|ch|sec", re.IGNORECASE)
_ABBREVIATIONS = re.compile(r"etc|usw|inc|ltd|co|corp|jr|dept|est|approx|ca|bzw|evtl|ggf|str|ed|cf|al", re.IGNORECASE)
# Languages that write ordinal numbers with a full stop: "am 3. Oktober".
_DOTTED_ORDINALS = frozenset(
    ("bs", "cs", "da", "de", "et", "fi", "hr", "hu", "is", "lv", "nb", "no", "pl", "sk", "sl", "sr", "tr")
)
_LAST_WORD = re.compile(r"[^\W_](?:[^\W_]|[.'’-])*$")
_LAST_WORD_CHARS = 24
_MAX_ORDINAL_DIGITS = 2
_UNSPOKEN_EDGE_CHARS = 8  # signs around the first and the last word that an engine gets to see: quotes, -$, ?!


class Pause(enum.IntEnum):
    """What is heard after a segment; a greater value is a longer silence."""

    NONE = 0  # the sentence goes on
    CLAUSE = 1
    SENTENCE = 2
    PARAGRAPH = 3


PAUSE_MS = {Pause.NONE: 0, Pause.CLAUSE: 150, Pause.SENTENCE: 350, Pause.PARAGRAPH: 800}  # at speed 1


@dataclass(frozen=True, slots=True)
class Run:
    """What one call of the engine speaks. `text[i]` stands for the request's code points `starts[i]:ends[i]`."""

    text: str
    language: str
    starts: Sequence[int]
    ends: Sequence[int]

    def source_span(self, start: int, end: int) -> tuple[int, int]:
        """Code points of the request for `text[start:end]`; bounds outside the run are brought inside."""
        first = min(max(start, 0), len(self.text) - 1)
        last = min(max(end, first + 1), len(self.text)) - 1
        return self.starts[first], self.ends[last]


@dataclass(frozen=True, slots=True)
class Segment:
    """The request's code points `text_start:text_end`. The pause comes after it, unless it is the last."""

    text_start: int
    text_end: int
    runs: tuple[Run, ...]
    pause: Pause


@dataclass(frozen=True, slots=True)
class SegmentedText:
    """`segments` is empty for a text with nothing to say, otherwise a partition of the request's text.

    `sentences`: spans of the request's text without the white space around them, in order.
    """

    segments: tuple[Segment, ...]
    sentences: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Piece:
    """`text[start:end]` of the clean text, white space after it included."""

    start: int
    end: int
    language: str
    pause: Pause


def segment_text(
    text: str,
    language: str,
    *,
    available_languages: Sequence[str],
    mixed_languages: frozenset[str] = frozenset(),
    pronunciations: Sequence[tuple[str, str]] = (),
) -> SegmentedText:
    """Split `text` for speaking in `language` (a product code or `auto`).

    `available_languages`: the engine's codes; a stretch in another script changes to one of them or stays as it is.
    `mixed_languages`: those that one call of the engine speaks together, so that a change between them cuts no run. A
    word with a pronunciation is spoken in the language its spoken form is written in. Equal arguments give equal
    segments. No engine call gets more than the caps above; a single visible character longer than that is torn.
    """
    clean = clean_text(text)
    if not is_speakable(clean.text):
        return SegmentedText((), ())
    ruler = _Ruler(clean.text)
    sentences = list(_split_sentences(clean.text, dotted_ordinals=language.split("-", 1)[0] in _DOTTED_ORDINALS))
    pieces = _with_languages(clean.text, sentences, language, available_languages)
    pieces = _merge_tiny(ruler, _merge_unspeakable(ruler, pieces))
    pieces = _merge_unspeakable(ruler, _limit_lengths(ruler, pieces))
    scripts = _scripts(clean.text, pronunciations)
    languages = _RunLanguages(available_languages, mixed_languages)
    segments = tuple(
        Segment(
            text_start=clean.source_boundary(piece.start) if piece.start else 0,
            text_end=clean.source_boundary(piece.end),
            runs=tuple(_runs(clean, ruler.spoken_span(piece.start, piece.end), piece.language, scripts, languages)),
            pause=piece.pause,
        )
        for piece in pieces
    )
    return SegmentedText(segments, tuple(_source_spans(clean, sentences)))


# --- sentences


def _split_sentences(text: str, *, dotted_ordinals: bool) -> Iterator[tuple[int, int, Pause]]:
    """Spans of `text`, each with the white space after it, and the pause that follows."""
    start = index = 0
    while index < len(text):
        if text[index] in _BREAKS:
            index += 1
            if text[index - 1] != " ":
                yield start, index, Pause.PARAGRAPH if text[index - 1] == PARAGRAPH_BREAK else Pause.SENTENCE
                start = index
        elif text[index] in _TERMINATORS:
            stop = index
            while stop < len(text) and text[stop] in _TERMINATORS:
                stop += 1
            after = stop
            while after < len(text) and text[after] in _CLOSERS:
                after += 1
            if _ends_sentence(text, start, index, stop, after, dotted_ordinals=dotted_ordinals):
                pause = Pause.SENTENCE
                if after < len(text) and text[after] in _BREAKS:
                    pause = Pause.PARAGRAPH if text[after] == PARAGRAPH_BREAK else pause
                    after += 1
                yield start, after, pause
                start = after
            index = after
        else:
            index += 1
    if start < len(text):
        yield start, len(text), Pause.SENTENCE


def _ends_sentence(text: str, sentence_start: int, start: int, stop: int, after: int, *, dotted_ordinals: bool) -> bool:
    """Whether the terminators `text[start:stop]`, followed by closing quotes up to `after`, end the sentence."""
    if any(char in _WIDE_TERMINATORS for char in text[start:stop]) or after == len(text):
        return True
    if text[after] not in _BREAKS:
        return _is_wide(text[after])  # no space is written before Han or kana; elsewhere it is 3.14 or a host name
    if after + 1 == len(text) or text[after] != " ":
        return True
    following = text[after + 1]
    if text[start:stop] in ("…", "..."):
        return not following.islower()
    if text[start:stop] != ".":
        return True
    match = _LAST_WORD.search(text, max(0, start - _LAST_WORD_CHARS), start)
    word = match.group() if match else ""
    if (
        _TITLES.fullmatch(word)
        or "." in word
        or (len(word) == 1 and word.isalpha() and word != "I" and not _is_wide(word))
    ):
        return False
    if _COUNTED.fullmatch(word):
        return not following.isdigit()
    if _ABBREVIATIONS.fullmatch(word):
        return following.isupper()
    is_list_number = not text[sentence_start : start - len(word)].strip(_BREAKS)
    return not (word.isdigit() and len(word) <= _MAX_ORDINAL_DIGITS and (is_list_number or dotted_ordinals))


def _source_spans(clean: CleanText, sentences: Sequence[tuple[int, int, Pause]]) -> Iterator[tuple[int, int]]:
    for start, end, _ in sentences:
        first, last = start, end
        while first < last and clean.text[first] in _BREAKS:
            first += 1
        while last > first and clean.text[last - 1] in _BREAKS:
            last -= 1
        if first < last and is_speakable(clean.text[first:last]):
            yield clean.starts[first], clean.ends[last - 1]


# --- pieces


class _Ruler:
    """Measures stretches of one clean text, each in constant time or nearly so."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._weights = [0, *accumulate(_WIDE_WEIGHT if _is_wide(char) else _LETTER_WEIGHT for char in text)]

    def weight(self, start: int, end: int) -> int:
        return self._weights[end] - self._weights[start]

    def spoken_weight(self, start: int, end: int) -> int:
        return self.weight(*self.spoken_span(start, end))

    def spoken_span(self, start: int, end: int) -> tuple[int, int]:
        """What an engine gets of `text[start:end]`: first letter or digit to last, and the signs beside them."""
        first, last = start, end
        while first < end and not is_speakable(self.text[first]):
            first += 1
        while last > first and not is_speakable(self.text[last - 1]):
            last -= 1
        if first == last:
            return start, start
        before = self.text[max(start, first - _UNSPOKEN_EDGE_CHARS) : first]
        after = self.text[last : min(end, last + _UNSPOKEN_EDGE_CHARS)]
        return first - len(_LINES.split(before)[-1].lstrip()), last + len(_LINES.split(after)[0].rstrip())

    def is_silent(self, start: int, end: int) -> bool:
        return not any(is_speakable(char) for char in self.text[start:end])


def _is_wide(char: str) -> bool:
    return script_of(char) in (HAN, KANA, HANGUL)


def _with_languages(
    text: str, sentences: Sequence[tuple[int, int, Pause]], language: str, available: Sequence[str]
) -> list[_Piece]:
    if language != AUTO_LANGUAGE:
        return [_Piece(start, end, language, pause) for start, end, pause in sentences]
    japanese_text = is_japanese(text)
    fallback = find_language(_FALLBACK_LANGUAGE, available) or next(iter(available), _FALLBACK_LANGUAGE)
    current = detect_language(text, japanese_text=japanese_text, available=available) or fallback
    pieces = []
    for start, end, pause in sentences:
        # A sentence of digits alone is read in the language of the one before.
        current = detect_language(text[start:end], japanese_text=japanese_text, available=available) or current
        pieces.append(_Piece(start, end, current, pause))
    return pieces


def _merge_unspeakable(ruler: _Ruler, pieces: Sequence[_Piece]) -> list[_Piece]:
    """Give a piece without a letter or digit to the piece before it, at the front of the text to the piece after it."""
    merged: list[_Piece] = []
    for piece in pieces:
        if merged and ruler.is_silent(piece.start, piece.end):
            merged[-1] = replace(merged[-1], end=piece.end, pause=max(merged[-1].pause, piece.pause))
        elif len(merged) == 1 and ruler.is_silent(merged[0].start, merged[0].end):
            merged[0] = replace(piece, start=merged[0].start)
        else:
            merged.append(piece)
    return merged


def _merge_tiny(ruler: _Ruler, pieces: Sequence[_Piece]) -> list[_Piece]:
    """Join a very short sentence to the next one, or else to the one before: engines speak lone words badly."""
    forward: list[_Piece] = []
    for piece in pieces:
        if forward and _is_tiny(ruler, forward[-1]) and _may_join(ruler, forward[-1], piece, first=len(forward) == 1):
            forward[-1] = replace(piece, start=forward[-1].start)
        else:
            forward.append(piece)
    merged: list[_Piece] = []
    for piece in forward:
        if merged and _is_tiny(ruler, piece) and _may_join(ruler, merged[-1], piece, first=len(merged) == 1):
            merged[-1] = replace(piece, start=merged[-1].start)
        else:
            merged.append(piece)
    return merged


def _may_join(ruler: _Ruler, before: _Piece, after: _Piece, *, first: bool) -> bool:
    """Whether two neighbours share a line and a language and stay within the cap together."""
    return (
        before.language == after.language
        and ruler.text[before.end - 1] not in (LINE_BREAK, PARAGRAPH_BREAK)
        and ruler.spoken_weight(before.start, after.end) <= _cap(first=first)
    )


def _is_tiny(ruler: _Ruler, piece: _Piece) -> bool:
    return ruler.spoken_weight(piece.start, piece.end) < _TINY_SENTENCE_CHARS * _LETTER_WEIGHT


def _cap(*, first: bool) -> int:
    return (MAX_FIRST_SEGMENT_CHARS if first else MAX_SEGMENT_CHARS) * _LETTER_WEIGHT


def _limit_lengths(ruler: _Ruler, pieces: Sequence[_Piece]) -> list[_Piece]:
    limited: list[_Piece] = []
    for piece in pieces:
        start = piece.start
        while ruler.spoken_weight(start, piece.end) > _cap(first=not limited):
            cut, pause = _find_cut(ruler, start, piece.end, _cap(first=not limited))
            limited.append(replace(piece, start=start, end=cut, pause=pause))
            start = cut
        limited.append(replace(piece, start=start))
    return limited


def _find_cut(ruler: _Ruler, start: int, end: int, cap: int) -> tuple[int, Pause]:
    """Where to cut `text[start:end]`, heavier than `cap`, and the pause there.

    The best kind of place wins (see `_cut_kind`) if it leaves at least a third of the cap before it; of one kind, the
    place nearest to the aim: the cap, or half of a rest that fits in two pieces.
    """
    first, last = ruler.spoken_span(start, end)
    total = ruler.weight(first, last)
    aim = total // 2 if total <= 2 * cap else cap
    place = first + 1
    candidates: list[tuple[bool, int, int, int]] = []
    while place < last and (weight := ruler.weight(first, place)) <= cap:
        if is_grapheme_start(ruler.text, place):
            candidates.append((weight * 3 < cap, _cut_kind(ruler.text, place), abs(aim - weight), place))
        place += 1
    if not candidates:
        return max(place - 1, first + 1), Pause.NONE
    _, kind, _, best = min(candidates)
    return best, Pause.CLAUSE if kind <= _AFTER_COMMA else Pause.NONE


_AFTER_TERMINATOR, _AFTER_COMMA, _AFTER_SPACE, _BETWEEN_WIDE, _INSIDE_WORD = range(5)


def _cut_kind(text: str, place: int) -> int:
    """How well the text may be cut before `place`; less is better."""
    before, after = text[place - 1], text[place]
    if before in _BREAKS:
        sign = text[place - 2 : place - 1]
        if sign and sign in _TERMINATORS:
            return _AFTER_TERMINATOR
        return _AFTER_COMMA if sign and sign in _COMMAS else _AFTER_SPACE
    if after in _BREAKS or unicodedata.category(after)[0] == "P":
        return _INSIDE_WORD  # a sign stays with the word before it, and the better place is after the space
    if before in _WIDE_TERMINATORS:
        return _AFTER_TERMINATOR
    if before in _WIDE_COMMAS:
        return _AFTER_COMMA
    return _BETWEEN_WIDE if _is_wide(before) or _is_wide(after) else _INSIDE_WORD


# --- runs

_PRIMARY = "primary"  # kind of letters that the sentence's own language is written in


@dataclass(frozen=True, slots=True)
class _RunLanguages:
    """What the engine speaks, and what of it in one call."""

    available: Sequence[str]
    mixed: frozenset[str]

    def within(self, primary: str, foreign: str | None) -> str:
        """The language of a foreign stretch in a sentence of `primary`."""
        together = foreign in self.mixed and primary in self.mixed
        return primary if foreign is None or together else foreign


def _scripts(text: str, pronunciations: Sequence[tuple[str, str]]) -> list[str | None]:
    """The script of each character, a word with a pronunciation counting as its spoken form."""
    scripts = [script_of(char) for char in text]
    for written, spoken in pronunciations:
        script = next((script for char in spoken if (script := script_of(char)) is not None), None)
        word = clean_text(written).text.strip(_BREAKS)
        if not word or script is None:
            continue
        for match in re.finditer(re.escape(word), text, re.IGNORECASE):
            start, end = match.span()
            if not _is_inside_word(text, start) and not _is_inside_word(text, end):
                scripts[start:end] = [script] * (end - start)
    return scripts


def _is_inside_word(text: str, place: int) -> bool:
    if not 0 < place < len(text):
        return False
    scripts = script_of(text[place - 1]), script_of(text[place])
    return None not in scripts and scripts[0] == scripts[1] and not _is_wide(text[place])


def _runs(
    clean: CleanText, span: tuple[int, int], primary: str, scripts: Sequence[str | None], languages: _RunLanguages
) -> Iterator[Run]:
    """Cut `span` where the language changes. Signs, digits and spaces go with the letters before them."""
    start, end = span
    language: str | None = None
    for place, group_language in _letter_groups(clean.text, span, primary, scripts, languages):
        if language is not None and group_language != language:
            yield _run(clean, start, place, language)
            start = place
        language = group_language
    yield _run(clean, start, end, language or primary)


def _run(clean: CleanText, start: int, end: int, language: str) -> Run:
    text = clean.text[start:end].rstrip(_BREAKS).replace(LINE_BREAK, " ").replace(PARAGRAPH_BREAK, " ")
    end = start + len(text)
    return Run(text, language, clean.starts[start:end], clean.ends[start:end])


def _letter_groups(
    text: str, span: tuple[int, int], primary: str, scripts: Sequence[str | None], languages: _RunLanguages
) -> Iterator[tuple[int, str]]:
    """Where letters of another kind begin in `span`, and the language to speak them in."""
    groups: list[tuple[str, list[int]]] = []
    for index in range(*span):
        script = scripts[index]
        if script is None:
            continue
        kind = _PRIMARY if reads_script(primary, script) else HAN if script == KANA else script
        if not groups or groups[-1][0] != kind:
            groups.append((kind, []))
        groups[-1][1].append(index)
    for kind, indices in groups:
        language = None
        # A single foreign letter, as in "T恤" or "α", is a symbol of the language around it.
        if kind != _PRIMARY and (len(indices) > 1 or kind in (HAN, HANGUL)) and is_speakable(text[indices[0]]):
            with_kana = any(scripts[index] == KANA for index in indices)
            language = language_of_script(kind, with_kana=with_kana, available=languages.available)
        yield indices[0], languages.within(primary, language)
