"""A whole text to phone ids, whatever languages it is written in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from synthesis.engines.base import Pronunciation
from synthesis.engines.errors import UnspeakableTextError, UnsupportedLanguageError
from synthesis.engines.gpt_sovits.parity.report import GoldenSet
from synthesis.engines.gpt_sovits.parity.text_mixed import CHECKERS
from synthesis.engines.gpt_sovits.text.language_detector import packaged_model
from synthesis.engines.gpt_sovits.text.reading import LANGUAGES, TextData, read_mapped_text, read_text
from synthesis.engines.gpt_sovits.text.split import split_text
from synthesis.engines.gpt_sovits.text.symbols import SymbolTable
from synthesis.engines.gpt_sovits.text.zh import Corrections
from synthesis.engines.mapped_text import MappedText

GOLDEN = Path(__file__).parents[1] / "golden" / "open"
SMALL_MODEL = packaged_model()


@pytest.fixture(scope="module")
def data():
    return TextData.load()


def test_phones_of_mixed_texts_equal_the_reference():
    cases = list(CHECKERS["text_mixed"](GoldenSet(GOLDEN, "text_mixed")))
    assert [case.name for case in cases] == ["text_mixed.segments", "text_mixed.phones", "text_mixed.norm_text"]
    for case in cases:
        assert case.holds, case.note


def test_ids_are_the_rows_of_the_symbols(data):
    reading = read_text("今天用iPhone。", language="zh", table="v2", data=data)
    assert reading.ids.dtype == np.int64
    assert [SymbolTable.V2.symbols[index] for index in reading.ids] == list(reading.symbols)
    assert [segment.language for segment in reading.segments] == ["zh", "en"]
    assert len(reading.symbols) == len(reading.origins)


def test_chinese_segments_say_how_bert_rows_spread(data):
    reading = read_text("他说：“I love you”，然后就走了。", language="auto", table="v2", data=data)
    for segment in reading.segments:
        if segment.language == "zh":
            assert segment.phones_per_character is not None
            assert len(segment.phones_per_character) == len(segment.norm_text)
            assert sum(segment.phones_per_character) == len(segment.symbols)
    assert [segment.norm_text for segment in reading.segments if segment.language == "zh"] == ["他说,", "然后就走了."]


@pytest.mark.parametrize(
    ("language", "languages"),
    [
        ("auto", ["zh", "ja", "zh"]),
        ("auto_yue", ["yue", "ja", "yue"]),
        ("zh", ["zh"]),
        ("yue", ["yue"]),
        ("ja", ["ja"]),
        ("all_zh", ["zh"]),
        ("all_yue", ["yue"]),
        ("all_ja", ["ja"]),
        ("en", ["en"]),
    ],
)
def test_the_setting_decides_who_reads(language, languages, data):
    text = "我最近在学日语，こんにちは是你好的意思。" if language != "en" else "我 said hello there"
    reading = read_text(text, language=language, table="v2", data=data)
    assert [segment.language for segment in reading.segments] == languages


def test_origins_lead_back_to_the_text(data):
    text = "I  met   小明，他说：3张！"
    reading = read_text(text, language="zh", table="v2", data=data)
    assert reading.origins[0] == (0, 1)
    for symbol, (start, end) in zip(reading.symbols, reading.origins, strict=True):
        if symbol in ("x", "iao3", "m", "ing2"):
            assert text[start:end] in ("小", "明")
    assert text[slice(*reading.origins[-1])] == "！"


def test_pronunciations_are_said_in_place_of_what_is_written(data):
    def symbols(text, *pronunciations):
        return read_text(text, language="zh", table="v2", data=data, pronunciations=pronunciations)

    changed = symbols("我在用 GPT 学习", Pronunciation(written="gpt", spoken="机器人"))
    assert changed.symbols == symbols("我在用 机器人 学习").symbols
    assert {span for span in changed.origins if span[1] - span[0] == 3} == {(4, 7)}


def test_short_texts_begin_with_a_pause(data):
    reading = read_text("好。", language="zh", table="v2", data=data)
    assert reading.symbols == (".", "h", "ao3", ".")
    assert reading.origins == ((0, 1), (0, 1), (0, 1), (1, 2))
    assert read_text("你好，", language="zh", table="v2", data=data).symbols[0] == "."  # five phones
    assert read_text("你好吗", language="zh", table="v2", data=data).symbols[0] == "n"  # six


def test_several_spaces_are_one(data):
    one = read_text("안녕 세상", language="ko", table="v2", data=data)
    many = read_text("안녕    세상", language="ko", table="v2", data=data)
    assert many.symbols == one.symbols
    assert many.origins[-1] == (7, 8)


def test_an_english_stretch_without_a_sound_is_a_pause(data):
    reading = read_text("今天很好🙂我们走", language="auto", table="v2", data=data)
    assert [segment.symbols for segment in reading.segments if segment.language == "en"] == [(",",)]
    assert reading.segments[1].origins == ((4, 5),)


def test_chinese_words_are_silent_in_japanese(data):
    """As with Open JTalk alone, which does not guess at words that its dictionary lacks."""
    reading = read_text("She said 你好 and left.", language="ja", table="v2", data=data)
    assert {segment.language for segment in reading.segments} == {"en"}
    assert "sh" not in read_text("就走了", language="ja", table="v2", data=data).symbols
    assert "sh" in read_text("就走です", language="ja", table="v2", data=data).symbols  # may be a rare Japanese word


def test_operators_files_are_used(tmp_path, data):
    (tmp_path / "engdict-hot.rep").write_text("HELLO B AY1 B AY1\n", encoding="utf-8")
    (tmp_path / "polyphonic.rep").write_text("银行: ['yin2', 'xing2']\n", encoding="utf-8")
    (tmp_path / "lid.176.bin").write_bytes(SMALL_MODEL.read_bytes())
    own = TextData.load(tmp_path)
    assert own.detector is not data.detector
    assert read_text("hello world", language="en", table="v2", data=own).symbols[:4] == ("B", "AY1", "B", "AY1")
    assert own.corrections is not None
    assert own.corrections.readings == {"银行": ["yin2", "xing2"]}
    assert TextData.load(tmp_path / "nothing").lexicon is None


def test_the_polyphone_network_is_asked_and_corrected(data):
    def network(segments):
        return [["yin2" if letter == "银" else "hang2" for letter in segment] for segment in segments]

    asked = replace(data, polyphones=network, corrections=Corrections({}))
    corrected = replace(data, polyphones=network, corrections=Corrections({"银行": ["yin2", "xing2"]}))
    spoken = [read_text("去银行了", language="zh", table="v2", data=own).symbols[2:6] for own in (asked, corrected)]
    assert spoken == [("y", "in2", "h", "ang2"), ("y", "in2", "x", "ing2")]


def test_short_english_begins_with_a_comma(data):
    reading = read_text("我们都说OK", language="zh", table="v2", data=data)
    assert reading.segments[1].symbols[0] == ","
    long = read_text("我们都说goodbye", language="zh", table="v2", data=data)
    assert long.segments[1].symbols[0] != ","


@pytest.mark.parametrize(("sign", "silence"), [("￥", "SP2"), ("^", "SP3")])
def test_signs_for_long_pauses(sign, silence, data):
    reading = read_text(f"你好{sign}再见，朋友", language="zh", table="v2", data=data)
    assert reading.symbols.count(silence) == 2  # the sign turns every comma into itself
    assert "," not in reading.symbols


def test_pieces_of_a_text_point_into_the_whole(data):
    text = "今天天气很好。我们出去走走吧！"
    starts = [
        read_mapped_text(piece, language="zh", table="v2", data=data).origins[0]
        for piece in split_text(MappedText.of(text), "cut5", english=False)
    ]
    assert starts == [(0, 1), (7, 8)]


def test_first_models_have_fewer_languages_and_their_own_ids(data):
    assert LANGUAGES["v1"] == {"auto", "en", "zh", "ja", "all_zh", "all_ja"}
    assert LANGUAGES["v2"] == LANGUAGES["v1"] | {"ko", "yue", "all_ko", "all_yue", "auto_yue"}
    reading = read_text("你好，world！", language="zh", table="v1", data=data)
    assert [SymbolTable.V1.symbols[index] for index in reading.ids] == list(reading.symbols)
    for language in ("ko", "yue", "auto_yue", "fr", ""):
        with pytest.raises(UnsupportedLanguageError):
            read_text("你好，world！", language=language, table="v1", data=data)
    with pytest.raises(UnsupportedLanguageError):
        read_text("你好，안녕하세요", language="auto", table="v1", data=data)


@pytest.mark.parametrize("language", sorted(LANGUAGES["v2"]))
@pytest.mark.parametrize("text", ["", "   ", "\n", "……！？", "🙂👍🏽", "\u200d\ufe0f", "\x00\ud800"])
def test_nothing_to_say_is_an_error(text, language, data):
    with pytest.raises(UnspeakableTextError):
        read_text(text, language=language, table="v2", data=data)
