"""The inspection program: `python -m voices.inspection DESCRIPTOR`, started by `voices.intake`.

One thread that loads the decoders once and then forks a pristine, limited child for each upload: a fork costs
milliseconds where a new interpreter with NumPy and SciPy costs a second. It ends when the other side of the socket is
closed, so it cannot outlive the process it serves.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import sys
from typing import NoReturn

from voices.inspection.sandbox import enter_limits, leave_network

leave_network()  # before the libraries: a process with threads may not

from voices.errors import UploadRejectedError  # noqa: E402
from voices.inspection.inspector import inspect  # noqa: E402
from voices.inspection.wire import MAX_QUESTION_BYTES, Question, pack_answer, pack_death_note  # noqa: E402

_MAX_OPEN_FILES = 512


def main(control_descriptor: int) -> None:
    """Serve until the other side closes. Children that are still at work then are ended too: nobody waits for them."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_OPEN_FILES, _MAX_OPEN_FILES))
    control = socket.socket(fileno=control_descriptor)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    null = os.open(os.devnull, os.O_RDWR)
    answers: dict[int, int] = {}  # child's process id -> our end of its answer pipe
    gc.freeze()  # a collection in a child would copy every page it marks
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if wake_read in ready:
            os.read(wake_read, 4096)
            _bury(answers)
        if control.fileno() not in ready:
            continue
        try:
            message, descriptors, _, _ = socket.recv_fds(control, MAX_QUESTION_BYTES, 2)
        except ConnectionResetError:
            message, descriptors = b"", []
        if not message:
            break
        upload, answer = descriptors
        child = os.fork()
        if child == 0:
            _inspect_and_exit(Question.from_bytes(message), upload, answer, null)
        os.close(upload)
        answers[child] = answer
    for child in answers:
        os.kill(child, signal.SIGKILL)


def _bury(answers: dict[int, int]) -> None:
    """Collect children that ended. For one that was killed, tell the waiting side what by."""
    while answers:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        answer = answers.pop(child)
        if status != 0:
            writable = select.poll()
            writable.register(answer, select.POLLOUT)
            # Not writable: it died within a long answer that nobody reads any more.
            if [event for _, event in writable.poll(0) if event == select.POLLOUT]:
                os.write(answer, pack_death_note(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0))
        os.close(answer)


def _inspect_and_exit(question: Question, upload: int, answer: int, null: int) -> NoReturn:
    """The child: nothing open but the upload (0) and the answer (1)."""
    try:
        signal.set_wakeup_fd(-1)
        os.dup2(upload, 0)
        os.dup2(answer, 1)
        os.dup2(null, 2)  # decoders write warnings, with whatever the file made them say
        os.closerange(3, _MAX_OPEN_FILES)
        enter_limits(question.limits)
        message = _answer(question)
        while message:
            message = message[os.write(1, message) :]
    except BaseException:
        os._exit(1)
    os._exit(0)


def _answer(question: Question) -> bytes:
    try:
        pcm, sample_rate_hz, report = inspect(
            0, extension=question.declared_extension, content_type=question.declared_content_type
        )
    except UploadRejectedError as error:
        return pack_answer({"code": error.code, "message": error.message, "details": error.details})
    except Exception as error:  # our own mistake: the caller logs where it happened
        trace, frames = error.__traceback__, []
        while trace is not None:
            frames.append(f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}")
            trace = trace.tb_next
        return pack_answer({"failure": type(error).__name__, "at": frames[-6:]})
    return pack_answer({"sample_rate_hz": sample_rate_hz, "quality": report.to_json()}, pcm)


if __name__ == "__main__":
    main(int(sys.argv[1]))
