"""Chinese text in words with their kind, by jieba's dictionary and hidden Markov model."""

from __future__ import annotations

import importlib
import logging
import threading
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

_LOADING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    kind: str  # jieba's part of speech: n noun, v verb, a adjective, r pronoun, m number, x mark ...


def split_words(text: str) -> list[Word]:
    """The words in order; together they are `text`."""
    return [Word(pair.word, pair.flag) for pair in _taggers()[1].lcut(text)]


@lru_cache(maxsize=8192)
def split_in_two(word: str) -> int:
    """Where a word falls into two parts: the length of the first, which is the whole where jieba knows no shorter word.

    As upstream's tone_sandhi._split_word: the shortest word that jieba finds inside is one part, the rest the other.
    """
    shortest = min(_taggers()[0].cut_for_search(word), key=len)
    return len(shortest) if word.startswith(shortest) else len(word) - len(shortest)


def _taggers() -> tuple[Any, Any]:
    with _LOADING:  # a second thread waits for the dictionary instead of reading it again
        return _load_taggers()


@cache
def _load_taggers() -> tuple[Any, Any]:
    jieba = importlib.import_module("jieba")
    posseg = importlib.import_module("jieba.posseg")
    jieba.setLogLevel(logging.ERROR)
    tokenizer = jieba.Tokenizer()
    # Its own initialize() trusts a cache file in the shared temporary folder, which anybody may have put there; the
    # prefix dictionary takes about a second to build.
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer, posseg.POSTokenizer(tokenizer)
