"""What is counted and what it costs."""

from __future__ import annotations

import ast
import unicodedata
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import rating

BILLING = Path(rating.__file__).parent


@pytest.mark.parametrize(
    ("text", "chars"),
    [
        ("", 0),
        ("1234", 4),  # not "one thousand two hundred and thirty-four"
        ("cafe\u0301", 4),  # decomposed
        ("caf\u00e9", 4),  # composed
        ("\u1112\u1161\u11ab", 1),  # Hangul letters of one syllable
        ("你好，世界。", 6),
        ("a\nb\tc\r\n\x00\x7f\x85", 3),  # control characters are free
        ("a b", 3),
        ("a\u200bb\u00ad", 4),  # invisible format characters count
        ("👩\u200d🚀", 3),
        ("\u2028\u2029", 2),  # separators, not controls
        ("e\x00\u0301", 2),  # composed first, then controls removed
    ],
)
def test_billable_chars(text: str, chars: int) -> None:
    assert rating.billable_chars(text) == chars


@given(st.text(alphabet=st.characters()))
def test_billable_chars_follows_its_definition(text: str) -> None:
    normal = unicodedata.normalize("NFC", text)
    assert rating.billable_chars(text) == len([char for char in normal if unicodedata.category(char) != "Cc"])
    assert rating.billable_chars(unicodedata.normalize("NFD", text)) == rating.billable_chars(
        unicodedata.normalize("NFC", unicodedata.normalize("NFD", text))
    )


@given(units=st.integers(0, 10**12), price=st.integers(0, 10**9))
def test_a_price_is_exact(units: int, price: int) -> None:
    micros = rating.rate_micros(units=units, unit_price_micros=price)
    assert Fraction(micros, 10**6) == units * Fraction(price, 10**6)


@given(st.integers(-(2**63), 2**63 - 1))
def test_an_amount_is_shown_exactly(micros: int) -> None:
    shown = rating.format_amount(micros)
    assert Decimal(shown) * 10**6 == micros
    assert len(shown.partition(".")[2]) == 6


@pytest.mark.parametrize("path", sorted(BILLING.rglob("*.py")), ids=lambda path: str(path.relative_to(BILLING)))
def test_money_is_never_a_float(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), node.lineno
        assert not (isinstance(node, ast.Name | ast.Attribute) and "float" in ast.unparse(node).lower()), node.lineno
        assert not (isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)), node.lineno
