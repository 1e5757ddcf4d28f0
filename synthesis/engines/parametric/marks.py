"""When each word of the text sounds: espeak-ng's events joined with the words of the text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from synthesis.engines.base import Mark
from synthesis.engines.parametric.espeak import EspeakEvent
from synthesis.engines.parametric.front_end import SpokenWord


@dataclass(frozen=True, slots=True)
class _Group:
    """Words that espeak-ng announced together ("of the"), and the sample at which they begin."""

    sample: int
    words: list[SpokenWord]


def place_words(words: Sequence[SpokenWord], events: Sequence[EspeakEvent], sample_count: int) -> list[Mark]:
    """A mark for each word, in order and without overlap, in samples of the speech that the events belong to.

    Words said in one breath share its time by the length of their spoken text. Silence before the next word belongs
    to no word.
    """
    groups = _group(words, events)
    pauses = _find_pauses(events, sample_count)
    marks: list[Mark] = []
    for index, group in enumerate(groups):
        end = groups[index + 1].sample if index + 1 < len(groups) else sample_count
        end = _trim_pause(group.sample, max(end, group.sample), pauses)
        lengths = [max(1, word.spoken_end - word.spoken_start) for word in group.words]
        done = 0
        for word, length in zip(group.words, lengths, strict=True):
            start = group.sample + (end - group.sample) * done // sum(lengths)
            done += length
            stop = group.sample + (end - group.sample) * done // sum(lengths)
            marks.append(Mark("word", word.text_start, word.text_end, start, stop))
    return marks


def _group(words: Sequence[SpokenWord], events: Sequence[EspeakEvent]) -> list[_Group]:
    positions: list[int] = []
    samples: list[int] = []
    for event in events:
        # A number or a spelled word is announced again and again at its place: the first time counts.
        if event.kind == "word" and (not positions or event.text_position > positions[-1]):
            positions.append(event.text_position)
            samples.append(event.sample)
    if not positions:
        return [_Group(0, list(words))]
    groups: list[_Group] = []
    current = -1
    for word in words:
        index = bisect_right(positions, word.spoken_end - 1) - 1  # the last event that is not behind the word,
        first_inside = bisect_right(positions, word.spoken_start - 1)  # but rather the first one within it
        index = max(0, min(index, first_inside))
        if index > current or not groups:
            groups.append(_Group(samples[index], []))
            current = index
        groups[-1].words.append(word)
    return groups


def _find_pauses(events: Sequence[EspeakEvent], sample_count: int) -> list[tuple[int, int]]:
    """Silent stretches, neighbours joined."""
    phonemes = [event for event in events if event.kind == "phoneme"]
    ends = [*(event.sample for event in phonemes), sample_count][1:]
    pauses: list[tuple[int, int]] = []
    for event, end in zip(phonemes, ends, strict=True):
        if event.name or end <= event.sample:
            continue
        if pauses and pauses[-1][1] == event.sample:
            pauses[-1] = (pauses[-1][0], end)
        else:
            pauses.append((event.sample, end))
    return pauses


def _trim_pause(start: int, end: int, pauses: Sequence[tuple[int, int]]) -> int:
    """`end`, or the start of the pause that lasts until then."""
    for pause_start, pause_end in pauses:
        if start < pause_start < end <= pause_end:
            return pause_start
    return end
