"""What is counted and what it costs: pure rules, integers only.

Money is an integer of micro-units of its currency (1 EUR = 1,000,000) until it is shown to people.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MICROS_PER_UNIT: Final = 1_000_000

# Unicode's category Cc: closed by the standard's stability policy, so this range is all of it for ever.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def billable_chars(text: str) -> int:
    """Unicode code points of `text` after NFC and without control characters.

    Line breaks and tabs are control characters (Cc) and therefore free; blanks, punctuation and invisible format
    characters count. Nothing is spoken out before: "1234" is 4. A composed and a decomposed "é" are both 1.
    """
    return len(_CONTROL.sub("", unicodedata.normalize("NFC", text)))


def rate_micros(*, units: int, unit_price_micros: int) -> int:
    """The price of `units`, in micro-units. Whole numbers on both sides: there is nothing to round."""
    return units * unit_price_micros


def format_amount(micros: int) -> str:
    """Micro-units as a decimal string with six places: -1_500_000 is "-1.500000"."""
    whole, fraction = divmod(abs(micros), MICROS_PER_UNIT)
    return f"{'-' if micros < 0 else ''}{whole}.{fraction:06d}"
