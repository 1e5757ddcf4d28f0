"""Cutting long texts: equal to the reference, and every piece knows its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.parity.report import GoldenSet
from synthesis.engines.gpt_sovits.parity.text_mixed import CHECKERS
from synthesis.engines.gpt_sovits.text.split import collapse_punctuation, cut, halve, split_text
from synthesis.engines.mapped_text import MappedText

GOLDEN = Path(__file__).parents[1] / "golden" / "open"


def pieces_of(text, method, *, english=False):
    return split_text(MappedText.of(text), method, english=english)


def test_methods_and_pieces_equal_the_reference():
    cases = list(CHECKERS["text_split"](GoldenSet(GOLDEN, "text_split")))
    assert [case.name for case in cases] == ["text_split.cut", "text_split.pieces"]
    assert all(case.holds for case in cases)


def test_the_reference_check_notices_a_wrong_piece(tmp_path):
    description = json.loads((GOLDEN / "text_split.json").read_text(encoding="utf-8"))
    description["items"][0]["pre_seg"]["cut5"][0] += "。"
    (tmp_path / "text_split.json").write_text(json.dumps(description), encoding="utf-8")
    cuts, pieces = CHECKERS["text_split"](GoldenSet(tmp_path, "text_split"))
    assert (cuts.holds, pieces.holds) == (True, False)


@pytest.mark.parametrize("method", ["cut0", "cut1", "cut2", "cut3", "cut4", "cut5"])
def test_pieces_stand_where_they_were_written(method):
    text = "你好。我们走吧——现在就走！It costs 2.50. 好吗？天很冷，风也大，别忘了带伞。真的……" * 3
    position = 0
    for piece in pieces_of(text, method):
        for letter, (start, end) in zip(piece.text, piece.origins, strict=True):
            assert position <= start < end <= len(text)
            position = start
            if letter.isalnum():
                assert text[start:end] == letter


def test_inserted_marks_stand_for_their_neighbours():
    (piece,) = pieces_of("走吧。明天我们一起去山上看日出", "cut0")
    assert piece.text == "。走吧。明天我们一起去山上看日出。"
    assert (piece.origins[0], piece.origins[-1]) == ((0, 1), (14, 15))


def test_full_stop_of_the_language():
    (piece,) = pieces_of("Hi", "cut0", english=True)
    assert piece.text == ".Hi."


def test_pieces_under_five_characters_join_their_neighbours():
    assert [piece.text for piece in pieces_of("好的呀。嗯。现在走吧。嗯。", "cut5")] == [
        "好的呀。嗯。",
        "现在走吧。嗯。",
    ]


def test_numbers_are_not_cut():
    assert cut(MappedText.of("约3.14，对。1.5."), "cut5").text == "约3.14，\n对。\n1.5."


def test_repeated_marks_collapse_to_the_first():
    text = collapse_punctuation(MappedText.of("什么?!... 好--"))
    assert text.text == "什么? 好-"
    assert text.origins[:4] == ((0, 1), (1, 2), (2, 3), (7, 8))


def test_long_sentences_fit_bert():
    sentence = "天" * 300 + "，" + "地" * 300 + "。"
    assert [len(piece.text) for piece in pieces_of(sentence, "cut0")] == [301, 301]
    unbroken = pieces_of("人" * 1100, "cut0")
    assert [len(piece.text) for piece in unbroken] == [510, 510, 81]  # upstream hands BERT more than it can take
    assert sum(piece.text.count("人") for piece in unbroken) == 1100


@pytest.mark.parametrize("text", ["", "\n\n", "，。！", "……\n——"])
def test_text_of_marks_alone_has_no_pieces(text):
    assert pieces_of(text, "cut0") == []


def test_a_method_that_leaves_nothing_says_so():
    with pytest.raises(UnspeakableTextError):
        pieces_of("，。！", "cut5")


@pytest.mark.parametrize(
    ("text", "halves"),
    [
        ("one two three four", ("one two ", "three four")),
        ("一二三，四五六", ("一二三，", "四五六")),
        ("1234", ("12", "34")),
        ("a verylongwordattheend", ("a verylongw", "ordattheend")),
        ("1", None),
        ("ab", ("a", "b")),
        ("x...", None),
    ],
)
def test_halves_are_cut_where_a_pause_is(text: str, halves: tuple[str, str] | None) -> None:
    assert halve(text) == halves
