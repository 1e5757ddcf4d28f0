"""The two phone tables of the published models. A symbol's place in its table is its row in the models' embeddings.

Sizes, members and order are those of upstream's text/symbols.py (v1) and text/symbols2.py (v2): sorted sets by code
point, the second table behind the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

TableName = Literal["v1", "v2"]

UNKNOWN = "UNK"
PUNCTUATION = frozenset("!?…,.-")
_SILENCES = {"SP", "SP2", "SP3"}

# AA, EE and OO stand before syllables that begin with a vowel, so that each syllable has two symbols.
_MANDARIN_INITIALS = "AA EE OO b p m f d t n l g k h j q x zh ch sh r z c s y w"
# ir and i0 are the vowels of zhi and zi, E and En those of ye and yan, v is ü.
_MANDARIN_FINALS = """
a ai an ang ao e ei en eng er o ong ou i i0 ir ia ian iang iao ie in ing iong iu
u ua uai uan uang ui un uo v van ve vn E En
"""
MANDARIN_FINALS = frozenset(_MANDARIN_FINALS.split())
_MANDARIN_TONES = "12345"

# Open JTalk's phones: I and U are whispered, N closes a syllable, cl is a held consonant.
_JAPANESE = "a i u e o I U N cl k ky s sh t ch ts n ny h hy f m my y r ry w g gy z j d dy b by p py v"
_JAPANESE_PHRASING = ("[", "]")

_ENGLISH_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
_ENGLISH_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
_ENGLISH_STRESSES = "012"
_ENGLISH_BARE = {"ER", "IH"}

_KOREAN = set("ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎㅏㅐㅓㅔㅗㅜㅡㅣ")
_KOREAN_MARKS = {"空", "停"}  # a space, and a letter that could not be read

# Initials; among them are finals, for upstream splits a syllable without initial at its longest listed beginning.
_CANTONESE_BARE = "b p m f d t n l g k ng h gw kw w z c s j a aa ai ak au e o oi ok on ou uk"
_CANTONESE_TONED = """
a aa aai aak aam aan aang aap aat aau ai ak am an ang ap at au e ei ek eng eoi eon eot g i ik im in ing ip it iu
k m n o oe oek oeng oi ok on ong ot ou p t u ui uk un ung ut yu yun yut
"""
_CANTONESE_TONES = "123456"


@dataclass(frozen=True)
class SymbolTable:
    """`symbols[id]` is the phone with that id."""

    V1: ClassVar[SymbolTable]  # 322 symbols: models v1
    V2: ClassVar[SymbolTable]  # 732 symbols: every later model

    symbols: tuple[str, ...]

    @cached_property
    def _id_of(self) -> dict[str, int]:
        return {symbol: index for index, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._id_of

    @classmethod
    def named(cls, name: TableName) -> SymbolTable:
        return cls.V1 if name == "v1" else cls.V2

    def id_of(self, symbol: str) -> int:
        """Its id; a symbol that is not in the table gets that of UNK."""
        return self._id_of.get(symbol, self._id_of[UNKNOWN])

    def ids(self, symbols: Iterable[str]) -> list[int]:
        return [self.id_of(symbol) for symbol in symbols]


def _toned(finals: str, tones: str) -> set[str]:
    return {final + tone for final in finals.split() for tone in tones}


def _first_table() -> tuple[str, ...]:
    mandarin = {*_MANDARIN_INITIALS.split()} | _toned(_MANDARIN_FINALS, _MANDARIN_TONES)
    english = {*_ENGLISH_CONSONANTS.split()} | _toned(_ENGLISH_VOWELS, _ENGLISH_STRESSES) | _ENGLISH_BARE
    return tuple(sorted({"_", UNKNOWN} | PUNCTUATION | _SILENCES | mandarin | {*_JAPANESE.split()} | english))


def _second_table() -> tuple[str, ...]:
    cantonese = {*_CANTONESE_BARE.split()} | _toned(_CANTONESE_TONED, _CANTONESE_TONES)
    korean = sorted(_KOREAN | _KOREAN_MARKS)
    return (*_first_table(), *_JAPANESE_PHRASING, *korean, *sorted("Y" + symbol for symbol in cantonese))


SymbolTable.V1 = SymbolTable(_first_table())
SymbolTable.V2 = SymbolTable(_second_table())
