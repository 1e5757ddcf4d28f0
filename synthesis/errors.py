"""Errors of jobs and of the requests that make them: plain Python, no Django."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tenants.errors import ApplicationError, InvalidRequestError, NotFoundError


class TextRequiredError(InvalidRequestError):
    code = "text_required"

    def __init__(self) -> None:
        super().__init__("Send the text to speak.")


class UnspeakableTextError(InvalidRequestError):
    code = "unspeakable_text"

    def __init__(self) -> None:
        super().__init__("This text holds no letter and no digit: there is nothing to say.")


class TextTooLongError(InvalidRequestError):
    code = "text_too_long"

    def __init__(self, *, text_chars: int, limit_chars: int) -> None:
        super().__init__(
            f"The text has {text_chars} characters; the limit here is {limit_chars}.",
            text_chars=text_chars,
            limit_chars=limit_chars,
        )


class TextContainsNulError(InvalidRequestError):
    code = "text_contains_nul"

    def __init__(self) -> None:
        super().__init__("The text contains the character U+0000.")


class TextNotUnicodeError(InvalidRequestError):
    code = "text_not_unicode"

    def __init__(self) -> None:
        super().__init__("The text contains half of a surrogate pair, which is no character.")


class UnsupportedLanguageError(InvalidRequestError):
    code = "unsupported_language"

    def __init__(self, *, language: str) -> None:
        shown = language.encode("ascii", "backslashreplace").decode()[:32]  # half a surrogate pair is no JSON
        super().__init__("This language is not spoken here; see GET /v1/languages.", language=shown)


class UnsupportedFormatError(InvalidRequestError):
    code = "unsupported_format"

    def __init__(self, *, supported: Sequence[str]) -> None:
        super().__init__("This audio format is not made here.", supported=list(supported))


class UnsupportedSampleRateError(InvalidRequestError):
    code = "unsupported_sample_rate"

    def __init__(self, *, audio_format: str, supported: Sequence[int]) -> None:
        super().__init__(
            f"{audio_format} is not made at this sample rate.", format=audio_format, supported=list(supported)
        )


class JobNotFoundError(NotFoundError):
    code = "job_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such job.")


class JobNotFinishedError(ApplicationError):
    code = "job_not_finished"
    status = 409
    retryable = True

    def __init__(self, *, job_status: str) -> None:
        super().__init__("This job has not finished yet.", job_status=job_status, retry_after_seconds=1.0)


class JobCancelledError(ApplicationError):
    code = "job_cancelled"
    status = 409

    def __init__(self) -> None:
        super().__init__("This job was cancelled.")


DEADLINE_EXCEEDED: Final = "deadline_exceeded"
WORKER_LOST: Final = "worker_lost"
INTERNAL_ERROR: Final = "internal_error"

# What a listener is told when the job fails before its first byte; other codes are 500.
_STATUS_OF_FAILURE: Mapping[str, int] = {
    DEADLINE_EXCEEDED: 504,
    WORKER_LOST: 503,
    "engine_crashed": 503,
    "unspeakable_text": 422,
    "unsupported_language": 422,
    "voice_not_found": 404,
    "voice_not_ready": 409,
    "consent_required": 422,
    "consent_withdrawn": 409,
}


class JobFailedError(ApplicationError):
    """A job that ended without audio, as its listener is told: with the job's own code."""

    def __init__(self, *, error_code: str, message: str, job_id: str) -> None:
        super().__init__(message, job_id=job_id)
        self.code = error_code  # type: ignore[misc]  # the failures of jobs are data, not classes
        self.status = _STATUS_OF_FAILURE.get(error_code, 500)  # type: ignore[misc]
        self.retryable = self.status >= 500  # type: ignore[misc]
