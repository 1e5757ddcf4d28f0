from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthesis.languages import script_of
from synthesis.segmentation import MAX_FIRST_SEGMENT_CHARS, MAX_SEGMENT_CHARS, Pause, Segment, segment_text
from synthesis.text import is_speakable

AVAILABLE = ("de", "el", "en-us", "ja", "ko", "ru", "yue", "zh")
WORDS = st.sampled_from(
    ["Hello", "3.14", "你好世界", "カタカナ", "한국어", "привет", "e\u0301tude", "😀", "***", "Dr.", "a" * 90]
)
SIGNS = st.sampled_from([" ", ", ", ". ", "! ", "。", "，", "…", "\n", "\n\n", "", '?" ', "\u0301" * 12])
TEXTS = st.text(max_size=400) | st.lists(st.tuples(WORDS, SIGNS), max_size=80).map(
    lambda pairs: "".join(word + sign for word, sign in pairs)
)


def split(text: str, language: str = "en-us", **options: object) -> list[str]:
    return [text[segment.text_start : segment.text_end] for segment in segments(text, language, **options)]


def segments(text: str, language: str = "en-us", **options: object) -> tuple[Segment, ...]:
    return segment_text(text, language, available_languages=AVAILABLE, **options).segments  # type: ignore[arg-type]


def runs(text: str, language: str = "auto", **options: object) -> list[tuple[str, str]]:
    return [(run.language, run.text) for segment in segments(text, language, **options) for run in segment.runs]


def spoken_length(text: str) -> float:
    return sum(2.5 if script_of(char) in ("CJK", "KANA", "HANGUL") else 1 for char in text)


@settings(max_examples=300)
@given(TEXTS, st.sampled_from(["auto", "en-us", "zh", "ja"]))
def test_segments_partition_the_text_within_the_caps(text, language):
    found = segments(text, language)
    assert bool(found) == is_speakable(text)
    if found:
        assert "".join(text[segment.text_start : segment.text_end] for segment in found) == text
        assert all(segment.text_start < segment.text_end for segment in found)
    for index, segment in enumerate(found):
        cap = MAX_SEGMENT_CHARS if index else MAX_FIRST_SEGMENT_CHARS
        assert segment.runs
        assert all(is_speakable(run.text) for run in segment.runs)
        assert sum(spoken_length(run.text) for run in segment.runs) <= cap
        for run in segment.runs:
            assert segment.text_start <= run.starts[0] < run.ends[-1] <= segment.text_end
            assert len(run.text) == len(run.starts) == len(run.ends)


@given(TEXTS)
def test_no_letter_is_lost_or_said_twice(text):
    spoken = "".join(run.text for segment in segments(text) for run in segment.runs)
    expected = unicodedata.normalize("NFC", text)
    assert [char for char in spoken if is_speakable(char)] == [char for char in expected if is_speakable(char)]


def test_sentences_end_where_a_reader_ends_them():
    text = (
        'Mr. Brown paid $3.14, i.e. too much, to J. R. Smith. "Why is that?" he asked! '
        "See example.com for No. 5 of the list. The end… or maybe not quite the end."
    )
    assert split(text) == [
        "Mr. Brown paid $3.14, i.e. too much, to J. R. Smith. ",
        '"Why is that?" ',
        "he asked! See example.com for No. 5 of the list. ",
        "The end… or maybe not quite the end.",
    ]


def test_german_ordinals_and_abbreviations_do_not_end_a_sentence():
    text = "Am 3. Oktober kam z. B. Herr Dr. Müller ca. um elf. Danach kam niemand mehr."
    assert split(text, "de") == [text[:52], text[52:]]


def test_chinese_and_japanese_signs_end_sentences_and_quotes_stay():
    assert split("他说：“今天的天气真的很好啊。”然后他慢慢地走出去了！你知道他为什么要走吗？", "zh") == [
        "他说：“今天的天气真的很好啊。”",
        "然后他慢慢地走出去了！",
        "你知道他为什么要走吗？",
    ]


def test_tiny_sentences_join_their_neighbour_but_not_over_a_line_end():
    assert split("Yes. I think that you are right about it. No.") == ["Yes. I think that you are right about it. No."]
    assert split("Milk\nEggs\nBread") == ["Milk\n", "Eggs\n", "Bread"]


