"""English number words, grouped and joined as the library `inflect` does, which wrote the models' training texts."""

from __future__ import annotations

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_THOUSANDS = (
    "", " thousand", " million", " billion", " trillion", " quadrillion", " quintillion", " sextillion", " septillion",
    " octillion", " nonillion", " decillion",
)  # fmt: skip
_IRREGULAR_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
LONGEST_DIGITS = 3 * len(_THOUSANDS)


def read_digits(digits: str) -> str:
    return " ".join(_ONES[int(digit)] for digit in digits)


def cardinal(digits: str, *, has_and: bool) -> str:
    """`digits` are ASCII; more than LONGEST_DIGITS of them are read one by one. `has_and`: one hundred and one."""
    digits = digits.lstrip("0") or "0"
    if len(digits) > LONGEST_DIGITS:
        return read_digits(digits)
    groups = [int(digits[max(end - 3, 0) : end]) for end in range(len(digits), 0, -3)]
    parts = [_below_thousand(group, has_and=has_and) + _THOUSANDS[place] for place, group in enumerate(groups) if group]
    if not parts:
        return _ONES[0]
    parts.reverse()
    last = groups[0]
    if len(parts) > 1 and 0 < last < 100:
        parts[-2:] = [parts[-2] + (" and " if has_and else " ") + parts[-1]]
    return ", ".join(parts)


def ordinal(digits: str) -> str:
    words = cardinal(digits, has_and=True)
    start = max(words.rfind(" "), words.rfind("-")) + 1
    last = words[start:]
    if last in _IRREGULAR_ORDINALS:
        return words[:start] + _IRREGULAR_ORDINALS[last]
    return words[:-1] + "ieth" if last.endswith("y") else words + "th"


def year(number: int) -> str:
    """A number from 1001 to 2999 as years are said: nineteen oh five, twenty ten, two thousand nine."""
    if number == 2000:
        return "two thousand"
    if 2000 < number < 2010:
        return f"two thousand {_ONES[number % 100]}"
    century, rest = divmod(number, 100)
    if rest == 0:
        return f"{_below_thousand(century, has_and=False)} hundred"
    return (
        f"{_below_thousand(century, has_and=False)} {'oh ' if rest < 10 else ''}{_below_thousand(rest, has_and=False)}"
    )


def _below_thousand(number: int, *, has_and: bool) -> str:
    hundreds, rest = divmod(number, 100)
    tens, ones = divmod(rest, 10)
    words = f"{_ONES[hundreds]} hundred" if hundreds else ""
    if rest:
        below_hundred = _ONES[rest] if rest < 20 else _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")
        words += (" and " if has_and else " ") * bool(hundreds) + below_hundred
    return words
