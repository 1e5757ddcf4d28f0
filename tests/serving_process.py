"""`make serve`'s own process, as a newcomer starts it: real web, admin, dispatcher and worker on loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from config.database import URL_VARIABLES
from config.embedded.processes import free_port

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Serving:
    pid: int
    port: int
    api_key: str
    curl: str
    admin_url: str


def newcomers_environment() -> dict[str, str]:
    """Ours without what the test settings have put into it."""
    ours = set(URL_VARIABLES.values()) | {
        *("DJANGO_SETTINGS_MODULE", "CANTORIA_PROCESS", "REDIS_URL", "STORAGE_URL", "SECRET_KEY", "KEY_PEPPER"),
        *("MASTER_KEY", "ENGINE", "LOG_LEVEL"),
    }
    return {name: value for name, value in os.environ.items() if name not in ours}


@contextmanager
def serve(*, start_seconds: float, **environment: str) -> Iterator[Serving]:
    """With the servers embedded under var/ like anybody's: one at a time on a checkout."""
    port, admin_port = free_port(), free_port()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "serve", "--port", str(port), "--admin-port", str(admin_port)],
        cwd=ROOT,
        env={**newcomers_environment(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    watchdog = threading.Timer(start_seconds, process.terminate)
    watchdog.start()
    try:
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C stops everything" in line:
                break
        watchdog.cancel()
        output = "".join(lines)
        assert "Ctrl-C stops everything" in output, output
        # From here on nobody reads: a full pipe would stop the service.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield Serving(
            pid=process.pid,
            port=port,
            api_key=re.findall(r"Key +(ct_live_\w+)", output)[0],
            curl=re.findall(r"^ +(curl .*)$", output, flags=re.MULTILINE)[0],
            admin_url=re.findall(r"Admin +(\S+)", output)[0],
        )
    finally:
        watchdog.cancel()
        process.terminate()
        assert process.wait(timeout=90) == 0
