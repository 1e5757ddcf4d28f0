"""Japanese to phones: Open JTalk's phonemes with marks for the melody.

`[` stands where the pitch rises, `]` where it falls, and an accent phrase ends with a mark that the symbol tables lack,
so that the models know it as UNK. Rules: upstream's text/japanese.py; the marks are those of Kurihara et al. 2021
(doi 10.1587/transinf.2020EDP7104) as ESPnet extracts them. Needs pyopenjtalk-plus, imported at the first call.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

from synthesis.engines.errors import UnspeakableTextError
from synthesis.engines.gpt_sovits.text.ja_accent import Word, with_open_jtalk_accents
from synthesis.engines.gpt_sovits.text.ja_dictionary import UserDictionary
from synthesis.engines.gpt_sovits.text.origins import never_backwards, spans_of_words
from synthesis.engines.gpt_sovits.text.phones import Phones
from synthesis.engines.gpt_sovits.text.symbols import UNKNOWN, SymbolTable
from synthesis.engines.mapped_text import MappedText, Span

# What Open JTalk is given: Latin letters, digits, kana, kanji, and the wide forms of the first two.
_READABLE = re.compile(
    r"[A-Za-z\d\u3005\u3040-\u30ff\u4e00-\u9fff\uff11-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uff9d]+"
)
_REPEATED_PUNCTUATION = re.compile(r"([!?…,.\-])[!?…,.\-]+")
_PUNCTUATION_OF = {"：": ",", "；": ",", "，": ",", "、": ",", "·": ",", "。": ".", "\n": ".", "！": "!", "？": "?"}
_PERCENT = re.compile("％")
_RUN_CHARS = 500  # Open JTalk's time grows with the square of what it is given at once
_PHRASE_END = "#"
_PAUSE = "_"
_MARKS = frozenset({"[", "]", _PHRASE_END})

_KANA = re.compile("[\u3041-\u30fa]")
_HAN = re.compile("[\u4e00-\u9fff]")
_FIELDS_WITH_READING = 8  # of a morpheme in MeCab's words; unknown ones end before
# As Open JTalk's njd_set_pronunciation.c leaves a word that it cannot read.
_UNREAD: Word = {
    "pos": "記号",
    "pos_group1": "読点",
    "pos_group2": "*",
    "pos_group3": "*",
    "read": "、",
    "pron": "、",
    "acc": 0,
    "mora_size": 0,
    "chain_rule": "*",
}

_PHONE = re.compile(r"-(.*?)\+")
_FROM_ACCENT = re.compile(r"/A:([0-9-]+)\+")  # moras from the accent nucleus
_MORA = re.compile(r"\+(\d+)\+")  # place in the accent phrase, from its beginning
_MORA_FROM_END = re.compile(r"\+(\d+)/")
_PHRASE_MORAS = re.compile(r"/F:(\d+)_")

_lock = threading.Lock()  # Open JTalk keeps the sentence it is working on in itself


def read_japanese(text: MappedText, *, table: SymbolTable, dictionary: UserDictionary | None = None) -> Phones:
    """Phones with accent marks. Raises UnspeakableTextError if neither a sound nor a pause comes of the text."""
    normal = text.substitute(_REPEATED_PUNCTUATION, r"\1")
    spoken = normal.substitute(_PERCENT, "パーセント")
    spoken = spoken.translate({letter: letter.lower() for letter in set(spoken.text)})
    found: list[tuple[str, Span]] = []
    position = 0
    for run in _READABLE.finditer(spoken.text):
        found += _read_marks(spoken.slice(position, run.start()))
        for start in range(run.start(), run.end(), _RUN_CHARS):
            found += _read_run(spoken.slice(start, min(start + _RUN_CHARS, run.end())), dictionary)
        position = run.end()
    found += _read_marks(spoken.slice(position, len(spoken.text)))
    symbols = tuple(symbol if symbol in table else UNKNOWN for symbol, _ in found)
    if all(symbol == UNKNOWN for symbol in symbols):
        raise UnspeakableTextError("The text holds nothing that can be said in Japanese.")
    return Phones("ja", normal.text, symbols, never_backwards(span for _, span in found))


def _read_marks(text: MappedText) -> Iterator[tuple[str, Span]]:
    for letter, span in zip(text.text, text.origins, strict=True):
        if letter != " ":
            yield _PUNCTUATION_OF.get(letter, letter), span


def _read_run(text: MappedText, dictionary: UserDictionary | None) -> list[tuple[str, Span]]:
    module = _load_open_jtalk()
    own = dictionary.open_jtalk if dictionary is not None else None  # None is the module's
    with _lock:
        words = module.run_frontend(text.text, predict_nani=False, jtalk=own)  # that network needs onnxruntime
        entries = module.run_mecab(text.text, jtalk=own)
        words = with_open_jtalk_accents(map(_as_models_read, _without_guesses(words, entries, text.text)), entries)
        labels = module.make_label(words, jtalk=own)
        parts = module.make_phoneme_mapping(words, jtalk=own)
    phones = _phones_with_marks(labels)
    places = _places(words, parts, text, sum(symbol not in _MARKS for symbol in phones))
    spans: list[Span] = []
    for symbol in phones:
        if symbol in _MARKS and spans:
            spans.append(spans[-1])
        else:
            spans.append(next(places))
    return list(zip(phones, spans, strict=True))


def _without_guesses(words: list[Word], dictionary_entries: list[str], run: str) -> Iterator[Word]:
    """A pause in place of words that are not Japanese: Open JTalk passes over what its dictionary lacks.

    pyopenjtalk-plus guesses a reading character by character. That is kept where a rare Japanese word is likelier than
    a Chinese one: among kana, if all of its characters are in the Japanese character set.
    """
    unknown = {entry.split(",", 1)[0] for entry in dictionary_entries if entry.count(",") < _FIELDS_WITH_READING}
    has_kana = _KANA.search(run) is not None
    for word in words:
        written = word["string"]
        if written in unknown and _HAN.search(written) and not (has_kana and _is_in_japanese_set(written)):
            word = word | _UNREAD
        yield word


def _is_in_japanese_set(written: str) -> bool:
    try:
        written.encode("cp932")  # JIS X 0208 and the vendors' characters for names
    except UnicodeEncodeError:
        return False
    return True


def _as_models_read(word: Word) -> Word:
    """日本 alone is nippon in the dictionary whose readings the models learned, whatever voices said."""
    if word["string"] == "日本" and word["pron"] == "ニホン":
        return word | {"read": "ニッポン", "pron": "ニッポン", "mora_size": 4, "acc": 3}
    return word


def _phones_with_marks(labels: list[str]) -> list[str]:
    phones: list[str] = []
    for label, following in zip(labels, [*labels[1:], ""], strict=False):
        match = _PHONE.search(label)
        phone = match[1] if match else "sil"
        if phone == "sil":
            continue
        if phone == "pau":
            phones.append(_PAUSE)
            continue
        if phone in "AEIOU":  # whispered, which these models are not told
            phone = phone.lower()
        phones.append(phone)
        mora, next_mora = _number(_MORA, label), _number(_MORA, following)
        if _number(_MORA_FROM_END, label) == 1 and next_mora == 1 and phone in "aeiouNcl":
            phones.append(_PHRASE_END)
        elif _number(_FROM_ACCENT, label) == 0 and next_mora == mora + 1 and mora != _number(_PHRASE_MORAS, label):
            phones.append("]")
        elif mora == 1 and next_mora == 2:
            phones.append("[")
    return phones


def _number(pattern: re.Pattern[str], label: str) -> int:
    match = pattern.search(label)
    return int(match[1]) if match else -50  # far from every real place


def _places(words: list[Word], parts: list[dict[str, Any]], text: MappedText, phones: int) -> Iterator[Span]:
    """The origin of each of the `phones` sounds and pauses, by words."""
    spans = spans_of_words([part["surface"] for part in parts], text.text)
    counts = [len(part["phonemes"]) for part in parts]
    if sum(counts) != phones:  # a symbol that Open JTalk passed over in silence: share out by the letters' moras
        spans = spans_of_words([word["string"] for word in words], text.text)
        counts = [word["mora_size"] for word in words]
    owners = [span for span, count in zip(spans, counts, strict=True) for _ in range(count)] or [(0, len(text.text))]
    for index in range(phones):
        yield text.origin(*owners[index * len(owners) // phones])


@functools.cache
def _load_open_jtalk() -> Any:
    """The module; its import takes half a second, which only Japanese pays for."""
    with _lock, contextlib.redirect_stdout(sys.stderr):  # it prints a hint about an extra that is not used here
        return importlib.import_module("pyopenjtalk")
