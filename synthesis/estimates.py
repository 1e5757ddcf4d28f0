"""About how long a text will sound, before it is spoken. Plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from synthesis.contracts import RenderRequest
from synthesis.languages import HAN, HANGUL, KANA, script_of
from synthesis.segmentation import PAUSE_MS, segment_text

# Seconds a character at speed 1, spaces and punctuation included, pauses excluded: the parametric engine with the
# demo's voice, two sentences each of en, de, es, fr, ru (0.046-0.056), zh, yue (0.20-0.23), ja (0.16), ko.
_LETTER_SECONDS = 0.052
_SCRIPT_SECONDS = {HAN: 0.215, KANA: 0.13, HANGUL: 0.15}


@dataclass(frozen=True, slots=True)
class Prediction:
    segments: int
    seconds: float


def predict(request: RenderRequest, *, languages: Sequence[str]) -> Prediction:
    """Segments exactly; seconds for a voice of average pace, while a reference may be a fifth faster or slower."""
    segments = segment_text(
        request.text, request.language, available_languages=languages, pronunciations=request.pronunciations
    ).segments
    seconds = sum(_SCRIPT_SECONDS.get(script_of(char) or "", _LETTER_SECONDS) for char in request.text)
    seconds += sum(PAUSE_MS[segment.pause] for segment in segments[:-1]) / 1000
    return Prediction(segments=len(segments), seconds=round(seconds / request.speed, 2))
