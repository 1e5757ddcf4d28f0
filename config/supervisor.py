"""Run the service's processes on one machine: start, prefix their logs, restart what crashes, stop all in order."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Final

from config.database import ALIASES, URL_VARIABLES
from config.embedded.servers import EmbeddedServers
from synthesis.contracts import BATCH_QUEUE, SPEECH_QUEUE

ROOT: Final = Path(__file__).resolve().parents[1]

_STEP_SECONDS: Final = 0.2
_SERVERS_CHECK_SECONDS: Final = 1.0
_FIRST_BACKOFF_SECONDS: Final = 0.5
_LONGEST_BACKOFF_SECONDS: Final = 30.0
_STEADY_SECONDS: Final = 60.0  # who ran this long may crash again at once
_READ_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Program:
    """One process of the service. `kind` decides which database roles it is given."""

    name: str
    kind: str
    arguments: Sequence[str]
    stop_seconds: float  # from SIGTERM to SIGKILL


def programs(*, port: int, admin_port: int, worker_threads: int) -> list[Program]:
    """The processes of one machine, in the order in which they stop: first who takes work, last who does it."""
    uvicorn = ["-m", "uvicorn", "--host", "127.0.0.1", "--no-access-log", "--lifespan", "off"]
    return [
        Program(
            name="web",
            kind="web",
            arguments=[*uvicorn, "--port", str(port), "--timeout-graceful-shutdown", "10", "config.asgi:application"],
            stop_seconds=15,
        ),
        Program(
            name="admin",
            kind="admin",
            arguments=[*uvicorn, "--port", str(admin_port), "--timeout-graceful-shutdown", "5", "config.wsgi:server"],
            stop_seconds=10,
        ),
        Program(name="dispatcher", kind="dispatcher", arguments=["manage.py", "dispatch_jobs"], stop_seconds=10),
        Program(
            name="worker",
            kind="worker",
            arguments=[
                *["-m", "celery", "--quiet", "-A", "config.celery", "worker", "--pool", "threads"],
                *["--concurrency", str(worker_threads), "--queues", f"{SPEECH_QUEUE},{BATCH_QUEUE},housekeeping"],
                *["--without-gossip", "--without-mingle", "--without-heartbeat"],
            ],
            stop_seconds=45,
        ),
    ]


def environment_for(kind: str, environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` for one kind of process, without the credentials that are not its own."""
    allowed = {URL_VARIABLES[alias] for alias in ALIASES[kind]}
    kept = {name: value for name, value in environment.items() if name not in URL_VARIABLES.values() or name in allowed}
    if kind == "dispatcher" and kept.get("METRICS_PORT", "").strip().isdigit():  # the worker beside it has this one
        kept["METRICS_PORT"] = str(int(kept["METRICS_PORT"]) + 1)
    return {**kept, "CANTORIA_PROCESS": kind, "PYTHONUNBUFFERED": "1"}


@dataclass(slots=True)
class _Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0  # when to start it (again)
    backoff_seconds: float = _FIRST_BACKOFF_SECONDS
    crashes: int = 0
    unfinished_line: bytes = field(default=b"")


