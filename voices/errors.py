"""Errors of uploads (why a clip was refused) and of voices. Plain Python: the inspection program raises the former."""

from __future__ import annotations

from typing import ClassVar

from tenants.errors import ApplicationError, NotFoundError, SystemBusyError


class UploadRejectedError(ApplicationError):
    """Root of every reason to refuse an uploaded clip. Nothing of a refused clip is kept."""

    code: ClassVar[str] = "upload_rejected"
    status: ClassVar[int] = 422


class AudioEmptyError(UploadRejectedError):
    """The file has 0 bytes, or a header and no samples."""

    code = "audio_empty"
    status = 400


class AudioTooLargeError(UploadRejectedError):
    """Details: `size_bytes` where it is known, `limit_bytes`."""

    code = "audio_too_large"
    status = 413


class UnsupportedAudioFormatError(UploadRejectedError):
    """Not WAV, FLAC, Ogg (Opus, Vorbis) or MP3. Details: `detected`, `supported`."""

    code = "unsupported_audio_format"
    status = 415


class AudioFormatMismatchError(UploadRejectedError):
    """The file name or the content type says another format than the content. Details: `detected`, `declared`."""

    code = "audio_format_mismatch"
    status = 415


class AudioTrailingDataError(UploadRejectedError):
    """Something else follows the audio in the file. Details: `trailing_bytes`, `limit_bytes`."""

    code = "audio_trailing_data"


class AudioUnreadableError(UploadRejectedError):
    """The right kind of file, but damaged, cut off or forged."""

    code = "audio_unreadable"


class AudioNotFiniteError(UploadRejectedError):
    """Samples that are not numbers, or infinite. Details: `at_seconds`."""

    code = "audio_not_finite"


class UnsupportedSampleRateError(UploadRejectedError):
    """Details: `sample_rate_hz`, `minimum_hz`, `maximum_hz`."""

    code = "unsupported_sample_rate"


class UnsupportedChannelsError(UploadRejectedError):
    """Details: `channels`, `maximum`."""

    code = "unsupported_channels"


class AudioTooShortError(UploadRejectedError):
    """Less speech than a voice can be learned from. Details: `seconds`, `minimum_seconds`."""

    code = "audio_too_short"


class AudioSilentError(UploadRejectedError):
    """Details: `peak_dbfs`, `examined_seconds`."""

    code = "audio_silent"


class AudioNoSpeechError(UploadRejectedError):
    """Sound, but neither a voice's pitch nor a voice's rhythm: steady noise. Details: `voiced_share`."""

    code = "audio_no_speech"


class InspectionTimeoutError(UploadRejectedError):
    """The clip took more time to decode than any real recording does. Details: `limit_seconds`."""

    code = "inspection_timeout"


class InspectionFailedError(UploadRejectedError):
    """The measurements broke down over the clip: our mistake, logged as an error. The clip is not kept."""

    code = "inspection_failed"


class InspectionUnavailableError(SystemBusyError):
    """The inspection program cannot be started, or too many clips wait for it. Nothing is wrong with the clip."""

    code = "inspection_unavailable"


def _rejections(root: type[UploadRejectedError]) -> dict[str, type[UploadRejectedError]]:
    found = {root.code: root}
    for error in root.__subclasses__():
        found |= _rejections(error)
    return found


REJECTIONS_BY_CODE = _rejections(UploadRejectedError)


class VoiceNotFoundError(NotFoundError):
    """Missing, erased, or another tenant's: the answers are the same, so that no id is confirmed."""

    code = "voice_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such voice.")


class VoiceNotReadyError(ApplicationError):
    """Still being learned: the same request succeeds in a moment."""

    code = "voice_not_ready"
    status = 409
    retryable: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__("This voice is still being prepared.", voice_status="preparing", retry_after_seconds=1.0)


class VoicePreparationFailedError(ApplicationError):
    """It could not be learned and waiting does not help. Details: `failure_code`, `failure_message`."""

    code = "voice_not_ready"
    status = 409

    def __init__(self, *, failure_code: str, failure_message: str) -> None:
        super().__init__(
            "This voice could not be prepared.",
            voice_status="failed",
            failure_code=failure_code,
            failure_message=failure_message,
        )


class ConsentRequiredError(ApplicationError):
    code = "consent_required"
    status = 422

    def __init__(self) -> None:
        super().__init__("A voice is made only with the speaker's consent: send `consent=true`.")


class ConsentWithdrawnError(ApplicationError):
    code = "consent_withdrawn"
    status = 409

    def __init__(self) -> None:
        super().__init__("The speaker's consent to this voice was withdrawn.")


class LengthRequiredError(ApplicationError):
    """An upload of unknown length: it cannot be refused before it is read."""

    code = "length_required"
    status = 411

    def __init__(self) -> None:
        super().__init__("Send the form with a Content-Length header.")
