from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthesis.text import LINE_BREAK, PARAGRAPH_BREAK, clean_text, continues_cluster, is_grapheme_start, is_speakable

ANY_TEXT = st.text(
    st.characters(codec=None) | st.sampled_from("e\u0301\u0323가\u1100\u1161\u11a8\u0958\r\n \u2029\u200d")
)


def test_composition_keeps_the_way_back_to_the_request():
    clean = clean_text("Cafe\u0301 de\u0301ja\u0300 vu")
    assert clean.text == "Café déjà vu"
    start = clean.text.index("déjà")
    assert (clean.starts[start], clean.ends[start + 3]) == (6, 12)


def test_removed_characters_leave_offsets_exact():
    text = "\ufeffso\u00adft\x07 \u200bend\ud800"
    clean = clean_text(text)
    assert clean.text == "soft end"
    assert [text[start:end] for start, end in zip(clean.starts, clean.ends, strict=True)] == list("soft end")


def test_white_space_becomes_space_line_or_paragraph():
    assert clean_text("a \t b\u3000c").text == "a b c"
    assert clean_text("a \r\n b").text == f"a{LINE_BREAK}b"
    assert clean_text("a\n \nb").text == f"a{PARAGRAPH_BREAK}b"


def test_every_character_that_composes_backwards_stays_in_its_cluster():
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<") and unicodedata.normalize("NFC", chr(code)) == chr(code):
            assert continues_cluster(chr(int(parts[1], 16))), hex(code)
    assert unicodedata.normalize("NFC", "\u1100\u1161\u11a8") == "각"
    assert clean_text("\u1100\u1161\u11a8").text == "각"


@given(ANY_TEXT)
def test_clean_text_is_composed_and_its_offsets_ascend(text):
    clean = clean_text(text)
    assert unicodedata.normalize("NFC", clean.text) == clean.text
    assert len(clean.starts) == len(clean.ends) == len(clean.text)
    assert all(0 <= start < end <= len(text) for start, end in zip(clean.starts, clean.ends, strict=True))
    assert list(clean.starts) == sorted(clean.starts)
    assert list(clean.ends) == sorted(clean.ends)
    assert clean_text(clean.text).text == clean.text


@pytest.mark.parametrize("text", ["a", "7", "你", "한", "ญ", "...a", "\u0915\u094d", "½"])
def test_letters_and_digits_are_speakable(text):
    assert is_speakable(text)


@pytest.mark.parametrize(
    "text", ["", "  \n", "?!…", "😀👍🏽", "—", "。！", "\u3164", "\u0301", "\ud800", "\0", "$", "🇫🇷"]
)
def test_signs_and_emoji_alone_are_not(text):
    assert not is_speakable(text)


@pytest.mark.parametrize(
    "cluster",
    [
        "x\u0301\u0323",
        "👩\u200d🚀",
        "👍🏽",
        "🇫🇷",
        "\u1100\u1161\u11a8",
        "\u0e19\u0e33",
        "\u0928\u093f",
        "1\ufe0f\u20e3",
    ],
)
def test_a_visible_character_is_one_piece(cluster):
    text = f"a{cluster}b"
    starts = [index for index in range(len(text) + 1) if is_grapheme_start(text, index)]
    assert starts == [0, 1, 1 + len(cluster), 2 + len(cluster)]


def test_flags_are_cut_in_pairs():
    text = "🇫🇷🇩🇪🇮🇹"
    assert [index for index in range(6) if is_grapheme_start(text, index)] == [0, 2, 4]
