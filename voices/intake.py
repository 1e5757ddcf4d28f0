"""Upload inspection: from a file somebody sent to the seconds of audio that are kept, or a reason to refuse it.

This process never decodes what was sent. A helper program (`voices.inspection`) forks one limited child per upload; see
`voices/inspection/wire.py` for how they talk. Nothing is written to disk on the way.
"""

from __future__ import annotations

import atexit
import hashlib
import io
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Final

import structlog

from voices.errors import (
    REJECTIONS_BY_CODE,
    AudioEmptyError,
    AudioTooLargeError,
    AudioUnreadableError,
    InspectionFailedError,
    InspectionTimeoutError,
    InspectionUnavailableError,
)
from voices.inspection.limits import MAX_ANSWER_BYTES, MAX_UPLOAD_BYTES, ProcessLimits
from voices.inspection.report import Advice, QualityReport
from voices.inspection.wire import Answer, Question, unpack_answer

__all__ = ["MAX_UPLOAD_BYTES", "Advice", "InspectedClip", "Inspector", "QualityReport", "inspect_upload"]

logger = structlog.get_logger(__name__)

_PROJECT_ROOT = Path(__file__).resolve().parent.parent
_COPY_BYTES = 1 << 20
_QUEUE_SECONDS = 60.0
_GRACE_SECONDS = 2.0  # the child's own clock ends it first and says so
_SEND_SECONDS = 5.0
_START_ATTEMPTS = 3
_MAX_DECLARATION_CHARS = 200


@dataclass(frozen=True, slots=True)
class InspectedClip:
    """The window of an accepted upload that is kept, re-encoded by us, and what was found about it."""

    wav: bytes  # 16-bit mono; our own 44-byte header
    duration_seconds: float  # 3 to 10
    sample_rate_hz: int  # the upload's own, at most 48,000
    sha256: str  # of `wav`, hex: equal for equal samples at an equal rate, whatever file they came in
    quality: QualityReport


def inspect_upload(
    path_or_file: str | os.PathLike[str] | IO[bytes],
    *,
    declared_filename: str | None,
    declared_content_type: str | None,
) -> InspectedClip:
    """Inspect one upload, at most 25 MB, in under 32 seconds; any thread may call this.

    A file object is read from its beginning and left where it is. Raises UploadRejectedError in one of its forms, and
    InspectionUnavailableError when nothing can be said about the clip now.
    """
    return _inspector.inspect(
        path_or_file, declared_filename=declared_filename, declared_content_type=declared_content_type
    )