class Supervisor:
    """Owns the processes of `programs`; one thread calls all its methods."""

    def __init__(
        self, programs: Sequence[Program], *, output: IO[str], servers: EmbeddedServers | None, width: int = 10
    ) -> None:
        """`output` gets every line of every process behind its name. `servers`: embedded ones to keep alive."""
        self._children = [_Child(program) for program in programs]
        self._output = output
        self._servers = servers
        self._servers_checked_at = time.monotonic()
        self._width = width
        self._selector = selectors.DefaultSelector()
        self._stop_requests = 0

    def run(self, until: Callable[[], bool]) -> None:
        """Keep the processes running until `until()` or until somebody asks us to stop; then stop them all."""
        earlier = {number: signal.signal(number, self._request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while not self._stop_requests and not until():
                self._start_due()
                self._relay_output(_STEP_SECONDS)
                self._reap()
                self._check_servers()
        finally:
            try:
                self._stop()
            finally:
                for number, handler in earlier.items():
                    signal.signal(number, handler)

    @property
    def was_asked_to_stop(self) -> bool:
        return self._stop_requests > 0

    @property
    def crashes(self) -> int:
        """How often a process ended that should not have."""
        return sum(child.crashes for child in self._children)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_requests += 1

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process is None and now >= child.start_at:
                self._start(child)

    def _start(self, child: _Child) -> None:
        tether = [sys.executable, "-I", "-S", str(ROOT / "config" / "tether.py"), str(os.getpid())]
        child.process = subprocess.Popen(
            [*tether, sys.executable, *child.program.arguments],
            cwd=ROOT,
            env=environment_for(child.program.kind, os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us only, and the whole group can be killed
        )
        assert child.process.stdout is not None
        os.set_blocking(child.process.stdout.fileno(), False)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)
        child.started_at = time.monotonic()

    def _relay_output(self, seconds: float) -> None:
        """Wait up to `seconds` for output of any process and pass it on, whole lines only."""
        if not self._selector.get_map():
            time.sleep(seconds)
            return
        for key, _ in self._selector.select(seconds):
            self._read(key.data)

    def _read(self, child: _Child) -> bool:
        """Pass on what the process has written. Returns False when there is nothing, now or ever."""
        assert child.process is not None
        assert child.process.stdout is not None
        if child.process.stdout.closed:
            return False
        try:
            data = os.read(child.process.stdout.fileno(), _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close_output(child)
            return False
        *lines, child.unfinished_line = (child.unfinished_line + data).split(b"\n")
        for line in lines:
            if line.strip():
                self._say(child.program.name, line.decode(errors="replace"))
        return True

    def _close_output(self, child: _Child) -> None:
        assert child.process is not None
        pipe = child.process.stdout
        assert pipe is not None
        if pipe.closed:
            return
        self._selector.unregister(pipe)
        pipe.close()
        if child.unfinished_line:
            self._say(child.program.name, child.unfinished_line.decode(errors="replace"))
            child.unfinished_line = b""

    def _reap(self) -> None:
        for child in self._children:
            if child.process is None or child.process.poll() is None:
                continue
            code = child.process.returncode
            self._clean_up(child)
            child.crashes += 1
            now = time.monotonic()
            if now - child.started_at > _STEADY_SECONDS:
                child.backoff_seconds = _FIRST_BACKOFF_SECONDS
            child.start_at = now + child.backoff_seconds
            self._say(child.program.name, f"ended with code {code}; starts again in {child.backoff_seconds:.1f} s")
            child.backoff_seconds = min(child.backoff_seconds * 2, _LONGEST_BACKOFF_SECONDS)

    def _clean_up(self, child: _Child) -> None:
        """After the process ended: take its last lines, and end what it started and left behind."""
        assert child.process is not None
        _kill_group(child.process.pid, signal.SIGKILL)
        while self._read(child):
            pass
        self._close_output(child)
        child.process = None

    def _check_servers(self) -> None:
        now = time.monotonic()
        if self._servers is None or now - self._servers_checked_at < _SERVERS_CHECK_SECONDS:
            return
        self._servers_checked_at = now
        if not self._servers.are_running():
            self._say("supervisor", "an embedded server is gone; starting it again")
            self._servers.revive()

    def _stop(self) -> None:
        requests = self._stop_requests
        for child in self._children:
            if child.process is None:
                continue
            _signal(child.process, signal.SIGTERM)
            deadline = time.monotonic() + child.program.stop_seconds
            while child.process.poll() is None and time.monotonic() < deadline and self._stop_requests <= requests:
                self._relay_output(0.05)
            if child.process.poll() is None:
                self._say(child.program.name, "does not stop; killed")
                _kill_group(child.process.pid, signal.SIGKILL)
                child.process.wait()
            self._clean_up(child)
        self._selector.close()

    def _say(self, name: str, line: str) -> None:
        print(f"{name:<{self._width}} | {line}", file=self._output, flush=True)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)


def _kill_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return  # nobody was left
