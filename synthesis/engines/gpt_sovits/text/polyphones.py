"""The optional network that tells the readings of one character apart: g2pW (Chen et al. 2022, arXiv:2203.10430).

It is used where its files lie in `MODEL_PATH/text/g2pw/` and onnxruntime is installed; otherwise pypinyin's dictionary
reads word by word. Of the published folder (G2PWModel 1.1) four files are read: `g2pW.onnx`, `POLYPHONIC_CHARS.txt`,
`MONOPHONIC_CHARS.txt` and `bopomofo_to_pinyin_wo_tune_dict.json`. Its config.py is a program and is not run: the
settings below are those it publishes.
"""

from __future__ import annotations

import importlib
import json
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthesis.engines.gpt_sovits.errors import ModelFileError
from synthesis.engines.gpt_sovits.text.normalise_zh import simplified_characters
from synthesis.engines.gpt_sovits.text.zh import read_word

# From the network's inputs (see `_ask`) to the probability of each label, (B, labels).
Network = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]

_NETWORK_NAMES = ("g2pW.onnx", "g2pw.onnx")
_TABLE_NAMES = ("POLYPHONIC_CHARS.txt", "MONOPHONIC_CHARS.txt", "bopomofo_to_pinyin_wo_tune_dict.json")
_CONTEXT = 16  # characters kept before the first and after the last one that is asked for
_LONGEST = 512 - 2  # tokens of a BERT row beside [CLS] and [SEP]
_BATCH = 32
_THREADS = 2

# Characters that the tables list but upstream's text/g2pw/onnx_api.py does not ask the network about, nor takes from
# the table of single readings.
_LEFT_TO_THE_DICTIONARY = frozenset("一不和咋嗲剖差攢倒難奔勁拗肖瘙誒泊听噢")
_NOT_OF_ONE_READING = frozenset("似攢")


