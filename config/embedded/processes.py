"""Server processes: whose they are, whether they live, on which port, and as which account they run."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from config.embedded.errors import EmbeddedServerError

_LOG_TAIL_CHARS = 2_000
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged account a server runs as when we are root."""

    uid: int
    gid: int

    def popen_options(self) -> dict[str, Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def server_account() -> Account | None:
    """None for an ordinary user. PostgreSQL refuses to run as root, so root gets `nobody`; no account is made."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError as error:
        raise EmbeddedServerError(
            "PostgreSQL does not run as root and this machine has no account `nobody`: run as an ordinary user, "
            "or set the DATABASE_URL variables to a server of your own."
        ) from error
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def can_enter(folder: Path, account: Account) -> bool:
    """Whether the account may step into `folder` through all its parents; asked by trying."""
    try:
        entered = subprocess.run(
            ["/bin/sh", "-c", 'cd "$0"', str(folder)], cwd="/", capture_output=True, **account.popen_options()
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedServerError(
            "Root of this container may not become another account, and PostgreSQL does not run as root: "
            "run as an ordinary user, or set the DATABASE_URL variables to a server of your own."
        ) from error
    return entered.returncode == 0


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_running(pid: int, *, argument: str) -> bool:
    """Whether `pid` lives and has `argument` on its command line: after a restart the number may be another's."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return argument.encode() in command  # a zombie's command line is empty


def start_server(arguments: Sequence[str], *, log: IO[bytes], account: Account | None) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, so that Ctrl-C in a terminal reaches its clients first."""
    options = account.popen_options() if account else {}
    return subprocess.Popen(
        arguments, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **options
    )


def stop_server(pid: int, *, argument: str, signals: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal in turn and wait its seconds, until the process is gone. Raises EmbeddedServerError."""
    for number, seconds in signals:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not is_running(pid, argument=argument):
                return
            time.sleep(_POLL_SECONDS)
    raise EmbeddedServerError(f"process {pid} does not stop")


def log_tail(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-_LOG_TAIL_CHARS:].strip()
    except OSError:
        return ""
