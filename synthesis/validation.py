"""Is this a request we can serve? Asked before anything is stored, by every API alike. Plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence

from billing.rating import billable_chars
from synthesis.contracts import (
    AUTO_LANGUAGE,
    MAX_PITCH_SEMITONES,
    MAX_SEED,
    MAX_SPEED,
    MIN_PITCH_SEMITONES,
    MIN_SPEED,
    SAMPLE_RATES_HZ,
    AudioFormat,
    RenderRequest,
)
from synthesis.errors import (
    TextContainsNulError,
    TextNotUnicodeError,
    TextRequiredError,
    TextTooLongError,
    UnspeakableTextError,
    UnsupportedFormatError,
    UnsupportedLanguageError,
    UnsupportedSampleRateError,
)
from synthesis.text import clean_text, is_speakable
from tenants.errors import InvalidRequestError

MAX_PRONUNCIATIONS = 100
MAX_PRONUNCIATION_CHARS = 100
_UNBILLED_SHARE = 4  # decomposed text has up to this many code points per billable character


def make_request(
    *,
    text: str,
    language: str,
    audio_format: str,
    sample_rate_hz: int | None,
    default_sample_rate_hz: int,
    speed: float,
    pitch_semitones: float,
    seed: int,
    pronunciations: Sequence[tuple[str, str]],
    limit_chars: int,
    languages: Sequence[str],
) -> RenderRequest:
    """A request that a renderer will accept; every refusal is an InvalidRequestError with a code of its own.

    `languages`: codes that can be spoken. Without a sample rate: the default, or the nearest one of the format.
    """
    _check_text(text, limit_chars=limit_chars)
    if language != AUTO_LANGUAGE and language not in languages:
        raise UnsupportedLanguageError(language=language)
    if audio_format not in tuple(AudioFormat):
        raise UnsupportedFormatError(supported=tuple(AudioFormat))
    rates = SAMPLE_RATES_HZ[AudioFormat(audio_format)]
    if sample_rate_hz is None:
        sample_rate_hz = min(rates, key=lambda rate: (abs(rate - default_sample_rate_hz), rate))
    elif sample_rate_hz not in rates:
        raise UnsupportedSampleRateError(audio_format=audio_format, supported=rates)
    _check_range("speed", speed, MIN_SPEED, MAX_SPEED)
    _check_range("pitch", pitch_semitones, MIN_PITCH_SEMITONES, MAX_PITCH_SEMITONES)
    _check_range("seed", seed, 0, MAX_SEED)
    _check_pronunciations(pronunciations)
    return RenderRequest(
        text=text,
        language=language,
        audio_format=AudioFormat(audio_format),
        sample_rate_hz=sample_rate_hz,
        speed=speed,
        pitch_semitones=pitch_semitones,
        seed=seed,
        pronunciations=tuple(pronunciations),
    )


def _check_text(text: str, *, limit_chars: int) -> None:
    if not text:
        raise TextRequiredError
    if len(text) > limit_chars * _UNBILLED_SHARE:
        raise TextTooLongError(text_chars=len(text), limit_chars=limit_chars)
    if "\0" in text:
        raise TextContainsNulError
    if not _is_unicode(text):
        raise TextNotUnicodeError
    chars = billable_chars(text)
    if chars > limit_chars:
        raise TextTooLongError(text_chars=chars, limit_chars=limit_chars)
    if not is_speakable(clean_text(text).text):
        raise UnspeakableTextError


def _check_pronunciations(pronunciations: Sequence[tuple[str, str]]) -> None:
    if len(pronunciations) > MAX_PRONUNCIATIONS:
        raise _invalid("/pronunciations", f"At most {MAX_PRONUNCIATIONS} pronunciations.")
    for index, words in enumerate(pronunciations):
        for word in words:
            if not 0 < len(word) <= MAX_PRONUNCIATION_CHARS or "\0" in word or not _is_unicode(word):
                raise _invalid(f"/pronunciations/{index}", f"Each side has 1-{MAX_PRONUNCIATION_CHARS} characters.")
            if not is_speakable(word):
                raise _invalid(f"/pronunciations/{index}", "Each side holds a letter or a digit.")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise _invalid(f"/{name}", f"{name} is between {low:g} and {high:g}.")


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _invalid(pointer: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(
        "The request is not valid.", errors=[{"pointer": pointer, "code": "invalid", "message": message}]
    )
