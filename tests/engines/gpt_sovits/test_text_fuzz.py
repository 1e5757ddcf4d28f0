"""Nasty texts through every front: phones that fit the models and the text, or one of our errors."""

from __future__ import annotations

import random

import pytest

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.text.reading import TextData, read_text
from synthesis.engines.gpt_sovits.text.symbols import PUNCTUATION, SymbolTable

TEXTS = 1000

WORDS = {
    "zh": "你好 世界 今天 一起 不是 一点儿 女儿 银行 行走 长大 重要 了解 着急 好好儿 看一看 乾淨 嗯 呣 〇 丫 㐀 𠮷",
    "yue": "佢哋 喺度 唔係 嘅 咁 啲 冇 點解 香港 飲茶 睇戲 嚟 攞 𨋢 噉 靚仔 食飯 幾多 嗰個 啦 㗎 喎",
    "en": "hello world OpenAI it's don't x-ray NASA I’m e.g. i.e. Mr. naïve qzxv rhythm supercalifragilistic read a",
    "ja": "こんにちは 東京 は へ を っ ッ ー ヴ 々 人々 今日 一日 ﾊﾝｶｸ ｶﾞ ゔ ヷ ゛ ゝ 㐂 ペン 食べる しゃべっちゃった",
    "ko": "안녕하세요 값 닭이 읽다 좋아요 ㅋㅋㅋ ㅏ ㄳ 뷁 국민 같이 굳이 3개 십만 의사 ﾡ ᄀ ᆨ 한국어 KBS",
}
NUMBERS = """
    0 007 3.14 -5 +86 1,234,567.89 1/2 50% 1.5万 99999999999999999999999999 １２３ ٣٤٥ ²³ ½ Ⅷ ⑩ ㊿ 10^-3 1e10 0x1F
    2024-02-30 2024/1/1 24:60 8:30-9:15 13800138000 010-12345678 192.168.0.1 v2.0.1 $12.5 ￥100 €3 £1,000 -3℃ 36.6°C
    5km² 10kg 3~5 1-2-3 1:2:3 二〇二四年 100円 3人 1st 22nd 1980s 3D 4K 12am . .5 5. 1..2 1,,2 -- 7/0 100000000000元 
    1+1=2 3×4÷5 ５０％ 1000000th
"""
MARKS = "…… —— !!! ?!?! ... 、、 ,,,, " + " ".join(
    "!?…,.-~:;、，。！？：；·—～“”‘’「」『』（）《》【】<>{}[]()#&@^_|\\/*%$￥+=`\"'〜"
)
SYMBOLS = "🙂 👨‍👩‍👧‍👦 🇭🇰 👍🏽 ❤️ e\u0301 か\u3099 Z\u0351\u0357\u030b\u0310a\u0316lgo \u0300 ß ﬁ İ ı ℃ ™"
OTHER_SCRIPTS = "שלום مرحبا \u202eabc\u202c नमस्ते สวัสดี Привет Ωμέγα"
MARKUP = (
    "<speak> <break_time='1s'/> </p> &amp; &#x4f60; {{x}} %s %(a)s \\1 \\g<0> $1 https://a.b/c?d=1&e=%20 "
    "user@example.com C:\\x #话题# @某人 http:// **粗** `x`"
)
CONTROLS = [
    *"\ud800\udfff\x00\x07\u00a0\u3000\u200b\u200d\ufeff\ufffd\ufffe\U0010ffff\ue000\n\t\u2028",
    "\r\n",
    "  ",
    "\x1b[0m",
]
REPEATED = [letter * 60 for letter in "a1W哈あㅋ가。?"] + ["antidisestablishment" * 6]
ALL_WORDS = " ".join(WORDS.values()).split()
ODDITIES = [*SYMBOLS.split(), *OTHER_SCRIPTS.split(), *MARKUP.split(), *CONTROLS, *REPEATED]
# How often a text takes words of its language, of any language, numbers, marks and oddities.
MIXTURES = [(6, 1, 1, 2, 1), (2, 2, 2, 2, 2), (1, 0, 6, 2, 0), (0, 0, 0, 1, 1), (3, 0, 0, 0, 3), (1, 0, 0, 0, 0)]


def nasty_text(random_: random.Random, language: str) -> str:
    """Mostly words of the language, cut up by numbers, marks, other scripts and what text fields really receive."""
    own = WORDS.get(language, "").split() or ALL_WORDS
    pools = [own, ALL_WORDS, NUMBERS.split(), MARKS.split(), ODDITIES]
    pieces = random_.choices(pools, random_.choice(MIXTURES), k=random_.choice([1, 1, 2, 3, 5, 8, 13]))
    separator = random_.choice(["", "", " ", " ", "，"])
    text = separator.join(random_.choice(pool) for pool in pieces)
    if random_.random() < 0.1:
        text += chr(random_.choice([random_.randrange(0x80), random_.randrange(0x3000), random_.randrange(0x110000)]))
    return text


@pytest.fixture(scope="module")
def data():
    return TextData.load()


@pytest.mark.parametrize("language", ["zh", "yue", "en", "ja", "ko", "auto"])
def test_every_text_has_phones_or_an_error_of_ours(language, data):
    random_ = random.Random(f"front {language}")
    spoken = 0
    for _ in range(TEXTS):
        text = nasty_text(random_, language)
        try:
            reading = read_text(text, language=language, table="v2", data=data)
        except UnspeakableTextError:
            continue
        except Exception as error:
            pytest.fail(f"{text!r}: {type(error).__name__}: {error}")
        spoken += 1
        problem = _problem(text, reading)
        assert problem is None, f"{text!r}: {problem}"
    assert spoken > TEXTS // 2


def _problem(text, reading):
    """What is wrong with a reading, or None."""
    if not len(reading.ids) == len(reading.symbols) == len(reading.origins) > 0:
        return "phones, ids and origins differ in number"
    if PUNCTUATION.issuperset(reading.symbols):
        return "nothing but marks"
    if reading.ids.min() < 0 or reading.ids.max() >= len(SymbolTable.V2):
        return "an id out of range"
    before = (0, 0)
    for span in reading.origins:
        if not 0 <= span[0] < span[1] <= len(text):
            return f"{span} is no part of the text"
        if span[0] < before[0] or span[1] < before[1]:
            return f"{span} after {before}"
        before = span
    for segment in reading.segments:
        counts = segment.phones_per_character
        if (counts is not None) != (segment.language in ("zh", "yue")):
            return f"a {segment.language} segment with {counts}"
        if counts is not None and (len(counts), sum(counts)) != (len(segment.norm_text), len(segment.symbols)):
            return "phones per character do not add up"
    return None
