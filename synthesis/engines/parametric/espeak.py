"""The client of the espeak worker program: a small pool of its parents, spoken to through pipes.

Nothing here loads or imports espeak-ng; the program in `espeak_worker/` does, under its own licence.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from synthesis.engines.errors import EngineCrashedError, EngineError

WORKER_PROGRAM = Path(__file__).parent / "espeak_worker" / "program.py"
SLOWEST_WORDS_PER_MINUTE, FASTEST_WORDS_PER_MINUTE = 80, 450  # what espeak-ng accepts

START_SECONDS = 30.0  # a cold start on a busy machine; normally 0.1
CALL_SECONDS = 20.0  # a sentence takes about 0.01
END_SECONDS = 2.0
MAX_FRAME_BYTES = 2**28

# The same bytes whatever the caller's environment is; 255 makes glibc hand out zeroed memory, because espeak-ng reads
# a little memory that it never wrote. (glibc 2.42 knows only the second spelling; others ignore both.)
_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "MALLOC_PERTURB_": "255",
    "GLIBC_TUNABLES": "glibc.malloc.perturb=255",
}


@dataclass(frozen=True, slots=True)
class EspeakEvent:
    """A word or phoneme begins at `sample`. A phoneme without a name is a pause."""

    kind: Literal["word", "phoneme"]
    text_position: int  # code points of the request's text
    sample: int
    name: str


@dataclass(frozen=True, slots=True)
class EspeakSpeech:
    samples: NDArray[np.int16]  # (N,)
    sample_rate_hz: int
    events: tuple[EspeakEvent, ...]


class _WorkerGoneError(Exception):
    """The worker closed its pipe or let the deadline pass."""


class _Parent:
    """One running worker program. Not for two threads at once."""

    def __init__(self) -> None:
        environment = dict(_ENVIRONMENT)
        if "LD_LIBRARY_PATH" in os.environ:  # some Python builds need it to start at all
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(WORKER_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            close_fds=True,
            start_new_session=True,  # a process group of its own, so that parent and child end together
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)
        try:
            hello = json.loads(self._read_frame(time.monotonic() + START_SECONDS))
        except BaseException:
            self.kill()
            raise
        self._sample_rate_hz = int(hello["sample_rate_hz"])

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def speak(self, text: str, voice: str, words_per_minute: int, timeout_seconds: float) -> EspeakSpeech:
        """Raises _WorkerGoneError; the caller then kills this parent."""
        deadline = time.monotonic() + timeout_seconds
        request = json.dumps(
            {"text": text, "voice": voice, "words_per_minute": words_per_minute, "timeout_seconds": timeout_seconds}
        ).encode()
        self._write(len(request).to_bytes(4, "big") + request, deadline)
        head = json.loads(self._read_frame(deadline))
        samples = np.frombuffer(self._read_frame(deadline), dtype="<i2").astype(np.int16)
        if head["error"] is not None:
            raise EngineError("The espeak worker refused the request.", reason=head["error"], voice=voice)
        events = tuple(EspeakEvent(*event) for event in head["events"])
        return EspeakSpeech(samples=samples, sample_rate_hz=self._sample_rate_hz, events=events)

    def kill(self) -> None:
        """End the program and its child at once, and reap it."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stdin.close()
        self._stdout.close()

    def end(self) -> None:
        """Let the program end by itself; kill it if it does not."""
        self._stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self.kill()

    def forget(self) -> None:
        """In a forked process: let go of pipes that belong to the process that started the program."""
        self._stdin.close()
        self._stdout.close()
        self._process.returncode = 0  # not ours to wait for

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        remaining_ms = int(1000 * (deadline - time.monotonic()))
        if remaining_ms <= 0 or not poll.poll(remaining_ms):
            raise _WorkerGoneError("deadline")

    def _write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._stdin.fileno(), select.POLLOUT, deadline)
            try:
                view = view[os.write(self._stdin.fileno(), view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise _WorkerGoneError("pipe closed") from error

    def _read(self, count: int, deadline: float) -> bytes:
        blocks = []
        while count > 0:
            self._wait(self._stdout.fileno(), select.POLLIN, deadline)
            try:
                block = os.read(self._stdout.fileno(), count)
            except BlockingIOError:
                continue
            if not block:
                raise _WorkerGoneError("pipe closed")
            blocks.append(block)
            count -= len(block)
        return b"".join(blocks)

    def _read_frame(self, deadline: float) -> bytes:
        size = int.from_bytes(self._read(4, deadline), "big")
        if size > MAX_FRAME_BYTES:
            raise _WorkerGoneError("frame too large")
        return self._read(size, deadline)


class EspeakPool:
    """Up to `size` worker programs, started when first needed and restarted when they die.

    Safe for threads, and usable after a fork: the forked process starts workers of its own.
    """

    def __init__(self, size: int | None = None, timeout_seconds: float = CALL_SECONDS) -> None:
        self._size = size or os.cpu_count() or 1
        self._timeout_seconds = timeout_seconds
        self._reset()

    def _reset(self) -> None:
        self._condition = threading.Condition()
        self._idle: list[_Parent] = []
        self._busy: set[_Parent] = set()
        self._starting = 0
        self._closed = False
        self._owner_pid = os.getpid()
        self._finalizer = weakref.finalize(self, _end_all, self._idle, self._owner_pid)

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the running worker programs."""
        with self._condition:
            return tuple(sorted(parent.pid for parent in (*self._idle, *self._busy)))

    def speak(self, text: str, voice: str, words_per_minute: int) -> EspeakSpeech:
        """Say `text` with an espeak voice (`en-us+f5`). Equal arguments give equal bytes.

        `words_per_minute` is clipped to what espeak-ng accepts. Raises EngineCrashedError when the worker died or took
        longer than the pool's timeout; the next call gets a new worker.
        """
        rate = max(SLOWEST_WORDS_PER_MINUTE, min(FASTEST_WORDS_PER_MINUTE, words_per_minute))
        parent: _Parent | None = None
        try:
            parent = self._acquire()
            return parent.speak(text, voice, rate, self._timeout_seconds)
        except _WorkerGoneError as error:
            self._discard(parent)
            parent = None
            raise EngineCrashedError("The espeak worker died or ran out of time.", reason=str(error)) from error
        except EngineError:
            raise
        except BaseException:
            # Interrupted half-way: what is still in the pipe belongs to nobody.
            self._discard(parent)
            parent = None
            raise
        finally:
            if parent is not None:
                self._release(parent)

    def close(self) -> None:
        """End all workers; those in use end when their call does. Closing twice is allowed."""
        with self._condition:
            self._closed = True
            idle = list(self._idle)
            self._idle.clear()
            self._condition.notify_all()
        for parent in idle:
            parent.end()

    def _acquire(self) -> _Parent:
        if os.getpid() != self._owner_pid:
            self._start_afresh_after_fork()
        with self._condition:
            while True:
                if self._closed:
                    raise EngineError("The engine is closed.")
                while self._idle:
                    parent = self._idle.pop()
                    if parent.is_alive():
                        self._busy.add(parent)
                        return parent
                    parent.kill()  # died between two calls: nobody's request is lost
                if len(self._busy) + self._starting < self._size:
                    self._starting += 1
                    break
                self._condition.wait()
        started: _Parent | None = None
        try:
            started = _Parent()
            return started
        finally:
            with self._condition:
                self._starting -= 1
                if started is not None:
                    self._busy.add(started)
                else:
                    self._condition.notify()

    def _release(self, parent: _Parent) -> None:
        with self._condition:
            self._busy.discard(parent)
            closed = self._closed
            if not closed:
                self._idle.append(parent)
            self._condition.notify()
        if closed:
            parent.end()

    def _discard(self, parent: _Parent | None) -> None:
        if parent is None:
            return
        parent.kill()
        with self._condition:
            self._busy.discard(parent)
            self._condition.notify()

    def _start_afresh_after_fork(self) -> None:
        self._finalizer.detach()
        for parent in (*self._idle, *self._busy):
            parent.forget()
        closed = self._closed
        self._reset()
        self._closed = closed


def _end_all(parents: list[_Parent], owner_pid: int) -> None:
    """At garbage collection or interpreter exit of the process that started the workers."""
    if os.getpid() == owner_pid:
        for parent in parents:
            parent.end()
