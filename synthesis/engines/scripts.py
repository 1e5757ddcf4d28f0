"""Which script a letter belongs to."""

from __future__ import annotations

import unicodedata

# Written without spaces between words: an override may match inside a longer stretch.
UNSPACED_SCRIPTS = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "THAI", "LAO", "KHMER", "MYANMAR"})


def script_of(letter: str) -> str:
    """`LATIN`, `CJK`, ...: the first word of the letter's Unicode name; empty for what belongs to no script."""
    if not letter.isalpha():
        return ""
    return unicodedata.name(letter, "").split(" ", 1)[0].removesuffix("-HIRAGANA")
