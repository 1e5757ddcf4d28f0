"""Fill in what the environment leaves open, for the duration of one command."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from config import env
from config.database import URL_VARIABLES
from config.embedded.errors import EmbeddedServerError
from config.embedded.servers import EmbeddedServers

VAR_DIR: Final = Path(__file__).resolve().parents[2] / "var"
_SERVER_VARIABLES: Final = (*URL_VARIABLES.values(), "REDIS_URL")
_NEED_NOTHING: Final = frozenset({"help", "--help", "-h", "version", "--version"})

_servers: EmbeddedServers | None = None


def current_servers() -> EmbeddedServers | None:
    """The embedded servers this process uses, or None when the environment names real ones."""
    return _servers


@contextmanager
def embedded_environment(arguments: Sequence[str]) -> Iterator[None]:
    """Run the body with embedded servers and secrets when the environment names no server at all.

    Once one server is named the installation is a real one, and settings ask for each missing variable by name.
    Only development settings embed anything.
    """
    global _servers
    command = arguments[1] if len(arguments) > 1 else "help"
    is_development = os.environ["DJANGO_SETTINGS_MODULE"] == "config.settings.development"
    if not is_development or command in _NEED_NOTHING or any(env.read(name) for name in _SERVER_VARIABLES):
        yield
        return
    signal.signal(signal.SIGTERM, _exit_orderly)
    servers = EmbeddedServers(VAR_DIR)
    try:
        servers.start()
    except EmbeddedServerError as error:
        sys.exit(f"cantoria: {error}")
    try:
        for name, value in servers.environment().items():
            os.environ.setdefault(name, value)
        _servers = servers
        yield
    finally:
        _servers = None
        servers.stop()


def _exit_orderly(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
