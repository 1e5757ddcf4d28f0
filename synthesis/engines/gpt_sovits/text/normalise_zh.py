"""Chinese text to the characters that are spoken: numbers, dates, units and symbols become words.

The rules and their order are those of upstream's text/zh_normalization (PaddleSpeech's normaliser), for the models were
trained on what it writes. Where it says a wrong thing this one says the right one: the end of a time range (8:30-9:15
is not half past nine), millimetres, units inside Latin words, digits of other scripts.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cache

from synthesis.engines.gpt_sovits.text.symbols import PUNCTUATION
from synthesis.engines.mapped_text import MappedText

_DIGITS = "零一二三四五六七八九"
_PLACES = ((1000, "千"), (100, "百"), (10, "十"))

_IGNORED = re.compile(r"[ —《》【】<>{}()（）#&@“”^_|\\]")
_SENTENCE_END = re.compile(r"[：、，；。？！,;?!][”’]?|\n+")
_LINE_ENDS = re.compile(r"\n+")
_HAN = "\u4e00-\u9fa5"  # what upstream keeps; later additions to Unicode have no place in its tables

_NUMBER = r"(?:[0-9]+(?:\.[0-9]+)?)"
_ANY_NUMBER = rf"(?:-?{_NUMBER}|\.[0-9]+)"
_POWER_OF = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹ˣʸⁿ", "0123456789xyn", strict=True))
_POWERS = f"[{''.join(_POWER_OF)}]"
_OPERAND = rf"(?:-?{_NUMBER}{_POWERS}*|\.[0-9]+{_POWERS}*|[A-Za-z]{_POWERS}*)"
_OPERATOR_NAMES = {"+": "加", "-": "减", "×": "乘", "÷": "除", "=": "等于"}

_UNIT_NAMES = {
    "cm2": "平方厘米",
    "cm²": "平方厘米",
    "cm3": "立方厘米",
    "cm³": "立方厘米",
    "cm": "厘米",
    "mm": "毫米",
    "m2": "平方米",
    "m²": "平方米",
    "m3": "立方米",
    "m³": "立方米",
    "m": "米",
    "km": "千米",
    "kg": "千克",
    "ml": "毫升",
    "db": "分贝",
    "ds": "毫秒",
    "s": "秒",
}
_UNITS = "|".join(_UNIT_NAMES)
_DRY = re.compile("乾(?![隆坤卦元陵清])")  # gan; before these it is qian, and not simplified
_DEGREES = "°C|℃|度|摄氏度"

# Measure words before which a number is read as an amount (一百, 两) and not digit by digit.
_MEASURE_LETTERS = "".join(
    (
        "年月日季刻时周天秒分旬纪岁世更夜春夏秋冬代伏辈",  # time
        "米里丈尺寸厘毫丝寻常铺程亩两斤担铢石钧锱忽升斗合勺撮斛",  # size
        "元块角毛钱贯",  # money
        "杯盘碗碟盆桶笼盒锅簋篮罐瓶壶卮盏箩箱煲啖袋钵叠",  # vessels
        "人名位口家户身客",  # people
        "处所座间栋幢层堂坡山岭江溪丘墙壳窠场",  # places
        "台架枚趟幅平方堵床株批项例列篇注封艘把目套段朵匹张回尾条个首阙阵网炮顶棵只支袭辆挑颗曲群腔砣扎捆刀令打手罗",
        "钟队单双对出头脚板跳枝件贴针线管课本页丸泡粒堆根道面片",
    )
)
_MEASURE = (
    rf"(?:[{_MEASURE_LETTERS}]|小时|公分|[千毫微]克|[千分厘毫微]米|美元"
    r"|(?:亿|千万|百万|万|千|百)[元吨块]?|十?吨)"
)

_GREEK_NAMES = {
    "α": "阿尔法", "β": "贝塔", "γ": "伽玛", "Γ": "伽玛", "δ": "德尔塔", "Δ": "德尔塔", "ε": "艾普西龙", "ζ": "捷塔",
    "η": "依塔", "θ": "西塔", "Θ": "西塔", "ι": "艾欧塔", "κ": "喀帕", "λ": "拉姆达", "Λ": "拉姆达", "μ": "缪",
    "ν": "拗", "ξ": "克西", "Ξ": "克西", "ο": "欧米克伦", "π": "派", "Π": "派", "ρ": "肉", "σ": "西格玛",
    "ς": "西格玛", "Σ": "西格玛", "τ": "套", "υ": "宇普西龙", "φ": "服艾", "Φ": "服艾", "χ": "器", "ψ": "普赛",
    "Ψ": "普赛", "ω": "欧米伽", "Ω": "欧米伽",
}  # fmt: skip
_LAST_NAMES = (
    _GREEK_NAMES
    | dict(zip("①②③④⑤⑥⑦⑧⑨⑩", "一二三四五六七八九十", strict=True))
    | {"/": "每", "+": "加", "-": "减", "×": "乘", "÷": "除", "=": "等"}
)

_SPOKEN_MARKS = {
    "：": ",", "；": ",", "，": ",", "、": ",", "·": ",", "。": ".", "！": "!", "？": "?", "$": ".", "/": ",",
    "—": "-", "\n": ".",
}  # fmt: skip
_MANDARIN_MARKS = _SPOKEN_MARKS | {"~": "…", "～": "…", "嗯": "恩", "呣": "母"}
_CANTONESE_MARKS = _SPOKEN_MARKS | {"~": "-", "～": "-"}
_THREE_DOTS = re.compile(r"\.\.\.")
_UNSPOKEN = re.compile(rf"[^{_HAN}{''.join(sorted(PUNCTUATION - {'-'}))}-]+")
_REPEATED_MARKS = re.compile(r"([!?…,.-])[!?…,.-]+")


def normalise_mandarin(text: MappedText) -> MappedText:
    """Only Han characters and `! ? … , . -`, no two marks in a row; empty if nothing of `text` can be said."""
    pieces = _sentences(text, simplified_characters())
    spoken = MappedText.join(_marks(sentence, _MANDARIN_MARKS) for sentence in pieces)
    return spoken.substitute(_REPEATED_MARKS, r"\1")


def normalise_cantonese(text: MappedText) -> MappedText:
    """As `normalise_mandarin`, but marks may follow one another and `~` is a dash: upstream's text/cantonese.py."""
    simplified = {old: new for old, new in simplified_characters().items() if old != "麼"}  # 么 is another word there
    return MappedText.join(_marks(sentence, _CANTONESE_MARKS) for sentence in _sentences(text, simplified))


