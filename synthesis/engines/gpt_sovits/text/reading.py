"""A whole text to the phone ids that the models take, whatever languages it is written in.

The rules are those of upstream's TextPreprocessor.get_phones_and_bert and clean_text (commit 48b1a016).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthesis.engines.base import Pronunciation
from synthesis.engines.errors import UnspeakableTextError, UnsupportedLanguageError
from synthesis.engines.gpt_sovits.text.en import read_english
from synthesis.engines.gpt_sovits.text.en_lexicon import EnglishLexicon
from synthesis.engines.gpt_sovits.text.ja import read_japanese
from synthesis.engines.gpt_sovits.text.ja_dictionary import UserDictionary
from synthesis.engines.gpt_sovits.text.ko import read_korean
from synthesis.engines.gpt_sovits.text.language_detector import LanguageDetector
from synthesis.engines.gpt_sovits.text.mixed import SegmentLanguage, split_languages
from synthesis.engines.gpt_sovits.text.phones import PhoneLanguage, Phones
from synthesis.engines.gpt_sovits.text.polyphones import load_polyphones
from synthesis.engines.gpt_sovits.text.symbols import PUNCTUATION, UNKNOWN, SymbolTable, TableName
from synthesis.engines.gpt_sovits.text.tagger_en import PerceptronTagger, Tagger
from synthesis.engines.gpt_sovits.text.yue import read_cantonese
from synthesis.engines.gpt_sovits.text.zh import Corrections, PinyinReader, read_chinese
from synthesis.engines.mapped_text import MappedText, Span
from synthesis.engines.pronunciations import apply_pronunciations

_SPOKEN_LANGUAGES: Mapping[TableName, frozenset[PhoneLanguage]] = {
    "v1": frozenset({"zh", "en", "ja"}),
    "v2": frozenset({"zh", "yue", "en", "ja", "ko"}),
}
# Settings in which the segmentation decides about every stretch, and what Chinese is read as. A plain language code
# lets it find English only: all the rest is of the language that the request names.
_DETECTED: Mapping[str, PhoneLanguage] = {"auto": "zh", "auto_yue": "yue"}
# Like a plain code, but numbers and English in other scripts stay with the language named (upstream's all_*).
_DEFAULTS: Mapping[str, tuple[SegmentLanguage, PhoneLanguage]] = {
    "all_zh": ("zh", "zh"),
    "all_yue": ("zh", "yue"),
    "all_ja": ("ja", "ja"),
    "all_ko": ("ko", "ko"),
}
LANGUAGES: Mapping[TableName, frozenset[str]] = {
    table: frozenset(
        {
            *spoken,
            *(setting for setting, chinese in _DETECTED.items() if chinese in spoken),
            *(setting for setting, (_, language) in _DEFAULTS.items() if language in spoken),
        }
    )
    for table, spoken in _SPOKEN_LANGUAGES.items()
}  # what `read_text` takes

_SPACES = re.compile(" {2,}")
_FEWEST_PHONES = 6  # of a text; below, the models tend to swallow it, and a pause is put before it
_SOUNDLESS = PUNCTUATION | {UNKNOWN, "SP", "SP2", "SP3", "_", "[", "]", "空", "停"}


@dataclass(frozen=True, slots=True)
class TextData:
    """What the fronts look things up in. Read-only and shared between threads; None is a front's own default."""

    detector: LanguageDetector
    lexicon: EnglishLexicon | None = None
    tagger: Tagger | None = None
    polyphones: PinyinReader | None = None
    corrections: Corrections | None = None  # of the polyphone network's readings
    japanese: UserDictionary | None = None

    @classmethod
    def load(cls, folder: Path | None = None, *, bert_vocabulary: Path | None = None) -> TextData:
        """With the operator's data files as far as they lie in `folder` (`MODEL_PATH/text`), each optional.

        `lid.176.bin` (languages); `cmudict.rep`, `cmudict-fast.rep`, `engdict-hot.rep`, `namedict_cache.pickle` and
        NLTK's `averaged_perceptron_tagger_eng` (English); `userdict.csv` (Japanese); `polyphonic.rep`,
        `polyphonic-fix.rep` and `g2pw/` (Chinese: the network wants onnxruntime, and as `bert_vocabulary` the
        vocab.txt of the BERT that it grew from).
        Raises ModelFileError for one that cannot be read.
        """
        detector = LanguageDetector.load(folder)
        if folder is None or not folder.is_dir():
            return cls(detector)
        corrections = Corrections.load(folder)
        return cls(
            detector,
            lexicon=EnglishLexicon.load(folder),
            tagger=PerceptronTagger.load(folder),
            polyphones=load_polyphones(folder / "g2pw", bert_vocabulary) if bert_vocabulary is not None else None,
            corrections=corrections if corrections.readings else None,
            japanese=UserDictionary.load(folder),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a text sounds like. n phones.

    BERT has to be run on the `norm_text` of every segment in Chinese (zh), its rows repeated by
    `phones_per_character`; the features of all other segments are zeros.
    """

    segments: tuple[Phones, ...]  # in order; together they have the n phones
    ids: NDArray[np.int64]  # (n,)

    @property
    def symbols(self) -> tuple[str, ...]:
        """n, one for each id."""
        return tuple(symbol for segment in self.segments for symbol in segment.symbols)

    @property
    def origins(self) -> tuple[Span, ...]:
        """n spans of the text that was handed in (code points), never going backwards."""
        return tuple(span for segment in self.segments for span in segment.origins)

    @property
    def norm_text(self) -> str:
        """Its length is what upstream batches by."""
        return "".join(segment.norm_text for segment in self.segments)


def read_text(
    text: str,
    *,
    language: str,
    table: TableName,
    data: TextData,
    pronunciations: Sequence[Pronunciation] = (),
) -> Reading:
    """The phones of `text`, with `pronunciations` said in place of what they replace.

    `language` is one of `LANGUAGES[table]`: a language that stretches of English may interrupt, `auto` or `auto_yue`,
    or one of upstream's `all_*`. Raises UnsupportedLanguageError, also where `auto` finds Korean and the table has
    none, and UnspeakableTextError.
    """
    return read_mapped_text(apply_pronunciations(text, pronunciations), language=language, table=table, data=data)


def read_mapped_text(text: MappedText, *, language: str, table: TableName, data: TextData) -> Reading:
    """The same for a text that was rewritten, or a piece of one: `origins` point into what it was made from."""
    if language not in LANGUAGES[table]:
        raise UnsupportedLanguageError(f"These models do not speak {language!r}.", language=language)
    text = text.substitute(_SPACES, " ")
    segments = _read(text, language, table, data)
    if text.text and sum(len(segment.symbols) for segment in segments) < _FEWEST_PHONES:
        pause = text.slice(0, 1).rewritten(".")
        segments = _read(MappedText.join([pause, text]), language, table, data)
    symbols = [symbol for segment in segments for symbol in segment.symbols]
    if _SOUNDLESS.issuperset(symbols):
        raise UnspeakableTextError("The text holds nothing to say in this language.", language=language)
    return Reading(tuple(segments), np.array(SymbolTable.named(table).ids(symbols), dtype=np.int64))


def _read(text: MappedText, language: str, table: TableName, data: TextData) -> list[Phones]:
    segments: list[Phones] = []
    for spoken, part in _stretches(text, language, data.detector):
        if spoken not in _SPOKEN_LANGUAGES[table]:
            raise UnsupportedLanguageError(f"These models do not speak {spoken!r}.", language=spoken)
        segment = _read_stretch(part, spoken, table, data)
        if segment is not None:
            segments.append(segment)
    return segments


def _stretches(
    text: MappedText, language: str, detector: LanguageDetector
) -> Iterator[tuple[PhoneLanguage, MappedText]]:
    if language == "en":
        yield "en", text
    elif language in _DEFAULTS:
        default, spoken = _DEFAULTS[language]
        for found, part in split_languages(text, default=default, detector=detector):
            yield (spoken if found == default else found), part
    elif language in _DETECTED:
        for found, part in split_languages(text, default=None, detector=detector):
            yield (_DETECTED[language] if found == "zh" else found), part
    else:
        parts = split_languages(text, default=None, detector=detector)
        for is_english, group in groupby(parts, key=lambda part: part[0] == "en"):
            yield ("en" if is_english else _PLAIN[language]), MappedText.join(part for _, part in group)


_PLAIN: Mapping[str, PhoneLanguage] = {"zh": "zh", "yue": "yue", "ja": "ja", "ko": "ko"}


def _read_stretch(text: MappedText, language: PhoneLanguage, table: TableName, data: TextData) -> Phones | None:
    """None if there is nothing to say in it; only an English one then makes a pause, as upstream's does."""
    symbols = SymbolTable.named(table)
    try:
        match language:
            case "zh":
                return read_chinese(text, table=table, pinyin=data.polyphones, corrections=data.corrections)
            case "yue":
                return read_cantonese(text)
            case "en":
                return read_english(text, table=symbols, tagger=data.tagger, lexicon=data.lexicon)
            case "ja":
                return read_japanese(text, table=symbols, dictionary=data.japanese)
            case "ko":
                return read_korean(text)
    except UnspeakableTextError:
        return Phones("en", "", (",",), text.origins[:1]) if language == "en" and text.text else None
