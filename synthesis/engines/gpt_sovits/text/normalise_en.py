"""English text to words: numbers, times, money, measures and signs written out, everything else but letters dropped.

The rules and their order are those of upstream's text/en_normalization/expend.py. They differ where a rule there turns
ordinary text into other words: a dash between words is a pause and no minus, a curly apostrophe is kept (don't is not
dont), a number before a full stop is a list's ordinal only where a list item can begin (not the year at the end of a
sentence), 1990s is a decade and no measure of seconds, and the space before a negative number and the longest unit
(km/h) are kept.
"""

from __future__ import annotations

import re
import unicodedata

from synthesis.engines.gpt_sovits.text import numbers_en
from synthesis.engines.mapped_text import MappedText, Span

_UNITS = {
    "m": ("meter", "meters"),
    "km": ("kilometer", "kilometers"),
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "ft": ("feet", "feet"),
    "L": ("liter", "liters"),
    "tbsp": ("tablespoon", "tablespoons"),
    "tsp": ("teaspoon", "teaspoons"),
    "h": ("hour", "hours"),
    "min": ("minute", "minutes"),
    "s": ("second", "seconds"),
    "°C": ("degree celsius", "degrees celsius"),
    "°F": ("degree fahrenheit", "degrees fahrenheit"),
}
_OPERATORS = {"+": " plus ", "-": " minus ", "×": " times ", "÷": " divided by ", "=": " Equals "}
_POWERS = "[⁰¹²³⁴⁵⁶⁷⁸⁹ˣʸⁿ]*"
# Numbers are looked for from their first digit only: from every digit on, a long one would cost its length squared.
_OPERAND = rf"-?(?<![0-9])[0-9]+(?:\.[0-9]+)?{_POWERS}|\.[0-9]+{_POWERS}|(?<![A-Za-z])[A-Za-z](?![A-Za-z]){_POWERS}"

_FULL_WIDTH = {"。": ".", "！": "!", "？": "?", "’": "'", "…": " "}
_LIST_NUMBER = re.compile(r"(?:^|(?<=[.!?:;\n]))(\s*)([0-9]{1,2})\. ")
_OPERATION = re.compile(rf"({_OPERAND})\s+([+\-×÷=])\s+(?={_OPERAND})")
_RANGE = re.compile(r"(?<=[0-9])\s*–\s*(?=[0-9])")
_DASH = re.compile(r"\s*[—–]+\s*|\s+-+\s+")
_NEGATIVE = re.compile(r"(^|\s)\s*-([0-9])")
_WITH_COMMAS = re.compile(r"[0-9][0-9,]+[0-9]")
_TIME = re.compile(r"\b([01]?[0-9]|2[0-3]):([0-5][0-9])\b")
_DECADE = re.compile(r"\b([12][0-9][1-9])0s\b")
_MEASURE = re.compile(r"\b([0-9]+(?:\.[0-9]+)?)(" + "|".join(sorted(_UNITS, key=len, reverse=True)) + r")\b")
_POUNDS_BEFORE = re.compile(r"£([0-9.,]*[0-9])")
_POUNDS_BEHIND = re.compile(r"(?<![0-9.,])([0-9.,]*[0-9])£")
_DOLLARS_BEFORE = re.compile(r"\$([0-9.,]*[0-9])")
_DOLLARS_BEHIND = re.compile(r"(?<![0-9.,])([0-9.,]*[0-9])\$")
_DECIMAL = re.compile(r"(?<![0-9])([0-9]+)\.\s*([0-9]+)")
_FRACTION = re.compile(r"(?<![0-9])([0-9]+)/([0-9]+)")
_ORDINAL = re.compile(r"(?<![0-9])([0-9]+)(?:st|nd|rd|th)")
_NUMBER = re.compile(r"[0-9]+")
_PERCENT = re.compile("%")
_UNSAYABLE = re.compile(r"[^ A-Za-z'.,?!\-]+")
_ID_EST = re.compile(r"i\.e\.", re.IGNORECASE)
_EXEMPLI_GRATIA = re.compile(r"e\.g\.", re.IGNORECASE)
_INNER_CAPITAL = re.compile(r"(?<!^)(?<!\s)([A-Z])")
_REPEATED_PUNCTUATION = re.compile(r"([!?…,.\-\s])[!?…,.\-]+")