class Inspector:
    """The helper program of this process, started at the first upload and restarted when it died. Thread-safe."""

    def __init__(self, *, limits: ProcessLimits | None = None, concurrency: int | None = None) -> None:
        self._limits: Final = limits or ProcessLimits()
        # Children beyond the processors only make each other late.
        self._slots: Final = threading.BoundedSemaphore(concurrency or max(2, os.cpu_count() or 1))
        self._lock: Final = threading.Lock()
        self._program: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def process_id(self) -> int | None:
        """Of the helper program, None while there is none."""
        return self._program.pid if self._program is not None else None

    def inspect(
        self,
        path_or_file: str | os.PathLike[str] | IO[bytes],
        *,
        declared_filename: str | None,
        declared_content_type: str | None,
    ) -> InspectedClip:
        """See `inspect_upload`."""
        question = Question(
            declared_extension=PurePath(declared_filename or "").suffix.lower()[:_MAX_DECLARATION_CHARS],
            declared_content_type=(declared_content_type or "")[:_MAX_DECLARATION_CHARS],
            limits=self._limits,
        )
        with _opened_upload(path_or_file) as upload:
            size_bytes = os.fstat(upload).st_size
            if size_bytes > MAX_UPLOAD_BYTES:
                raise _too_large(size_bytes)
            if size_bytes == 0:
                raise AudioEmptyError("The file is empty (0 bytes).")
            if not self._slots.acquire(timeout=_QUEUE_SECONDS):
                raise InspectionUnavailableError("Too many uploads are being inspected.")
            try:
                answer = self._ask(question, upload)
            finally:
                self._slots.release()
        return _read_answer(answer)

    def warm_up(self) -> None:
        """Start the program now, so that the first upload need not wait a second for it."""
        with self._lock:
            self._ensure_started()

    def close(self) -> None:
        """End the program and wait for it. The next upload starts another."""
        with self._lock:
            self._stop()

    def _ask(self, question: Question, upload: int) -> Answer:
        for _ in range(_START_ATTEMPTS):
            answer_read, answer_write = os.pipe()
            try:
                program = self._send(question, upload, answer_write)
            finally:
                os.close(answer_write)
            try:
                if program is None:
                    continue
                message = _read_until_end(answer_read, seconds=self._limits.wall_seconds + _GRACE_SECONDS)
            finally:
                os.close(answer_read)
            if message is None:
                self._give_up_on(program)  # it did not even report the child's death: it hangs, or is stopped
                raise _timed_out(self._limits.wall_seconds)
            if message:
                try:
                    answer = unpack_answer(message)
                except ValueError as error:
                    raise AudioUnreadableError("The audio is damaged and cannot be decoded.") from error
                self._raise_for_death(answer)
                return answer
            # Neither an answer nor a death note: the program itself was killed. Asking again repeats nothing.
            self._give_up_on(program)
        raise InspectionUnavailableError("The inspection of uploads does not start.")

    def _send(self, question: Question, upload: int, answer_write: int) -> subprocess.Popen[bytes] | None:
        """The program that has the question, None when it died before it could get it."""
        with self._lock:
            program, control = self._ensure_started()
            try:
                socket.send_fds(control, [question.to_bytes()], [upload, answer_write])
            except OSError:
                self._stop()
                return None
            return program

    def _raise_for_death(self, answer: Answer) -> None:
        if answer.facts is not None:
            return
        if answer.death_signal == signal.SIGALRM:
            raise _timed_out(self._limits.wall_seconds)
        if answer.death_signal == signal.SIGXCPU:
            raise _timed_out(self._limits.cpu_seconds)
        logger.warning("upload_inspection_died", signal=answer.death_signal)
        raise AudioUnreadableError("The audio is damaged: its decoder broke down over it.")

    def _ensure_started(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        if self._program is not None and self._control is not None and self._program.poll() is None:
            return self._program, self._control
        self._stop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_SEND_SECONDS)
        with theirs:
            try:
                self._program = subprocess.Popen(
                    [sys.executable, "-m", "voices.inspection", str(theirs.fileno())],
                    cwd=_PROJECT_ROOT,
                    # No secret of this process goes along; one thread per child, its processor time is limited anyway.
                    env={"PATH": os.defpath, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C is for the server; the program ends when our socket closes
                )
            except OSError as error:
                ours.close()
                raise InspectionUnavailableError("The inspection of uploads does not start.") from error
        self._control = ours
        return self._program, ours

    def _give_up_on(self, program: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if self._program is program:  # else another thread has replaced it already
                self._stop()

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._program is not None:
            self._program.kill()
            self._program.wait()
        self._program = self._control = None


_inspector = Inspector()


def warm_up() -> None:
    """Start the inspection program of this process now, so that the first upload need not wait for it."""
    _inspector.warm_up()


def _forget_inspector() -> None:
    """A forked server process has its own program; the parent's would not be its child."""
    global _inspector
    _inspector = Inspector()


os.register_at_fork(after_in_child=_forget_inspector)
atexit.register(lambda: _inspector.close())


@contextmanager
def _opened_upload(path_or_file: str | os.PathLike[str] | IO[bytes]) -> Iterator[int]:
    """A read-only descriptor with a position of its own, closed at the end."""
    if isinstance(path_or_file, str | os.PathLike):
        descriptor = os.open(path_or_file, os.O_RDONLY | os.O_CLOEXEC)
    else:
        descriptor = _open_file(path_or_file)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_file(file: IO[bytes]) -> int:
    try:
        number = file.fileno()
        file.flush()
    except (AttributeError, io.UnsupportedOperation):
        return _copy_to_memory(file)
    # Opened anew: the child moves its position and must not be able to write.
    return os.open(f"/proc/self/fd/{number}", os.O_RDONLY | os.O_CLOEXEC)


def _copy_to_memory(file: IO[bytes]) -> int:
    """For files that live in this process only. Memory, not a temporary file: a voice is not left on a disk."""
    descriptor = os.memfd_create("upload")
    position, size_bytes = file.tell(), 0
    try:
        file.seek(0)
        while chunk := file.read(_COPY_BYTES):
            size_bytes += len(chunk)
            if size_bytes > MAX_UPLOAD_BYTES:
                raise _too_large(None)
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view) :]
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        file.seek(position)
    return descriptor


def _read_until_end(descriptor: int, *, seconds: float) -> bytes | None:
    """All that is written to a pipe before its last writer closes it, None when that takes longer."""
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    received = bytearray()
    while (remaining := deadline - time.monotonic()) > 0:
        if not poll.poll(remaining * 1000):
            continue
        chunk = os.read(descriptor, _COPY_BYTES)
        if not chunk:
            return bytes(received)
        received += chunk
        if len(received) > MAX_ANSWER_BYTES:
            return b"\xff"  # no answer of ours, see `unpack_answer`
    return None


def _read_answer(answer: Answer) -> InspectedClip:
    """What the child says is checked like any input: it worked on a stranger's bytes."""
    facts = answer.facts or {}
    if "failure" in facts:
        logger.error("upload_inspection_failed", error=str(facts["failure"]), at=facts.get("at"))
        raise InspectionFailedError("The recording could not be inspected.")
    if "code" in facts:
        raise REJECTIONS_BY_CODE[facts["code"]](str(facts["message"]), **facts["details"])
    rate = int(facts["sample_rate_hz"])
    wav = _wav(answer.pcm, rate)
    return InspectedClip(
        wav=wav,
        duration_seconds=len(answer.pcm) / 2 / rate,
        sample_rate_hz=rate,
        sha256=hashlib.sha256(wav).hexdigest(),
        quality=QualityReport.from_json(facts["quality"]),
    )


def _wav(pcm: bytes, sample_rate_hz: int) -> bytes:
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF", 36 + len(pcm), b"WAVE",
        b"fmt ", 16, 1, 1, sample_rate_hz, 2 * sample_rate_hz, 2, 16,
        b"data", len(pcm),
    )  # fmt: skip
    return header + pcm


def _too_large(size_bytes: int | None) -> AudioTooLargeError:
    return AudioTooLargeError(
        f"The file is larger than {MAX_UPLOAD_BYTES // 1_000_000} MB.",
        size_bytes=size_bytes,
        limit_bytes=MAX_UPLOAD_BYTES,
    )


def _timed_out(limit_seconds: float) -> InspectionTimeoutError:
    return InspectionTimeoutError("The recording takes too long to decode.", limit_seconds=limit_seconds)