def test_pauses_tell_sentences_from_paragraphs_and_clauses():
    text = (
        "The first sentence is here. The second one ends the paragraph.\n\n***\n\n"
        + "word " * 30
        + "one, "
        + "word " * 30
    )
    assert [segment.pause for segment in segments(text)] == [
        Pause.SENTENCE,
        Pause.PARAGRAPH,
        Pause.CLAUSE,
        Pause.SENTENCE,
    ]


def test_a_wall_of_text_is_cut_between_words():
    for segment in split("word " * 300)[:-1]:
        assert segment.endswith("word ")
    assert max(map(len, split("汉" * 300, "zh"))) == 80
    assert all(piece.endswith("\u0301") for piece in split("e\u0301x\u0301" * 300))


def test_a_cut_prefers_commas_and_spares_numbers():
    text = "It cost exactly 1,000,000 dollars in the end, and nobody in the whole company could say what for."
    assert split(text)[0] == "It cost exactly 1,000,000 dollars in the end, "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there, my friend.", "en-us"),
        ("今天天气很好，我们去公园。", "zh"),
        ("東京に行きます。", "ja"),
        ("안녕하세요 여러분.", "ko"),
        ("Привет, как дела?", "ru"),
        ("Γεια σου κόσμε.", "el"),
        ("สวัสดีครับ", "en-us"),  # this engine has no Thai: stay with the fallback
        ("123", "en-us"),
    ],
)
def test_auto_tells_the_language_by_script(text, expected):
    assert [language for language, _ in runs(text)] == [expected]


def test_han_sentences_of_a_japanese_text_are_japanese():
    assert {language for language, _ in runs("これは日本語の文章です。東京都知事選挙。")} == {"ja"}
    assert {language for language, _ in runs("我最喜欢的店是那家卖百货的优の良品，真的非常好。今天去买东西。")} >= {
        "zh"
    }


def test_words_of_another_script_are_spoken_by_their_language():
    assert runs("我用 Python 3 写程序，你呢？") == [("zh", "我用"), ("en-us", "Python 3"), ("zh", "写程序，你呢？")]
    assert runs("She said 你好 to me.", "en-us") == [("en-us", "She said"), ("zh", "你好"), ("en-us", "to me.")]
    assert runs("I like ラーメン屋 a lot.", "en-us")[1] == ("ja", "ラーメン屋")
    assert runs("東京の Python です。", "ja") == [("ja", "東京の"), ("en-us", "Python"), ("ja", "です。")]


def test_a_given_language_keeps_its_own_scripts():
    assert runs("點解你唔嚟？", "yue") == [("yue", "點解你唔嚟？")]
    assert runs("Guten Tag, Welt.", "de") == [("de", "Guten Tag, Welt.")]
    assert runs("T恤很好看。", "zh") == [("zh", "T恤很好看。")]
    assert runs("Hello ไทย world.", "en-us") == [("en-us", "Hello ไทย world.")]


def test_a_pronounced_word_is_spoken_in_the_language_of_its_spoken_form():
    assert runs("我的iPhone很好。", "zh", pronunciations=[("iphone", "爱疯")]) == [("zh", "我的iPhone很好。")]
    assert len(runs("我的iPhones很好。", "zh", pronunciations=[("iphone", "爱疯")])) == 3


def test_sentences_are_spans_of_the_request():
    text = "  Cafe\u0301 one. \n\n Second!  😀"
    assert [text[start:end] for start, end in segment_text(text, "en-us", available_languages=AVAILABLE).sentences] == [
        "Cafe\u0301 one.",
        "Second!",
    ]


@pytest.mark.parametrize(
    "text", ["word " * 20_000, "汉" * 100_000, "a" + "*" * 99_998 + "b", "\u0301" * 99_999 + "a", "." * 99_999 + "a"]
)
def test_the_longest_job_is_split_in_seconds(text):
    started = time.process_time()
    assert segments(text, "auto")
    assert time.process_time() - started < 10


def test_an_engine_that_mixes_languages_gets_the_sentence_in_one_call() -> None:
    text = "我今天用iPhone拍了照片。"
    apart = segment_text(text, "zh", available_languages=AVAILABLE)
    together = segment_text(text, "zh", available_languages=AVAILABLE, mixed_languages=frozenset({"zh", "en-us"}))
    assert [run.language for run in apart.segments[0].runs] == ["zh", "en-us", "zh"]
    assert [(run.language, run.text) for run in together.segments[0].runs] == [("zh", text)]
    foreign = segment_text(text, "zh", available_languages=AVAILABLE, mixed_languages=frozenset({"zh", "ja"}))
    assert [run.language for run in foreign.segments[0].runs] == ["zh", "en-us", "zh"]
