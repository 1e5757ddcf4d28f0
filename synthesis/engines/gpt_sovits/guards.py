"""Is it speech? What can be told from the codes and the wave alone, without attention weights.

The text-to-semantic model fails in three ways that users notice: it does not stop, it repeats itself, or it swallows
words. Each shows in plain numbers. The bounds are wide: they are to catch a failure, not to judge a slow speaker.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthesis.engines.base import Samples
from synthesis.engines.gpt_sovits.config import CODE_RATE_HZ

# Codes (40 ms) per phone. Read speech has 8 to 15 phones a second, 1.7 to 3 codes each; the slowest clear speech about
# 4 a second; nobody articulates more than 25.
_MOST_CODES_PER_PHONE = 7.0
_FEWEST_CODES_PER_PHONE = 0.6
_FEWEST_COUNTED_PHONES = 10  # below, a sentence may be a single short word between pauses
_PAUSES_CODES = 3 * CODE_RATE_HZ  # silence around and inside one segment comes on top of the phones

# A loop: the same codes again and again. Codes are one of 1,024 for each 40 ms, so natural speech hardly ever repeats a
# stretch exactly; only a held pause repeats a single code.
_LOOP_PERIOD_CODES = 2 * CODE_RATE_HZ  # the longest phrase looked for
_LOOP_CODES = 3 * CODE_RATE_HZ // 2  # how long the repetition lasts before it counts, and at least four rounds
_LOOP_ROUNDS = 4
_PAUSE_CODES = 5 * CODE_RATE_HZ // 2  # the same for a single code: 2.5 s

_SILENCE_RMS = 10 ** (-60 / 20)  # of full scale
_BLOCK_SECONDS = 0.02
_LONGEST_SILENCE_SECONDS = 3.0
_SMALLEST_VOICED_SHARE = 0.1


class Defect(enum.StrEnum):
    """What is wrong with a segment."""

    RUNAWAY = "runaway"  # did not stop
    LOOP = "loop"  # said the same again and again
    MISSING = "missing_speech"  # too short for its text
    SILENT = "silent"  # sound without speech in it
    NOT_A_NUMBER = "not_a_number"


@dataclass(frozen=True, slots=True)
class CodeLimits:
    """How many codes a text may take: more is a runaway, fewer are missing words."""

    fewest: int
    most: int

    @classmethod
    def for_phones(cls, phones: int, most: int) -> CodeLimits:
        """`phones` of the text alone, without the prompt's; `most`: what the model can do at all."""
        fewest = round(_FEWEST_CODES_PER_PHONE * phones) if phones >= _FEWEST_COUNTED_PHONES else 1
        return cls(fewest=fewest, most=min(most, round(_MOST_CODES_PER_PHONE * phones) + _PAUSES_CODES))


def loops(codes: Sequence[int]) -> bool:
    """Whether `codes` end in a stretch that repeats itself. Cheap: meant to be asked while codes come."""
    recent = np.asarray(codes[-max(_LOOP_ROUNDS * _LOOP_PERIOD_CODES, _PAUSE_CODES) :])
    held = _held_codes(recent)
    if held >= _PAUSE_CODES:
        return True
    for period in range(2, _LOOP_PERIOD_CODES + 1):
        needed = max(_LOOP_CODES, _LOOP_ROUNDS * period)
        tail = recent[-needed:]
        if held < period and len(tail) == needed and np.array_equal(tail[period:], tail[:-period]):
            return True
    return False


def judge_codes(codes: Sequence[int], limits: CodeLimits, *, ended: bool) -> Defect | None:
    """`ended`: the model stopped by itself."""
    if loops(codes):
        return Defect.LOOP
    if not ended:
        return Defect.RUNAWAY
    if len(codes) < limits.fewest:
        return Defect.MISSING
    return None


def _held_codes(codes: NDArray[np.int64]) -> int:
    """How often the last code was said in a row."""
    others = np.flatnonzero(codes != codes[-1:])
    return len(codes) - 1 - int(others[-1]) if others.size else len(codes)


class SilenceWatch:
    """Follows the wave of one segment in blocks of 20 ms: is there speech in it, and no hole?"""

    def __init__(self, sample_rate_hz: int) -> None:
        self._block = round(_BLOCK_SECONDS * sample_rate_hz)
        self._rest: Samples = np.zeros(0, dtype=np.float32)
        self._blocks = self._loud_blocks = self._quiet_run = self._longest_quiet_run = 0

    def push(self, samples: Samples) -> None:
        held = np.concatenate((self._rest, samples))
        whole = len(held) // self._block
        for rms in np.sqrt(np.mean(held[: whole * self._block].reshape(whole, self._block) ** 2, axis=1)):
            self._blocks += 1
            if rms > _SILENCE_RMS:
                self._loud_blocks += 1
                self._quiet_run = 0
            else:
                self._quiet_run += 1
                self._longest_quiet_run = max(self._longest_quiet_run, self._quiet_run)
        self._rest = held[whole * self._block :]

    @property
    def defect(self) -> Defect | None:
        if self._longest_quiet_run * _BLOCK_SECONDS > _LONGEST_SILENCE_SECONDS:
            return Defect.SILENT
        if self._blocks and self._loud_blocks < _SMALLEST_VOICED_SHARE * self._blocks:
            return Defect.SILENT
        return None
