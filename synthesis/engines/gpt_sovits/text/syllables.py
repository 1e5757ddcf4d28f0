"""Mandarin syllables, and the two phones each is made of."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from synthesis.engines.gpt_sovits.text.symbols import MANDARIN_FINALS, UNKNOWN

NEUTRAL = 5
NO_TONE = 0  # a punctuation mark, or a character whose reading is not known

_SHORT_FINALS = {"uei": "ui", "iou": "iu", "uen": "un"}  # as they are written after an initial
_WHOLE_FINALS = {"ie": "E", "ian": "En", "i": "i", "in": "in", "ing": "ing", "u": "u"}  # after y or w
_BARE_INITIALS = {"a": "AA", "e": "EE", "o": "OO"}
# Interjections that are no regular syllables, by the nearest one; and spellings that other tables use.
_RESPELLED = {
    "m": "mu",
    "n": "en",
    "ng": "en",
    "hm": "hen",
    "hng": "heng",
    "ê": "ei",
    "r": "er",
    "lue": "lve",
    "nue": "nve",
}


@dataclass(frozen=True, slots=True)
class Syllable:
    """A character's reading: `initial` may be empty, `final` is pypinyin's strict final (`uei`, `v` for ü)."""

    initial: str
    final: str
    tone: int  # 1 - 4, NEUTRAL, NO_TONE

    @classmethod
    def of(cls, pinyin: str) -> Syllable:
        """`pinyin` has its tone as a digit at the end (`zhong1`, `lv4`); anything else has no tone and no phones."""
        letters, digit = pinyin[:-1], pinyin[-1:]
        if digit not in set("12345") or not letters:
            return cls("", "", NO_TONE)
        letters = _RESPELLED.get(letters, letters)
        convert = importlib.import_module("pypinyin.contrib.tone_convert")
        final = convert.to_finals_tone3(letters + digit, neutral_tone_with_five=True)
        return cls(convert.to_initials(letters + digit), final[:-1], int(digit))

    def phones(self) -> tuple[str, str]:
        """Initial and final with tone, as upstream's table opencpop-strict.txt spells them; (UNK, UNK) if it cannot."""
        initial, final = self._spelled()
        if final not in MANDARIN_FINALS or self.tone == NO_TONE:
            return UNKNOWN, UNKNOWN
        return initial, f"{final}{self.tone}"

    def _spelled(self) -> tuple[str, str]:
        final = self.final
        if self.initial:
            if final == "i" and self.initial in ("zh", "ch", "sh", "r"):
                return self.initial, "ir"
            if final == "i" and self.initial in ("z", "c", "s"):
                return self.initial, "i0"
            return self.initial, _SHORT_FINALS.get(final, final)
        head = final[:1]
        if head in _BARE_INITIALS:
            return _BARE_INITIALS[head], final
        if head == "v":
            return "y", final
        return "y" if head == "i" else "w", _WHOLE_FINALS.get(final, final[1:])
