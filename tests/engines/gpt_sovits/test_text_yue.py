from __future__ import annotations

import json
from pathlib import Path

import pytest

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.parity.report import GoldenSet
from synthesis.engines.gpt_sovits.parity.text_zh import check_cantonese
from synthesis.engines.gpt_sovits.text.symbols import SymbolTable
from synthesis.engines.gpt_sovits.text.yue import read_cantonese
from synthesis.engines.mapped_text import MappedText

GOLDEN = Path(__file__).parents[1] / "golden" / "open"


def test_reference_sentences_have_the_phones_of_the_reference():
    (case,) = check_cantonese(GoldenSet(GOLDEN, "text_yue"))
    assert case.error == 0, case.note


def test_reference_sentences_have_the_ids_and_counts_of_the_reference():
    for item in json.loads((GOLDEN / "text_yue.json").read_text(encoding="utf-8"))["items"]:
        found = read_cantonese(MappedText.of(item["text"]))
        assert found.norm_text == item["norm_text"]
        assert SymbolTable.V2.ids(found.symbols) == item["phone_ids"]
        assert list(found.phones_per_character or ()) == item["word2ph"]


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("呀", "Yaa Ya3"),  # a vowel alone is split in itself
        ("唔", "Ym Ym4"),
        ("我", "Yng Yo5"),
        ("瓜", "Ygw Yaa1"),
        ("10蚊", "Ys Yap6 Ym Yan1"),
        ("什麼", "Ys Yam6 Ym Yo1"),  # 麼 keeps its own reading, 么 is another word in Cantonese
        ("卅", "Ys Yaa1 Yaa Ya6"),  # one character, two syllables
        ("？！", "? !"),
    ],
)
def test_syllables_are_split_at_the_longest_listed_beginning(text, symbols):
    assert read_cantonese(MappedText.of(text)).symbols == tuple(symbols.split())


def test_a_character_without_a_reading_is_unknown_and_the_rest_is_read():
    found = read_cantonese(MappedText.of("乄好"))
    assert found.symbols == ("UNK", "UNK", "Yh", "You2")
    assert found.origins == ((0, 1), (0, 1), (1, 2), (1, 2))


@pytest.mark.parametrize("text", ["", " ", "😀", "hello", "\ud800"])
def test_nothing_to_say_is_an_error(text):
    with pytest.raises(UnspeakableTextError):
        read_cantonese(MappedText.of(text))
