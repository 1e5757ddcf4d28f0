"""Numbers that upstream's Chinese rules misread, rewritten into words that they leave alone.

Upstream says 1,400 as "one, four zero zero", 100公里 digit by digit, 3-5天 as a subtraction and the decimals of
3.1415926 as a telephone number. These rules run before `read_chinese` and `read_cantonese` and are no part of them,
so that the fronts stay comparable with the reference; a text without such numbers comes out as it went in.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from synthesis.engines.gpt_sovits.text.normalise_zh import read_amount, read_digits, read_number
from synthesis.engines.mapped_text import MappedText

_HAN = "\u4e00-\u9fff"
_GROUPED = r"[0-9]{1,3}(?:,[0-9]{3})+"
_NUMBER = rf"(?:{_GROUPED}|[0-9]+)(?:\.[0-9]+)?"
_DECIMAL = r"[0-9]+(?:\.[0-9]+)?"
_ALONE_BEFORE = r"(?<![0-9A-Za-z.,:/+×÷=-])"
_ALONE_AFTER = r"(?![0-9A-Za-z:/+×÷=-]|[.,][0-9])"

_CURRENCIES = {"$": "美元", "＄": "美元", "€": "欧元", "£": "英镑", "¥": "元", "￥": "元"}
_CURRENCY_NAMES = "元|块|美元|欧元|英镑|美金|日元|港币|港元|人民币"

_LATIN_UNITS = {
    "km/h": "公里每小时", "kWh": "千瓦时", "mAh": "毫安时", "kHz": "千赫", "MHz": "兆赫", "GHz": "吉赫", "Hz": "赫兹",
    "kW": "千瓦", "MW": "兆瓦", "W": "瓦", "V": "伏", "mg": "毫克", "g": "克", "t": "吨", "mL": "毫升", "L": "升",
    "dB": "分贝", "ms": "毫秒", "min": "分钟", "h": "小时", "℉": "华氏度", "°F": "华氏度",
}  # fmt: skip
# Measure words that upstream's list lacks: before them it says three digits and more one by one.
_MEASURES = (
    "公里|公斤|公顷|公升|公尺|英里|英尺|英寸|海里|平方|立方|摄氏度|分贝|赫兹|千瓦|像素|人次|"
    "[次倍种克升级站步字词亩磅瓦伏帧票届辆艘吨滴串束节句首拍集章卷册排列行格圈阶公]"
)
_DURATION_ENDS = "前|后|来|间|内|多|以|之|时间|历史|了|没|才"

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


def clear_numbers(text: MappedText) -> MappedText:
    """`text` with such numbers in Chinese words; every character keeps its place in the original."""
    for pattern, replacement in _RULES:
        text = text.substitute(pattern, replacement)
    return text


def _amount(number: str) -> str:
    return read_number(number.replace(",", ""))


def _money(match: re.Match[str]) -> str:
    name = _CURRENCIES[match["sign"]]
    return _amount(match["number"]) + (match["power"] or "") + (match["name"] or name)


def _share(number: str) -> str:
    return f"百分之{read_number(number[:-1])}" if number.endswith("%") else read_number(number)


def _years(match: re.Match[str]) -> str:
    return f"{read_digits(match[1])}到{read_digits(match[2])}"


def _telephone(match: re.Match[str]) -> str:
    return "，".join(read_digits(part, one="幺") for part in match[0].split("-"))


_RULES: list[Rule] = [
    (
        re.compile(
            rf"(?P<sign>[{''.join(_CURRENCIES)}]) ?(?P<number>{_NUMBER})(?![0-9])"
            rf"(?P<power>[千百十]?[万亿])?(?P<name>{_CURRENCY_NAMES})?"
        ),
        _money,
    ),
    # telephone numbers with hyphens, before these are a sign
    (re.compile(r"(?<![0-9-])(?:0[0-9]{2,3}-[1-9][0-9]{6,7}|[48]00-[0-9]{3}-?[0-9]{4})(?![0-9-])"), _telephone),
    (re.compile(rf"{_ALONE_BEFORE}{_GROUPED}(?=[%℃°])"), lambda match: match[0].replace(",", "")),
    (re.compile(rf"{_ALONE_BEFORE}{_GROUPED}(?:\.[0-9]+)?(?![0-9])"), lambda match: _amount(match[0])),
    (
        re.compile(rf"{_ALONE_BEFORE}({_NUMBER}) ?({'|'.join(_LATIN_UNITS)})(?![A-Za-z])"),
        lambda match: _amount(match[1]) + _LATIN_UNITS[match[2]],
    ),
    (re.compile(rf"{_ALONE_BEFORE}[0-9]+\.[0-9]{{3,}}{_ALONE_AFTER}"), lambda match: _amount(match[0])),
    # a score or a ratio; a time has two digits of minutes
    (
        re.compile(rf"{_ALONE_BEFORE}([0-9]{{1,3}})[:∶：]([0-9]|[6-9][0-9]|[0-9]{{3}})(?![0-9:∶：.])"),
        lambda match: f"{read_amount(match[1])}比{read_amount(match[2])}",
    ),
    # years name themselves digit by digit
    (re.compile(rf"{_ALONE_BEFORE}([12][0-9]{{3}})[-–—~]([12][0-9]{{3}})(?=年)"), _years),
    # 3-5天 is a range: a difference would be written with its result
    (
        re.compile(rf"{_ALONE_BEFORE}({_DECIMAL}%?)[-–—]({_DECIMAL}%?)(?=[{_HAN}])(?!年[0-9])"),
        lambda match: f"{_share(match[1])}到{_share(match[2])}",
    ),
    (re.compile(rf"{_ALONE_BEFORE}({_DECIMAL})%[-–—~]({_DECIMAL})%"), r"\1%到\2%"),
    (
        re.compile(rf"{_ALONE_BEFORE}([1-9][0-9]{{2,}})([多余几]?)(?={_MEASURES})"),
        lambda match: read_amount(match[1]) + match[2],
    ),
    # a hundred years, ten years ago; 98年 and 2008年 stay the names of years
    (re.compile(rf"{_ALONE_BEFORE}([1-9][0-9]{{2}})(?=年)"), lambda match: read_amount(match[1])),
    (re.compile(rf"{_ALONE_BEFORE}([1-9][0-9])(?=年(?:{_DURATION_ENDS}))"), lambda match: read_amount(match[1])),
    (re.compile("±"), "正负"),
    (re.compile("≈"), "约等于"),
    (re.compile("≤"), "小于等于"),
    (re.compile("≥"), "大于等于"),
]
