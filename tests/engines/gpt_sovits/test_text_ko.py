from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.parity.report import GoldenSet
from synthesis.engines.gpt_sovits.parity.text_alphabetic import check_korean
from synthesis.engines.gpt_sovits.text.ko import read_korean
from synthesis.engines.gpt_sovits.text.ko_numbers import read_number
from synthesis.engines.gpt_sovits.text.symbols import SymbolTable
from synthesis.engines.mapped_text import MappedText

GOLDEN = Path(__file__).parents[1] / "golden" / "open"


def read(text):
    return read_korean(MappedText.of(text))


def spelled(text):
    """The phones as they would be written, for reading here: a pause is a blank."""
    return "".join(read(text).symbols).replace("空", " ")


def test_reference_sentences_have_the_phones_of_the_reference():
    (case,) = check_korean(GoldenSet(GOLDEN, "text_ko"))
    assert case.error == 0, case.note


def test_reference_sentences_have_the_ids_of_the_reference():
    for item in json.loads((GOLDEN / "text_ko.json").read_text(encoding="utf-8"))["items"]:
        found = read(item["text"])
        assert found.norm_text == item["norm_text"]
        assert SymbolTable.V2.ids(found.symbols) == item["phone_ids"]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("국물", "ㄱㅜㅇㅁㅜㄹ."),  # assimilation, rule 18; a text that ends in a letter gets a full stop
        ("신라", "ㅅㅣㄹㄹㅏ."),  # 20
        ("좋다!", "ㅈㅗㅌㅏ!"),  # 12
        ("굳이", "ㄱㅜㅈㅣ."),  # 17
        ("앉아", "ㅇㅏㄴㅈㅏ."),  # 14
        ("밟지", "ㅂㅏㅂㅉㅣ."),  # 10.1
        ("신고 갔다", "ㅅㅣㄴㄱㅗ ㄱㅏㄷㄸㅏ."),  # 23
        ("갈 곳", "ㄱㅏㄹ ㄲㅗㄷ."),  # 27: after an ending in ㄹ, which MeCab tells
        ("맑게", "ㅁㅏㄹㄲㅔ."),  # 11.1: of a verb, which MeCab tells
        ("색연필", "ㅅㅐㅇㄴㅣㅓㄴㅍㅣㄹ."),  # 29, a word of the list
        ("의사의 희망", "ㅇㅡㅣㅅㅏㅇㅡㅣ ㅎㅣㅁㅏㅇ."),
        ("왜 워", "ㅇㅗㅐ ㅇㅜㅓ."),  # compound vowels in two
        ("KBS", "ㅋㅔㅇㅣㅂㅣㅇㅔㅅㅡ."),
        ("사과 3개, 3분", "ㅅㅏㄱㅗㅏ ㅅㅔㄱㅐ, ㅅㅏㅁㅂㅜㄴ."),
        ("1,500원", "ㅊㅓㄴㅗㅂㅐㄱㅜㅓㄴ."),
        ("010", "ㅇㅣㅓㅇㅇㅣㄹㅣㅓㅇ."),
        ("안녕☆", "ㅇㅏㄴㄴㅣㅓㅇ停"),
    ],
)
def test_words_are_read_as_they_are_pronounced(written, said):
    assert spelled(written) == said


@pytest.mark.parametrize(
    ("digits", "native", "words"),
    [
        ("0", False, "영"),
        ("10", False, "십"),
        ("10000", False, "만"),
        ("123,456,789", False, "일억이천삼백사십오만육천칠백팔십구"),
        ("1600000000", False, "십육억"),
        ("20", True, "스무"),
        ("21", True, "스물한"),
        ("105", True, "백다섯"),
        ("00", False, "영영"),
        ("1" * 17, False, "일" * 17),
    ],
)
def test_numbers_are_sino_korean_or_native(digits, native, words):
    assert read_number(digits, native=native) == words


def test_phones_remember_the_syllables_they_say():
    text = "국물 3개."
    phones = read(text)
    said = [(symbol, text[slice(*span)]) for symbol, span in zip(phones.symbols, phones.origins, strict=True)]
    assert said[:4] == [("ㄱ", "국"), ("ㅜ", "국"), ("ㅇ", "국"), ("ㅁ", "물")]
    assert ("ㅅ", "3") in said
    assert said[-1] == (".", ".")
    assert phones.origins == tuple(sorted(phones.origins))


@pytest.mark.parametrize("text", ["", " ", "🙂", "你好", "\0\ud800"])
def test_nothing_to_say_is_an_error(text):
    with pytest.raises(UnspeakableTextError):
        read(text)


LETTERS = st.one_of(
    st.sampled_from("안녕하세요값닭읽없좋같이의꽃잎밟ㄱㄴㅏㅔ각ᆨᅡ 개살분월%,.!?abXY0123456789\0\ud800٣"),
    st.characters(),
    st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3),
)


@settings(max_examples=200, deadline=None)
@given(st.text(LETTERS, max_size=60))
def test_any_text_has_phones_of_the_table_in_the_order_of_the_text(text):
    try:
        phones = read(text)
    except UnspeakableTextError:
        return
    assert phones.symbols
    assert all(symbol in SymbolTable.V2 for symbol in phones.symbols)
    assert len(phones.origins) == len(phones.symbols)
    assert list(phones.origins) == sorted(phones.origins)
    assert all(0 <= start < end <= len(text) for start, end in phones.origins)


def test_long_numbers_are_read_in_reasonable_time():
    assert len(read("9" * 5000).symbols) > 5000
