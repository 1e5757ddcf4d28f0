"""Overrides match whole words, whatever script stands beside them."""

from __future__ import annotations

import pytest

from synthesis.engines.base import Pronunciation
from synthesis.engines.pronunciations import apply_pronunciations


@pytest.mark.parametrize(
    ("text", "written", "said"),
    [
        ("Made in the USA.", "usa", "Made in the X."),
        ("USAID helps", "USA", "USAID helps"),
        ("我在USA。", "USA", "我在X。"),
        ("USAの人", "USA", "Xの人"),
        ("ไปUSAไหม", "USA", "ไปXไหม"),
        ("éUSA", "USA", "éUSA"),
        ("3USA", "USA", "3USA"),
        ("한국USA", "USA", "한국USA"),
        ("重庆很热", "重庆", "X很热"),
    ],
)
def test_a_word_is_found_where_it_stands_alone(text: str, written: str, said: str) -> None:
    assert apply_pronunciations(text, [Pronunciation(written, "X")]).text == said
