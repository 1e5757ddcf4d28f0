"""Receiving a clip: to an unnamed temporary file, never beyond the limit, gone when the request ends."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import IO, Any, Final

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler
from django.http import HttpRequest

from tenants.errors import InvalidRequestError
from voices.errors import AudioTooLargeError, LengthRequiredError
from voices.intake import MAX_UPLOAD_BYTES

FIELD: Final = "audio"
MAX_FORM_BYTES: Final = MAX_UPLOAD_BYTES + 256 * 1024  # the other fields and the boundaries


@contextmanager
def receiving_clip(request: HttpRequest) -> Iterator[None]:
    """Parse the request's form inside this block: its file is closed, and so deleted, at the end.

    Raises LengthRequiredError and AudioTooLargeError at once; AudioTooLargeError and InvalidRequestError while reading.
    """
    if "Content-Length" not in request.headers and "Transfer-Encoding" in request.headers:
        raise LengthRequiredError
    if int(request.META.get("CONTENT_LENGTH") or 0) > MAX_FORM_BYTES:
        raise audio_too_large()
    with ExitStack() as files:
        request.upload_handlers = [_ClipHandler(request, files)]
        yield


def audio_too_large() -> AudioTooLargeError:
    return AudioTooLargeError(
        f"The file is larger than {MAX_UPLOAD_BYTES // 1_000_000} MB.", limit_bytes=MAX_UPLOAD_BYTES
    )


class _ClipHandler(FileUploadHandler):
    """Keeps the form's one file and refuses any other, before a byte of it is written."""

    _file: IO[bytes] | None = None

    def __init__(self, request: HttpRequest, files: ExitStack) -> None:
        super().__init__(request)
        self._files = files

    def new_file(
        self,
        field_name: str,
        file_name: str,
        content_type: str,
        content_length: int | None,
        charset: str | None = None,
        content_type_extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().new_file(field_name, file_name, content_type, content_length, charset, dict(content_type_extra or {}))
        if field_name != FIELD or self._file is not None:
            raise InvalidRequestError(f"Send one file, in the field `{FIELD}`.")
        # Unlinked at birth: not even a killed process leaves somebody's voice behind.
        file = tempfile.TemporaryFile(dir=settings.FILE_UPLOAD_TEMP_DIR)  # noqa: SIM115 - the stack closes it
        self._file = self._files.enter_context(file)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        assert self._file is not None
        # Counted here and not from `start`, which counts before a transfer encoding is undone.
        if self._file.tell() + len(raw_data) > MAX_UPLOAD_BYTES:
            raise audio_too_large()
        self._file.write(raw_data)

    def file_complete(self, file_size: int) -> UploadedFile[bytes]:
        assert self._file is not None
        size = self._file.tell()
        self._file.seek(0)
        return UploadedFile(
            file=self._file,
            name=self.file_name,
            content_type=self.content_type,
            size=size,
            charset=self.charset,
        )