def normalise(text: MappedText) -> MappedText:
    """Letters, spaces and `' . , ? ! -` only."""
    text = text.translate(_FULL_WIDTH)
    text = text.substitute(_LIST_NUMBER, lambda match: f"{match[1]}{numbers_en.ordinal(match[2])}, ")
    text = text.substitute(_OPERATION, lambda match: match[1] + _OPERATORS[match[2]])
    text = text.substitute(_RANGE, " to ")
    text = text.substitute(_DASH, ", ")
    text = text.substitute(_NEGATIVE, r"\1negative \2")
    text = text.substitute(_WITH_COMMAS, lambda match: match[0].replace(",", ""))
    text = text.substitute(_TIME, _say_time)
    text = text.substitute(_DECADE, _say_decade)
    text = text.substitute(_MEASURE, _say_measure)
    for pattern in (_POUNDS_BEFORE, _POUNDS_BEHIND):
        text = text.substitute(pattern, lambda match: _say_money(match[1], "pound", "pounds", "penny", "pence"))
    for pattern in (_DOLLARS_BEFORE, _DOLLARS_BEHIND):
        text = text.substitute(pattern, lambda match: _say_money(match[1], "dollar", "dollars", "cent", "cents"))
    text = text.substitute(_DECIMAL, lambda match: f"{match[1]} point {' '.join(match[2])}")
    text = text.substitute(_FRACTION, _say_fraction)
    text = text.substitute(_ORDINAL, lambda match: numbers_en.ordinal(match[1]))
    text = text.substitute(_NUMBER, _say_number)
    text = _without_accents(text)
    text = text.substitute(_PERCENT, " percent")
    text = text.substitute(_UNSAYABLE, "")
    text = text.substitute(_ID_EST, "that is")
    text = text.substitute(_EXEMPLI_GRATIA, "for example")
    text = text.substitute(_INNER_CAPITAL, r" \1")
    return text.substitute(_REPEATED_PUNCTUATION, r"\1")


def _say_time(match: re.Match[str]) -> str:
    hour, minute = int(match[1]), int(match[2])
    half = "a.m." if hour < 12 else "p.m."
    spoken = numbers_en.cardinal(str(hour - 12 if hour > 12 else hour), has_and=False)
    past = numbers_en.cardinal(str(minute), has_and=False) if minute else "o'clock"
    return f"{spoken} {past} {half}"


def _say_decade(match: re.Match[str]) -> str:
    words = numbers_en.year(int(match[1] + "0"))
    return words[:-1] + "ies" if words.endswith("y") else words + "s"


def _say_measure(match: re.Match[str]) -> str:
    one, many = _UNITS[match[2]]
    return f"{match[1]} {one if match[1].lstrip('0') == '1' else many}"


def _say_money(amount: str, one: str, many: str, small: str, smalls: str) -> str:
    whole, *parts = amount.replace(",", "").split(".")
    if len(parts) > 1:
        return f"{amount} {many}"  # 1.2.3$: no sum of money
    big = whole.lstrip("0")
    cents = (parts[0].ljust(2, "0") if parts and parts[0] else "").lstrip("0")
    words = []
    if big:
        words.append(f"{big} {one if big == '1' else many}")
    if cents:
        words.append(f"{cents} {small if cents == '1' else smalls}")
    return " and ".join(words) or f"zero {many}"


def _say_fraction(match: re.Match[str]) -> str:
    above, below = (part.lstrip("0") or "0" for part in match.groups())
    spoken = numbers_en.cardinal(above, has_and=True)
    if below == "1":
        return spoken
    if below == "2":
        return f"{spoken} {'half' if above == '1' else 'halves'}"
    return f"{spoken} {numbers_en.ordinal(below)}{'' if above in ('0', '1') else 's'}"


def _say_number(match: re.Match[str]) -> str:
    digits = match[0].lstrip("0") or "0"
    if len(digits) == 4 and 1000 < int(digits) < 3000:
        return numbers_en.year(int(digits))
    return numbers_en.cardinal(digits, has_and=False)


def _without_accents(text: MappedText) -> MappedText:
    letters: list[str] = []
    origins: list[Span] = []
    for letter, span in zip(text.text, text.origins, strict=True):
        for part in unicodedata.normalize("NFD", letter):
            if unicodedata.category(part) != "Mn":
                letters.append(part)
                origins.append(span)
    return MappedText("".join(letters), tuple(origins))