def _sentences(text: MappedText, simplified: Mapping[str, str]) -> list[MappedText]:
    """The text in pieces that end at a mark: no rule below reaches over one."""
    text = text.substitute(_IGNORED, "")
    pieces = []
    start = 0
    for match in _SENTENCE_END.finditer(text.text):
        pieces.append(text.slice(start, match.end()))
        start = match.end()
    pieces.append(text.slice(start, len(text.text)))
    return [_spell_out(piece.substitute(_LINE_ENDS, ""), simplified) for piece in pieces if piece.text]


def _marks(sentence: MappedText, table: dict[str, str]) -> MappedText:
    return sentence.substitute(_THREE_DOTS, "…").translate(table).substitute(_UNSPOKEN, "")


def _spell_out(sentence: MappedText, simplified: Mapping[str, str]) -> MappedText:
    sentence = sentence.substitute(_DRY, "干").translate(simplified).translate(_ascii_characters())
    for pattern, replacement in _RULES:
        while True:
            rewritten = sentence.substitute(pattern, replacement)
            # One pass over 1+2+3 says every other sign: an operand belongs to one match only.
            if pattern is not _ARITHMETIC or rewritten.text == sentence.text:
                break
            sentence = rewritten
        sentence = rewritten
    return sentence.translate(_LAST_NAMES)


