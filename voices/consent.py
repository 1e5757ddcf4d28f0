"""The words of consent. A text is never edited: a change is a new version, and rows name theirs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Statement:
    """`version` is blank when the words are the caller's own."""

    text: str
    version: str = ""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


GIVEN: Final = Statement(
    version="given-1",
    text=(
        "I am the speaker in this recording, or I act with the speaker's permission. The speaker agrees that a "
        "synthetic voice is made from the recording and that text of this account's choice is spoken in it, until "
        "consent is withdrawn or the voice is erased."
    ),
)
WITHDRAWN: Final = Statement(
    version="withdrawn-1",
    text="Consent to this voice is withdrawn: nothing more may be spoken in it.",
)