@dataclass(frozen=True)
class PolyphoneReader:
    """Segments in, one pinyin a character out: a `PinyinReader` for `read_chinese`."""

    network: Network
    vocabulary: Mapping[str, int]  # of the BERT that the network grew from
    labels: tuple[str, ...]  # bopomofo with tone, sorted: the network's outputs
    label_ids: Mapping[str, tuple[int, ...]]  # of each character that has several readings
    single_readings: Mapping[str, str]  # character -> bopomofo with tone
    pinyin_of: Mapping[str, str]  # bopomofo without tone -> pinyin

    @classmethod
    def from_tables(cls, folder: Path, vocabulary_file: Path, network: Network) -> PolyphoneReader:
        """`vocabulary_file` is the BERT's vocab.txt, one token a line."""
        polyphones, monophones = (_pairs(folder / name) for name in _TABLE_NAMES[:2])
        labels = tuple(sorted({label for _, label in polyphones}))
        index = {label: number for number, label in enumerate(labels)}
        label_ids: dict[str, tuple[int, ...]] = {}
        for letter, label in polyphones:
            label_ids[letter] = (*label_ids.get(letter, ()), index[label])
        tokens = vocabulary_file.read_text(encoding="utf-8").split("\n")
        vocabulary = {token.rstrip("\r"): number for number, token in enumerate(tokens)}
        if not {"[UNK]", "[CLS]", "[SEP]"} <= vocabulary.keys():
            raise ModelFileError("The vocabulary is not a BERT's.", file=vocabulary_file.name)
        return cls(
            network=network,
            vocabulary=vocabulary,
            labels=labels,
            label_ids=label_ids,
            single_readings={letter: label for letter, label in monophones if letter not in _NOT_OF_ONE_READING},
            pinyin_of=json.loads((folder / _TABLE_NAMES[2]).read_text(encoding="utf-8")),
        )

    def __call__(self, segments: Sequence[str]) -> list[list[str]]:
        read: list[list[str]] = []
        questions: list[_Question] = []
        for number, segment in enumerate(segments):
            letters = _traditional(segment)
            simplified = "".join(simplified_characters().get(letter, letter) for letter in letters)
            read.append(
                [
                    self._pinyin(self.single_readings.get(letter, "")) or fallback or letter
                    for letter, fallback in zip(letters, read_word(simplified), strict=True)
                ]
            )
            questions += self._questions(number, letters)
        for start in range(0, len(questions), _BATCH):
            batch = questions[start : start + _BATCH]
            for question, label in zip(batch, self._ask(batch), strict=True):
                pinyin = self._pinyin(label)
                if pinyin:
                    read[question.segment][question.position] = pinyin
        return read

    def _questions(self, segment: int, letters: str) -> list[_Question]:
        asked = [
            index
            for index, letter in enumerate(letters)
            if letter in self.label_ids and letter not in _LEFT_TO_THE_DICTIONARY
        ]
        if not asked:
            return []
        left, right = max(0, asked[0] - _CONTEXT), min(len(letters), asked[-1] + _CONTEXT + 1)
        questions = []
        for index in asked:
            start = min(max(left, index - _LONGEST // 2), max(left, right - _LONGEST))
            context = letters[start : min(right, start + _LONGEST)]
            questions.append(_Question(segment, index, context, index - start))
        return questions

    def _ask(self, batch: Sequence[_Question]) -> list[str]:
        tokens = self.vocabulary
        unknown, begin, end = tokens["[UNK]"], tokens["[CLS]"], tokens["[SEP]"]
        width = max(len(question.context) for question in batch) + 2
        input_ids = np.zeros((len(batch), width), np.int64)  # (B, S), padded with [PAD], 0
        attention_mask = np.zeros_like(input_ids)
        phoneme_mask = np.zeros((len(batch), len(self.labels)), np.float32)
        letters = sorted(self.label_ids)
        for row, question in enumerate(batch):
            ids = [begin, *(tokens.get(letter, unknown) for letter in question.context), end]
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
            phoneme_mask[row, list(self.label_ids[question.letter])] = 1.0
        probabilities = self.network(
            {
                "input_ids": input_ids,
                "token_type_ids": np.zeros_like(input_ids),
                "attention_mask": attention_mask,
                "phoneme_mask": phoneme_mask,
                "char_ids": np.array([bisect_left(letters, question.letter) for question in batch], np.int64),
                "position_ids": np.array([question.offset + 1 for question in batch], np.int64),  # behind [CLS]
            }
        )
        return [self.labels[best] for best in probabilities.argmax(axis=1)]

    def _pinyin(self, bopomofo: str) -> str:
        syllable = self.pinyin_of.get(bopomofo[:-1], "")
        return syllable + bopomofo[-1] if syllable else ""


@dataclass(frozen=True, slots=True)
class _Question:
    segment: int
    position: int  # in the segment
    context: str
    offset: int  # in the context

    @property
    def letter(self) -> str:
        return self.context[self.offset]


def load_polyphones(folder: Path, vocabulary_file: Path) -> PolyphoneReader | None:
    """The network in `folder`, or None where one of its files, the vocabulary or onnxruntime is missing.

    Raises ModelFileError if a file is there and cannot be used.
    """
    network_file = next((folder / name for name in _NETWORK_NAMES if (folder / name).is_file()), None)
    needed = [folder / name for name in _TABLE_NAMES] + [vocabulary_file]
    if network_file is None or not all(path.is_file() for path in needed):
        return None
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS

    def network(inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        probabilities: NDArray[np.float32] = session.run(None, dict(inputs))[0]
        return probabilities

    try:
        session = onnxruntime.InferenceSession(str(network_file), options, providers=["CPUExecutionProvider"])
        return PolyphoneReader.from_tables(folder, vocabulary_file, network)
    except ModelFileError:
        raise
    except Exception as error:  # onnxruntime's own errors share no root but this
        raise ModelFileError("The polyphone network cannot be read.", folder=folder.name, reason=str(error)) from error


def _pairs(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text(encoding="utf-8").strip().splitlines()
    return [(letter, label) for letter, _, label in (line.strip().partition("\t") for line in lines)]


def _traditional(segment: str) -> str:
    """The network was trained on Taiwan's characters."""
    converted: str = _converter().convert(segment)
    return converted if len(converted) == len(segment) else segment


@lru_cache(maxsize=1)
def _converter() -> Any:
    return importlib.import_module("opencc").OpenCC("s2tw")
