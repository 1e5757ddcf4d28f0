"""Rewriting a text keeps every character's place in the original."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from synthesis.engines.mapped_text import MappedText


def test_a_replacement_stands_for_what_it_replaced() -> None:
    mapped = MappedText.of("at 3 pm").substitute(re.compile(r"\d+"), "three")
    assert mapped.text == "at three pm"
    assert mapped.origins[3:8] == ((3, 4),) * 5
    assert mapped.origins[9:] == ((5, 6), (6, 7))


def test_what_a_replacement_keeps_stays_where_it_was() -> None:
    mapped = MappedText.of("10kg!").substitute(re.compile(r"10kg"), "10 kilograms")
    assert mapped.text == "10 kilograms!"
    assert mapped.origins[:2] == ((0, 1), (1, 2))
    assert mapped.origins[-1] == (4, 5)


def test_inserted_text_stands_for_its_neighbour() -> None:
    mapped = MappedText.of("OpenAI").substitute(re.compile(r"(?<=[a-z])(?=[A-Z])"), " ")
    assert mapped.text == "Open AI"
    assert mapped.origins[4] == (3, 4)
    assert MappedText.of("a").substitute(re.compile(r"^"), "x").origins == ((0, 1), (0, 1))
    assert MappedText.of("").substitute(re.compile(r"^"), "x").origins == ((0, 0),)


def test_translation_may_drop_and_widen() -> None:
    mapped = MappedText.of("a&b-c").translate({"&": " and ", "-": ""})
    assert mapped.text == "a and bc"
    assert mapped.origins[1:6] == ((1, 2),) * 5
    assert mapped.origins[-1] == (4, 5)


@given(st.text("ab1", max_size=12), st.text("abxy", max_size=4))
def test_origins_stay_in_order_and_inside(text: str, new: str) -> None:
    mapped = MappedText.of(text).substitute(re.compile(r"1+|(?=b)"), new)
    assert mapped.text == re.sub(r"1+|(?=b)", new, text)
    assert len(mapped.text) == len(mapped.origins)
    assert all(0 <= a <= b <= len(text) for a, b in mapped.origins)
    assert list(mapped.origins) == sorted(mapped.origins)
