"""Which language a stretch of text is spoken in, told by its script.

Scripts tell Chinese from English, not English from French: in `auto`, Latin letters are read as English, and a text in
another Latin-script language names it.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

HAN = "CJK"
KANA = "KANA"
HANGUL = "HANGUL"
LATIN = "LATIN"

# First words of Unicode character names -> script. Scripts without a language below leave a run as it is.
_SCRIPT_NAMES: Mapping[str, str] = {
    "IDEOGRAPHIC": HAN,
    "HIRAGANA": KANA,
    "KATAKANA": KANA,
    "KATAKANA-HIRAGANA": KANA,
}
_LANGUAGE_OF_SCRIPT: Mapping[str, str] = {
    LATIN: "en",
    HAN: "zh",
    KANA: "ja",
    HANGUL: "ko",
    "CYRILLIC": "ru",
    "GREEK": "el",
    "ARABIC": "ar",
    "HEBREW": "he",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "GURMUKHI": "pa",
    "GUJARATI": "gu",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "SINHALA": "si",
    "THAI": "th",
    "LAO": "lo",
    "MYANMAR": "my",
    "KHMER": "km",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
    "ETHIOPIC": "am",
}
# Scripts a language is written in where that is not Latin alone. Korean reads Hanja itself.
_SCRIPTS_OF_LANGUAGE: Mapping[str, frozenset[str]] = {
    **{language: frozenset({script}) for script, language in _LANGUAGE_OF_SCRIPT.items()},
    **dict.fromkeys(("zh", "cmn", "yue", "wuu", "hak", "nan"), frozenset({HAN})),
    "ja": frozenset({HAN, KANA}),
    "ko": frozenset({HANGUL, HAN}),
    **dict.fromkeys(("be", "bg", "ba", "cv", "kk", "ky", "mk", "mn", "tt", "uk"), frozenset({"CYRILLIC"})),
    **dict.fromkeys(("az", "sr", "uz"), frozenset({"CYRILLIC", LATIN})),
    **dict.fromkeys(("fa", "ks", "ps", "sd", "ug", "ur"), frozenset({"ARABIC"})),
    **dict.fromkeys(("kok", "mr", "ne", "sa"), frozenset({"DEVANAGARI"})),
    **dict.fromkeys(("as", "bpy"), frozenset({"BENGALI"})),
    "grc": frozenset({"GREEK"}),
    "yi": frozenset({"HEBREW"}),
}
_WORDS_PER_LETTER: Mapping[str, int] = {HAN: 3, KANA: 2, HANGUL: 2}  # a word takes fewer of these characters
_KANA_SHARE_OF_JAPANESE = 0.1  # names like 優の良品 in a Chinese text stay below


@lru_cache(maxsize=8192)
def script_of(char: str) -> str | None:
    """The script of a letter; None for what every script shares: digits, punctuation, marks, symbols, space."""
    if unicodedata.category(char)[0] != "L":
        return None
    words = unicodedata.name(char, "").split()
    if words and words[0] in ("FULLWIDTH", "HALFWIDTH"):
        words = words[1:]
    if not words:
        return None
    script = _SCRIPT_NAMES.get(words[0], words[0])
    return script if script in _LANGUAGE_OF_SCRIPT else None


def reads_script(language: str, script: str) -> bool:
    """Whether `script` is one that `language` is written in."""
    return script in _SCRIPTS_OF_LANGUAGE.get(language.split("-", 1)[0], frozenset({LATIN}))


def find_language(language: str, available: Sequence[str]) -> str | None:
    """`language` itself if available, otherwise its first regional form (`en` -> `en-us`)."""
    if language in available:
        return language
    return next((code for code in available if code.split("-", 1)[0] == language), None)


def language_of_script(script: str, *, with_kana: bool, available: Sequence[str]) -> str | None:
    """The available language to speak `script` in, or None. Han beside kana is Japanese."""
    language = "ja" if script == HAN and with_kana else _LANGUAGE_OF_SCRIPT[script]
    return find_language(language, available)


def is_japanese(text: str) -> bool:
    """Whether kana make up so much of a Han text that its kana-free sentences are Japanese too."""
    scripts = Counter(map(script_of, text))
    return scripts[KANA] > 0 and scripts[KANA] >= _KANA_SHARE_OF_JAPANESE * (scripts[KANA] + scripts[HAN])


def detect_language(sentence: str, *, japanese_text: bool, available: Sequence[str]) -> str | None:
    """The language of most of the words of `sentence`; None without letters or without such a language."""
    scripts = Counter(script for char in sentence if (script := script_of(char)) is not None)
    if not scripts:
        return None
    with_kana = scripts[KANA] > 0 or japanese_text
    if scripts[KANA]:
        scripts[HAN] += scripts.pop(KANA)
    dominant = max(scripts, key=lambda script: scripts[script] * _WORDS_PER_LETTER.get(script, 1))
    return language_of_script(dominant, with_kana=with_kana, available=available)