@cache
def simplified_characters() -> dict[str, str]:
    """Traditional -> simplified, character by character, from OpenCC's table.

    A character whose simplified form lies outside the Han block that can be read keeps its traditional form, and so
    does 乾, which is two words: `_DRY`.
    """
    converter = importlib.import_module("opencc").OpenCC("t2s")
    letters = [chr(code) for first, last in ((0x3400, 0x9FFF), (0xF900, 0xFAFF)) for code in range(first, last + 1)]
    simplified = converter.convert("\n".join(letters)).split("\n")  # no phrase reaches over a line end
    return {
        old: new
        for old, new in zip(letters, simplified, strict=True)
        if old not in (new, "乾") and len(new) == 1 and re.fullmatch(f"[{_HAN}]", new)
    }


@cache
def _ascii_characters() -> dict[str, str]:
    """Full-width letters, and the digits of every script (`١`, `９`), as ASCII."""
    wide = {chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F) if chr(code).isalnum()}
    digits = {}
    for code in range(0x80, 0x1FC00):
        value = unicodedata.decimal(chr(code), None)
        if value is not None:
            digits[chr(code)] = str(value)
    return wide | digits


def read_digits(digits: str, *, one: str = "一") -> str:
    """123 -> 一二三. On the telephone one is 幺."""
    return "".join(one if digit == "1" else _DIGITS[int(digit)] for digit in digits)


def read_amount(digits: str) -> str:
    """10203 -> 一万零二百零三: a whole number of any length; an empty one is silent."""
    if not digits:
        return ""
    digits = digits.lstrip("0")
    if not digits:
        return _DIGITS[0]
    first = len(digits) % 8 or 8
    words = _below_100_million(digits[:first])
    for start in range(first, len(digits), 8):
        words += "亿" + _below_100_million(digits[start : start + 8])
    return words.removeprefix("一") if words.startswith("一十") else words


def _below_100_million(digits: str) -> str:
    """Leading zeros of `digits` are said, once."""
    upper, lower = digits[:-4], digits[-4:]
    if not upper.strip("0"):
        return _below_10_thousand(digits)
    return f"{_below_10_thousand(upper)}万{_below_10_thousand(lower)}"


