"""Korean to phones: compatibility jamo as they are pronounced, compound vowels in two.

Upstream's text/korean.py over g2pk2 0.0.3: its steps and their order. Its word list and its table of what a final
consonant and the next initial become are read from the installed package as data; the package is never imported, for it
would try to download. Morphemes come from python-mecab-ko, imported at the first call. The rules' numbers are those of
the standard pronunciation (표준 발음법).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.text.ko_numbers import read_digits, read_number
from synthesis.engines.gpt_sovits.text.origins import never_backwards
from synthesis.engines.gpt_sovits.text.phones import Phones
from synthesis.engines.gpt_sovits.text.symbols import SymbolTable
from synthesis.engines.mapped_text import MappedText, Span

_UNREADABLE = "停"
_LETTER_NAMES = {
    "a": "에이", "b": "비", "c": "시", "d": "디", "e": "이", "f": "에프", "g": "지", "h": "에이치", "i": "아이",
    "j": "제이", "k": "케이", "l": "엘", "m": "엠", "n": "엔", "o": "오", "p": "피", "q": "큐", "r": "아르",
    "s": "에스", "t": "티", "u": "유", "v": "브이", "w": "더블유", "x": "엑스", "y": "와이", "z": "제트",
}  # fmt: skip
_LATIN = _LETTER_NAMES | {letter.upper(): name for letter, name in _LETTER_NAMES.items()}

_SYLLABLES = {chr(code): unicodedata.normalize("NFD", chr(code)) for code in range(0xAC00, 0xD7A4)}
_COMPATIBLE = {
    **dict(zip(map(chr, range(0x1100, 0x1113)), "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ", strict=True)),
    **dict(zip(map(chr, range(0x1161, 0x1176)), "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ", strict=True)),
    **dict(zip(map(chr, range(0x11A8, 0x11C3)), "ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ", strict=True)),
}
_TWO_VOWELS = {
    "ㅘ": "ㅗㅏ", "ㅙ": "ㅗㅐ", "ㅚ": "ㅗㅣ", "ㅝ": "ㅜㅓ", "ㅞ": "ㅜㅔ", "ㅟ": "ㅜㅣ", "ㅢ": "ㅡㅣ",
    "ㅑ": "ㅣㅏ", "ㅒ": "ㅣㅐ", "ㅕ": "ㅣㅓ", "ㅖ": "ㅣㅔ", "ㅛ": "ㅣㅗ", "ㅠ": "ㅣㅜ",
}  # fmt: skip
_PUNCTUATION_OF = {
    "：": ",", "；": ",", "，": ",", "、": ",", "·": ",", "。": ".", "\n": ".", "！": "!", "？": "?", " ": "空",
}  # fmt: skip

_COUNTED = re.compile(r"([0-9][0-9,]*)([ㄱ-힣]+)/B")
_DIGIT = re.compile("[0-9]")
_TAG = re.compile("/[PJEB]")
# Bound nouns that are counted with native numbers. g2pk2 asks whether a noun is part of this very line.
_COUNTED_NATIVELY = (
    "군데 권 개 그루 닢 대 두 마리 모 모금 뭇 발 발짝 방 번 벌 보루 살 수 술 시 쌈 움큼 정 짝 채 척 첩 축 켤레 톨 통"
)
_STEM_ENDS = frozenset("ᆫᆬᆷᆱᆰᆲᆴ")

Rule = tuple[re.Pattern[str], str]


def _rules(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    # The rules are written with syllables where that reads better, and work on single jamo.
    return tuple((re.compile(unicodedata.normalize("NFD", a)), unicodedata.normalize("NFD", b)) for a, b in pairs)


# Marks that the morphemes left: /P a verb stem's final, /E an ending in ᆯ, /J the particle 의, /B a bound noun.
_SPECIAL = _rules(
    ("([ᄌᄍᄎ])ᅧ", r"\1ᅥ"),  # 5.1
    ("([ᄀᄁᄂᄃᄄᄅᄆᄇᄈᄉᄊᄌᄍᄎᄏᄐᄑᄒ])ᅴ", r"\1ᅵ"),  # 5.3
    ("/J", ""),
    # 16, meant for the names of letters; as g2pk2 writes it it holds after every ㅡ, and so the models heard it
    ("ᅳᆮᄋ", "ᅳᄉ"),
    ("([으])[ᆽᆾᇀᇂ]ᄋ", r"\1ᄉ"),
    ("([으])ᆿᄋ", r"\1ᄀ"),
    ("([으])ᇁᄋ", r"\1ᄇ"),
    ("ᆰ/P([ᄀᄁ])", "ᆯᄁ"),  # 11.1
    ("([ᆲᆴ])/Pᄀ", r"\1ᄁ"),  # 25
    ("([ᆲᆴ])/Pᄃ", r"\1ᄄ"),
    ("([ᆲᆴ])/Pᄉ", r"\1ᄊ"),
    ("([ᆲᆴ])/Pᄌ", r"\1ᄍ"),
    ("([ᆫᆷ])/Pᄀ", r"\1ᄁ"),  # 24
    ("([ᆫᆷ])/Pᄃ", r"\1ᄄ"),
    ("([ᆫᆷ])/Pᄉ", r"\1ᄊ"),
    ("([ᆫᆷ])/Pᄌ", r"\1ᄍ"),
    ("ᆬ/Pᄀ", "ᆫᄁ"),
    ("ᆬ/Pᄃ", "ᆫᄄ"),
    ("ᆬ/Pᄉ", "ᆫᄊ"),
    ("ᆬ/Pᄌ", "ᆫᄍ"),
    ("ᆱ/Pᄀ", "ᆷᄁ"),
    ("ᆱ/Pᄃ", "ᆷᄄ"),
    ("ᆱ/Pᄉ", "ᆷᄊ"),
    ("ᆱ/Pᄌ", "ᆷᄍ"),
    ("(바)ᆲ($|[^ᄋᄒ])", r"\1ᆸ\2"),  # 10.1
    ("(너)ᆲ([ᄌᄍᄃᄄ]ᅮ)", r"\1ᆸ\2"),
    ("ᆮᄋ([ᅵᅧ])", r"ᄌ\1"),  # 17
    ("ᇀᄋ([ᅵᅧ])", r"ᄎ\1"),
    ("ᆴᄋ([ᅵᅧ])", r"ᆯᄎ\1"),
    ("ᆮ히", "치"),
    ("ᆯ/E ᄀ", "ᆯ ᄁ"),  # 27
    ("ᆯ/E ᄃ", "ᆯ ᄄ"),
    ("ᆯ/E ᄇ", "ᆯ ᄈ"),
    ("ᆯ/E ᄉ", "ᆯ ᄊ"),
    ("ᆯ/E ᄌ", "ᆯ ᄍ"),
    ("ᆯ걸", "ᆯ껄"),
    ("ᆯ밖에", "ᆯ빠께"),
    ("ᆯ세라", "ᆯ쎄라"),
    ("ᆯ수록", "ᆯ쑤록"),
    ("ᆯ지라도", "ᆯ찌라도"),
    ("ᆯ지언정", "ᆯ찌언정"),
    ("ᆯ진대", "ᆯ찐대"),
)
_LINKS = _rules(
    *((final + "ᄋ", initial) for final, initial in zip("ᆨᆩᆫᆮᆯᆷᆸᆺᆻᆽᆾᆿᇀᇁ", "ᄀᄁᄂᄃᄅᄆᄇᄉᄊᄌᄎᄏᄐᄑ", strict=True)),  # 13
    *(
        (final + "ᄋ", linked)
        for final, linked in zip("ᆪᆬᆰᆱᆲᆳᆴᆵᆹ", ("ᆨᄊ", "ᆫᄌ", "ᆯᄀ", "ᆯᄆ", "ᆯᄇ", "ᆯᄊ", "ᆯᄐ", "ᆯᄑ", "ᆸᄊ"), strict=True)
    ),  # 14
    ("ᇂᄋ", "ᄋ"),  # 12.4
    ("ᆭᄋ", "ᄂ"),
    ("ᆶᄋ", "ᄅ"),
    ("(^|[^\u1100-\u1112])([\u1161-\u1175])", r"\1ᄋ\2"),  # a vowel that is left alone gets the silent initial
)
_AFTER_RIEUL = re.compile("([ㅇㄹ]ㅡㄹ) ㄹ")  # upstream takes this link of g2pk2 back
_LAST_JAMO = re.compile(r"([\u3131-\u3163])$")

_loading = threading.Lock()
_tagging = threading.Lock()


def read_korean(text: MappedText) -> Phones:
    """Jamo of table v2. Raises UnspeakableTextError if neither a sound nor a pause comes of the text."""
    idioms, table = _load_g2pk2_data()
    spoken = text.translate(_LATIN)
    for pattern, replacement in idioms:
        spoken = spoken.substitute(pattern, replacement)
    spoken = _spell_numbers(_with_tags(spoken)).translate(_SYLLABLES)
    for pattern, replacement in _SPECIAL:
        spoken = spoken.substitute(pattern, replacement)
    spoken = spoken.substitute(_TAG, "")
    for pattern, replacement in table:
        spoken = spoken.substitute(pattern, replacement)
    for pattern, replacement in _LINKS:
        spoken = spoken.substitute(pattern, replacement)
    spoken = spoken.translate(_COMPATIBLE).translate(_TWO_VOWELS)
    spoken = spoken.substitute(_AFTER_RIEUL, r"\1 ㄴ").substitute(_LAST_JAMO, r"\1.")
    letters = (_PUNCTUATION_OF.get(letter, letter) for letter in spoken.text)
    symbols = tuple(letter if letter in SymbolTable.V2 else _UNREADABLE for letter in letters)
    if set(symbols) <= {_UNREADABLE, _PUNCTUATION_OF[" "]}:
        raise UnspeakableTextError("The text holds nothing that can be said in Korean.")
    return Phones("ko", text.text, symbols, never_backwards(spoken.origins))


def _with_tags(text: MappedText) -> MappedText:
    """Marks behind the letters whose sound depends on what their morpheme is."""
    # MeCab wants UTF-8 and ends at NUL.
    readable = "".join("\ufffd" if letter == "\0" or "\ud800" <= letter <= "\udfff" else letter for letter in text.text)
    tagger = _load_mecab()
    with _tagging:
        morphemes: list[tuple[str, str]] = tagger.pos(readable)
    if readable.replace(" ", "") != "".join(surface for surface, _ in morphemes):
        return text  # it dropped a character: nothing would line up
    tags = iter([tag for surface, pos in morphemes for tag in "_" * (len(surface) - 1) + _tag_of(pos)])
    letters: list[str] = []
    origins: list[Span] = []
    for letter, span in zip(text.text, text.origins, strict=True):
        tag = " " if letter == " " else next(tags)
        marked = letter + _mark(letter, tag)
        letters += marked
        origins += [span] * len(marked)
    return MappedText("".join(letters), tuple(origins))


def _tag_of(pos: str) -> str:
    last = pos.split("+")[-1]
    return "B" if last == "NNBC" else last[0]


def _mark(letter: str, tag: str) -> str:
    last_jamo = _SYLLABLES.get(letter, letter)[-1]
    match tag:
        case "J":
            return "/J" if letter == "의" else ""
        case "E":
            return "/E" if last_jamo == "ᆯ" else ""
        case "V":
            return "/P" if last_jamo in _STEM_ENDS else ""
        case "B":
            return "/B"
        case _:
            return ""


def _spell_numbers(text: MappedText) -> MappedText:
    def spell_counted(match: re.Match[str]) -> str:
        return read_number(match[1], native=match[2] in _COUNTED_NATIVELY) + match[2] + "/B"

    def spell_digit(match: re.Match[str]) -> str:
        return read_digits(match[0])

    replacements: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
        (_COUNTED, spell_counted),
        (_DIGIT, spell_digit),
    )
    for pattern, spell in replacements:
        text = text.substitute(pattern, spell)
    return text


def _load_g2pk2_data() -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    with _loading:
        return _read_g2pk2_data()


@functools.cache
def _read_g2pk2_data() -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """Words with a pronunciation of their own, and what a final and the next initial become, both in order."""
    package = importlib.util.find_spec("g2pk2")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("Korean needs the package g2pk2 for its data.", name="g2pk2")
    folder = Path(package.submodule_search_locations[0])
    idioms = []
    for line in (folder / "idioms.txt").read_text(encoding="utf-8").splitlines():
        written, separator, spoken = line.split("#")[0].strip().partition("===")
        if separator:
            idioms.append((re.compile(written), spoken))
    header, *rows = (folder / "table.csv").read_text(encoding="utf-8-sig").splitlines()
    initials = header.split(",")[1:]
    table = []
    for final, *cells in (row.split(",") for row in rows):
        for initial, cell in zip(initials, cells, strict=True):
            if cell:
                table.append((re.compile(final + initial), cell.split("(")[0]))  # in brackets: the rules' numbers
    return tuple(idioms), tuple(table)


def _load_mecab() -> Any:
    with _loading:
        return _make_mecab()


@functools.cache
def _make_mecab() -> Any:
    return importlib.import_module("mecab").MeCab()
