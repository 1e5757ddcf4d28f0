"""Real worker and dispatcher processes for fault tests, over the run's servers, and the means to kill them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from django.conf import settings

from tests.conftest import Servers

ROOT = Path(__file__).resolve().parents[2]


def environment(servers: Servers, *, process: str) -> dict[str, str]:
    """What the start commands of production set."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings.development",
        "CANTORIA_PROCESS": process,
        "DATABASE_URL": servers.url("default"),
        "DATABASE_URL_MIGRATE": servers.url("migrate"),
        "DATABASE_URL_STAFF": servers.url("staff"),
        "DATABASE_URL_DISPATCH": servers.url("dispatch"),
        "REDIS_URL": servers.redis_url,
        "STORAGE_URL": settings.STORAGE_URL,
        "SECRET_KEY": settings.SECRET_KEY,
        "KEY_PEPPER": settings.KEY_PEPPER,
        "MASTER_KEY": settings.MASTER_KEY,
        "LOG_LEVEL": "ERROR",
    }


class Process:
    """One child in a group of its own."""

    def __init__(self, servers: Servers, *, kind: str, arguments: list[str], log: Path) -> None:
        self._start = lambda: subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment(servers, process=kind),
            stdout=log.open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._child = self._start()

    @property
    def is_running(self) -> bool:
        return self._child.poll() is None

    def kill(self) -> None:
        """SIGKILL, to the whole group: nothing is said, nothing is finished."""
        self._signal(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self._signal(signal.SIGTERM)
        return self._child.returncode

    def restart(self) -> None:
        self._child = self._start()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)
        try:
            self._child.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()


def start_worker(servers: Servers, *, log: Path) -> Process:
    return Process(servers, kind="worker", arguments=["-m", "tests.faults.worker_program"], log=log)


def start_dispatcher(servers: Servers, *, log: Path) -> Process:
    return Process(servers, kind="dispatcher", arguments=["manage.py", "dispatch_jobs"], log=log)
