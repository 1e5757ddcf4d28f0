"""What is said for a text, and where each word of it stands."""

from __future__ import annotations

import pytest

from synthesis.engines.base import Pronunciation
from synthesis.engines.parametric.espeak import EspeakEvent
from synthesis.engines.parametric.front_end import SpokenWord, plan_speech
from synthesis.engines.parametric.japanese import to_hiragana
from synthesis.engines.parametric.languages import LANGUAGES
from synthesis.engines.parametric.marks import place_words


def plan(text: str, language: str, *pronunciations: tuple[str, str]) -> list[tuple[str, str, list[str]]]:
    """Language, spoken text and the words' originals, for each run."""
    entries = tuple(Pronunciation(written, spoken) for written, spoken in pronunciations)
    return [
        (run.language.code, run.text, [text[word.text_start : word.text_end] for word in run.words])
        for run in plan_speech(text, LANGUAGES[language], entries)
    ]


def test_japanese_is_read_in_kana_with_particles_as_spoken() -> None:
    text = "今日は東京へ行きます。"
    ((code, spoken, words),) = plan(text, "ja")
    assert code == "ja"
    assert spoken.replace(" ", "") == "きょおわとおきょおえいきます。"
    assert words == ["今日", "は", "東京", "へ", "行き", "ます"]


def test_japanese_numbers_stay_one_word() -> None:
    text = "りんごを 120個ください。"
    ((_, spoken, words),) = plan(text, "ja")
    assert spoken.replace(" ", "") == "りんごをひゃくにじゅっこください。"
    assert words == ["りんご", "を", "120", "個", "ください"]


def test_long_vowels_are_written_out() -> None:
    assert to_hiragana("ラーメントコーヒー") == "らあめんとこおひい"
    assert to_hiragana("ー") == ""


def test_latin_words_in_japanese_are_read_in_english() -> None:
    assert [(code, words) for code, _, words in plan("これは music です。", "ja")] == [
        ("ja", ["これ", "は"]),
        ("en", ["music"]),
        ("ja", ["です"]),
    ]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Hello 世界!", "en", [("en", ["Hello"]), ("zh", ["世", "界"])]),
        ("我喜欢 coffee 和茶", "zh", [("zh", ["我", "喜", "欢", "coffee", "和", "茶"])]),
        ("Он сказал hello", "ru", [("ru", ["Он", "сказал", "hello"])]),
        ("say привет", "en", [("en", ["say"]), ("ru", ["привет"])]),
        ("Tokyo は 東京", "en", [("en", ["Tokyo"]), ("ja", ["は", "東京"])]),
    ],
)
def test_foreign_scripts_get_a_voice_that_reads_them(
    text: str, language: str, expected: list[tuple[str, list[str]]]
) -> None:
    assert [(code, words) for code, _, words in plan(text, language)] == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's $3.50, isn't it?", ["It's", "$3.50", "isn't", "it"]),
        ("l’école d'été", ["l’école", "d'été"]),
        ("well-known - and 'quoted'", ["well", "known", "and", "quoted"]),
        ("50% of 1,000", ["50%", "of", "1,000"]),
        ("\ud800 a\x00b \U0001f600", ["a", "b"]),
    ],
)
def test_words_of_spaced_languages(text: str, words: list[str]) -> None:
    ((_, spoken, found),) = plan(text, "en")
    assert found == words
    assert "\x00" not in spoken
    spoken.encode()  # no lone surrogate is left


def test_pronunciations_replace_whole_words_whatever_their_case() -> None:
    text = "SQL and sql, but MySQL stays."
    ((_, spoken, words),) = plan(text, "en", ("sql", "sequel"), ("stays", "goes on"))
    assert spoken == "sequel and sequel, but MySQL goes on."
    assert words == ["SQL", "and", "sql", "but", "MySQL", "stays"]


def test_the_longest_pronunciation_wins() -> None:
    ((_, spoken, words),) = plan("New York is new", "en", ("new", "nyoo"), ("New York", "Gotham City"))
    assert spoken == "Gotham City is nyoo"
    assert words == ["New York", "is", "new"]


def test_pronunciations_match_inside_unspaced_writing() -> None:
    text = "重慶的路"
    ((_, spoken, words),) = plan(text, "zh", ("重慶", "虫庆"))
    assert spoken == "虫庆的路"
    assert words == ["重慶", "的", "路"]


def test_a_pronunciation_can_be_kana_inside_japanese() -> None:
    text = "明日は八代に行く"
    ((_, spoken, words),) = plan(text, "ja", ("八代", "ヤツシロ"))
    assert "やつしろ" in spoken.replace(" ", "")
    assert "八代" in words


def test_words_announced_together_share_their_time() -> None:
    words = [SpokenWord(0, 4, 0, 4), SpokenWord(5, 7, 5, 7), SpokenWord(8, 13, 8, 13)]
    events = [
        EspeakEvent("word", 0, 0, ""),
        EspeakEvent("phoneme", 0, 0, "t"),
        EspeakEvent("word", 8, 600, ""),
        EspeakEvent("phoneme", 8, 600, "m"),
        EspeakEvent("phoneme", 8, 900, ""),
    ]
    marks = place_words(words, events, 1000)
    assert [(mark.start_sample, mark.end_sample) for mark in marks] == [(0, 400), (400, 600), (600, 900)]


def test_a_word_announced_twice_begins_once() -> None:
    words = [SpokenWord(0, 2, 0, 2), SpokenWord(3, 5, 3, 5)]
    events = [EspeakEvent("word", 0, 10, ""), EspeakEvent("word", 1, 50, ""), EspeakEvent("word", 3, 90, "")]
    marks = place_words(words, events, 200)
    assert [(mark.start_sample, mark.end_sample) for mark in marks] == [(10, 90), (90, 200)]
