from __future__ import annotations

import pytest

from synthesis.engines.gpt_sovits.text.clear_numbers_zh import clear_numbers
from synthesis.engines.gpt_sovits.text.normalise_zh import normalise_mandarin
from synthesis.engines.mapped_text import MappedText


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("超过1,400,000,000人", "超过十四亿人"),
        ("增长1,250%", "增长百分之一千二百五十"),
        ("$1,299.99的手机", "一千二百九十九点九九美元的手机"),
        ("只要￥4999元", "只要四千九百九十九元"),
        ("¥5万", "五万元"),
        ("圆周率3.1415926", "圆周率三点一四一五九二六"),
        ("比分3:2", "比分三比二"),
        ("16：9的屏幕", "十六比九的屏幕"),
        ("距离100公里", "距离一百公里"),
        ("跑了800多步", "跑了八百多步"),
        ("500g盐和1.5L水", "五百克盐和一点五升水"),
        ("时速120km/h", "时速一百二十公里每小时"),
        ("3-5天", "三到五天"),
        ("1.5-2.5米", "一点五到二点五米"),
        ("60%-70%", "百分之六十到百分之七十"),
        ("1998-2003年", "一九九八到二零零三年"),
        ("010-12345678", "零幺零,幺二三四五六七八"),
        ("400-820-1234", "四零零,八二零,幺二三四"),
        ("100年", "一百年"),
        ("10年前", "十年前"),
        ("±5", "正负五"),
    ],
)
def test_numbers_are_said_as_people_say_them(written, spoken):
    assert normalise_mandarin(clear_numbers(MappedText.of(written))).text == spoken


@pytest.mark.parametrize(
    "text",
    [
        "12:30",
        "8:00-10:00",
        "2024-01-02",
        "2008年",
        "98年",
        "10-4=6",
        "1/2",
        "版本2.0.13",
        "第3名",
        "1,2,3",
        "101路",
        "3:20:15",
    ],
)
def test_what_is_read_well_is_left_alone(text):
    assert clear_numbers(MappedText.of(text)).text == text


def test_the_words_stand_for_the_number_that_was_written():
    text = "共1,400人"
    cleared = clear_numbers(MappedText.of(text))
    assert cleared.text == "共一千四百人"
    assert [text[start:end] for start, end in cleared.origins] == ["共", "1,400", "1,400", "1,400", "1,400", "人"]