def _below_10_thousand(digits: str) -> str:
    value = int(digits)
    words = ""
    width = len(digits)
    while value:
        place, name = next((p for p in _PLACES if p[0] <= value), (1, ""))
        if len(str(value)) < width:
            words += _DIGITS[0]
        words += _DIGITS[value // place] + name
        width = len(str(place)) - 1
        value %= place
    return words


def read_number(number: str) -> str:
    """12.50 -> 十二点五零: zeros at the end are said once."""
    whole, _, decimals = number.partition(".")
    kept = decimals.rstrip("0") + ("0" if decimals.endswith("0") else "")
    words = read_amount(whole)
    return f"{words or _DIGITS[0]}点{read_digits(kept)}" if kept else words


def _signed(number: str, minus: str = "负") -> str:
    return minus + read_number(number[1:]) if number.startswith("-") else read_number(number)


def _date(match: re.Match[str]) -> str:
    year, month, day, name = match.group("year", "month", "day", "name")
    return (
        f"{read_digits(year)}年"
        + (f"{read_amount(month)}月" if month else "")
        + (f"{read_amount(day)}{name}" if day else "")
    )


def _numeric_date(match: re.Match[str]) -> str:
    return f"{read_digits(match[1])}年{read_amount(match[3])}月{read_amount(match[4])}日"


def _clock(hour: str, minute: str, second: str | None, *, has_half: bool = True) -> str:
    words = f"{read_amount(hour)}点"
    if minute == "30" and has_half:
        words += "半"
    elif minute != "00":
        words += f"{_sixtieths(minute)}分"
    if second and second != "00":
        words += f"{_sixtieths(second)}秒"
    return words


def _sixtieths(digits: str) -> str:
    return "零" * digits.startswith("0") + read_amount(digits)


def _time(match: re.Match[str]) -> str:
    return _clock(match[1], match[2], match[3])


def _time_range(match: re.Match[str]) -> str:
    # Upstream says 半 at the end only if the beginning is at half past as well.
    return _time(match) + "至" + _clock(match[4], match[5], match[6], has_half=match[2] == "30")


def _telephone(match: re.Match[str]) -> str:
    return "，".join(read_digits(part, one="幺") for part in match[0].split("-"))


def _measured(match: re.Match[str]) -> str:
    amount = read_amount(match[1])
    about = {"+": "多", None: ""}.get(match[2], match[2])
    return ("两" if amount == "二" else amount) + about + match[3]


_CLOCK = r"([0-1]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?"
_ARITHMETIC = re.compile(rf"({_OPERAND})([+\-×÷=])({_OPERAND})")
_NO_SIGN_BEFORE = r"(?<![0-9+\-×÷=])"
_NO_SIGN_AFTER = r"(?![0-9+\-×÷=])"

_RULES: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (
        re.compile(
            r"(?P<year>[0-9]{4}|[0-9]{2})年(?:(?P<month>0?[1-9]|1[0-2])月)?"
            r"(?:(?P<day>0?[1-9]|[12][0-9]|30|31)(?P<name>[日号]))?"
        ),
        _date,
    ),
    (re.compile(r"([0-9]{4})([- /.])(0[1-9]|1[012])\2(0[1-9]|[12][0-9]|3[01])"), _numeric_date),
    (re.compile(rf"{_CLOCK}[~-]{_CLOCK}"), _time_range),
    (re.compile(_CLOCK), _time),
    (re.compile(rf"({_ANY_NUMBER}(?:%|{_DEGREES}|{_UNITS}))~({_ANY_NUMBER}(?:%|{_DEGREES}|{_UNITS}))"), r"\1至\2"),
    (
        re.compile(rf"(-?{_NUMBER})({_DEGREES})"),
        lambda match: _signed(match[1], "零下") + ("摄氏度" if match[2] == "摄氏度" else "度"),
    ),
    (re.compile(rf"(?<![A-Za-z])(?:{_UNITS})(?![A-WYZa-wyz])"), lambda match: _UNIT_NAMES[match[0]]),
    (_ARITHMETIC, lambda match: match[1] + _OPERATOR_NAMES[match[2]] + match[3]),
    (re.compile(f"{_POWERS}+"), lambda match: "的" + "".join(_POWER_OF[power] for power in match[0]) + "次方"),
    (
        re.compile(r"(-?)([0-9]+)/([0-9]+)"),
        lambda match: f"{'负' * bool(match[1])}{read_amount(match[3])}分之{read_amount(match[2])}",
    ),
    (re.compile(rf"(-?)({_NUMBER})%"), lambda match: f"{'负' * bool(match[1])}百分之{read_number(match[2])}"),
    # mobile: the operators' prefixes, with or without +86
    (
        re.compile(r"(?<![0-9])(?:\+?86)?1(?:[38][0-9]|5[0-35-9]|7[678]|9[89])[0-9]{8}(?![0-9])"),
        lambda match: read_digits(match[0].removeprefix("+"), one="幺"),
    ),
    (re.compile(r"(?<![0-9])(?:0(?:10|2[1-3]|[3-9][0-9]{2})-?)?[1-9][0-9]{6,7}(?![0-9])"), _telephone),
    (re.compile(r"400-?[0-9]{3}-?[0-9]{4}"), _telephone),
    (
        re.compile(rf"{_NO_SIGN_BEFORE}(-?{_NUMBER})[-~](-?{_NUMBER}){_NO_SIGN_AFTER}"),
        lambda match: f"{_signed(match[1])}到{_signed(match[2])}",
    ),
    (re.compile(r"-[0-9]+"), lambda match: _signed(match[0])),
    # a version has two points or more
    (re.compile(r"[0-9]+(?:\.[0-9]+){2,}"), lambda match: "点".join(read_digits(part) for part in match[0].split("."))),
    (re.compile(r"-?[0-9]+\.[0-9]+|\.[0-9]+"), lambda match: _signed(match[0])),
    (re.compile(rf"([0-9]+)([多余几+])?({_MEASURE})"), _measured),
    (re.compile(r"[0-9]{3,}"), lambda match: read_digits(match[0], one="幺")),
    (re.compile(rf"-?{_NUMBER}|\.[0-9]+"), lambda match: _signed(match[0])),
]
