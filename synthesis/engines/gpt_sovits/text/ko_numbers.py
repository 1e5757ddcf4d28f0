"""Numbers in Korean: Sino-Korean, or native before the counters that want it."""

from __future__ import annotations

_DIGITS = "영일이삼사오육칠팔구"
_NATIVE_ONES = ("", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉")
_NATIVE_TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")
_PLACES = ("", "십", "백", "천")
_MYRIADS = ("", "만", "억", "조")
_LONGEST = len(_PLACES) * len(_MYRIADS)  # digits; more are read one by one


def read_digits(digits: str) -> str:
    return "".join(_DIGITS[int(digit)] for digit in digits)


def read_number(digits: str, *, native: bool) -> str:
    """`digits` are ASCII digits with or without commas. Native words exist for the last two of them only."""
    digits = digits.replace(",", "")
    if digits == "0":
        return _DIGITS[0]
    if native and digits == "20":
        return "스무"
    if len(digits) > _LONGEST:
        return read_digits(digits)
    groups = reversed(list(enumerate(range(len(digits), 0, -4))))
    spoken = "".join(
        _read_group(digits[max(end - 4, 0) : end], myriad, native=native and myriad == 0) for myriad, end in groups
    )
    return spoken or read_digits(digits)  # nothing but zeros


def _read_group(group: str, myriad: int, *, native: bool) -> str:
    """Up to four digits and the name of their myriad."""
    words = []
    for place, digit in enumerate(reversed(group)):
        value = int(digit)
        if native and place < 2:
            words.append((_NATIVE_ONES, _NATIVE_TENS)[place][value])
        elif value == 1 and (place > 0 or myriad == 1):
            words.append(_PLACES[place])  # ten, a hundred, ten thousand: no "one" before them
        elif value > 0:
            words.append(_DIGITS[value] + _PLACES[place])
    spoken = "".join(reversed(words))
    return spoken + _MYRIADS[myriad] if any(digit != "0" for digit in group) else ""
