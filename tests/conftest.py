"""Real servers for the tests: one PostgreSQL and one Redis per run, one database per xdist worker.

A test that touches the database commits for real, as the role `cantoria_app`, so that row security binds it. Tables
are emptied after it by the superuser: the app role may not, and the ledger's triggers forbid it to everybody else.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connections
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pytest_django import DjangoDbBlocker, Settings

from config.celery import app as celery_app
from config.database import OWNER, ROLES, grant_access
from config.embedded.servers import DATABASE, EmbeddedServers
from tenants.redis import redis_client as shared_redis_client

TESTS = Path(__file__).parent
# Tests of these folders use the database without asking for it.
_APPS_WITH_DATABASE = {"tenants", "billing", "voices", "synthesis", "isolation", "dialects"}

# Empties every table that has rows, then puts back what migrations had put in (content types, plans, prices).
_TEST_SUPPORT_SQL = """
CREATE SCHEMA test_support;
DO $$
DECLARE name text; filled boolean;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'django_migrations' LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', name) INTO filled;
        IF filled THEN EXECUTE format('CREATE TABLE test_support.%I AS TABLE public.%I', name, name); END IF;
    END LOOP;
END $$;
CREATE FUNCTION test_support.reset() RETURNS void LANGUAGE plpgsql AS $$
DECLARE name text; filled boolean; names text[] := '{}';
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public'
        AND tablename NOT IN ('django_migrations', 'django_content_type', 'auth_permission') LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', name) INTO filled;
        IF filled THEN names := names || format('public.%I', name); END IF;
    END LOOP;
    IF names <> '{}' THEN EXECUTE 'TRUNCATE ' || array_to_string(names, ', ') || ' CASCADE'; END IF;
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'test_support'
        AND tablename NOT IN ('django_content_type', 'auth_permission') LOOP
        EXECUTE format('INSERT INTO public.%I SELECT * FROM test_support.%I', name, name);
    END LOOP;
END $$;
"""


@dataclass(frozen=True, slots=True)
class Servers:
    """The run's servers as one worker sees them."""

    embedded: EmbeddedServers
    database: str
    redis_url: str

    def url(self, role: str) -> str:
        """A libpq connection string to this worker's database; `role` is an alias, or `superuser`."""
        if role == "superuser":
            return self.embedded.postgres.superuser_url(self.embedded.postgres_port, database=self.database)
        return make_conninfo(
            host="127.0.0.1",
            port=self.embedded.postgres_port,
            user=ROLES[role],
            password=self.embedded.secrets.role_passwords[role],
            dbname=self.database,
        )


def _point_settings_at(servers: Servers, *, database: str) -> None:
    for alias, role in ROLES.items():
        connections[alias].close()
        connections.databases[alias].update(
            NAME=database,
            USER=role,
            PASSWORD=servers.embedded.secrets.role_passwords[alias],
            HOST="127.0.0.1",
            PORT=str(servers.embedded.postgres_port),
        )


def _make_template(servers: Servers, blocker: DjangoDbBlocker) -> None:
    """Migrate the run's first database once; the workers' own are copies of its files."""
    _point_settings_at(servers, database=DATABASE)
    with blocker.unblock():
        call_command("migrate", verbosity=0)
        for alias in ROLES:
            connections[alias].close()
    superuser = servers.embedded.postgres.superuser_url(servers.embedded.postgres_port, database=DATABASE)
    with psycopg.connect(superuser) as connection:
        connection.execute(_TEST_SUPPORT_SQL)


def _make_worker_database(servers: Servers) -> None:
    superuser = servers.embedded.postgres.superuser_url(servers.embedded.postgres_port)
    name = sql.Identifier(servers.database)
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(
                name, sql.Identifier(DATABASE), sql.Identifier(OWNER)
            )
        )
    with psycopg.connect(servers.url("superuser"), autocommit=True) as connection:
        grant_access(connection, database=servers.database)


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest, django_db_blocker: DjangoDbBlocker) -> Iterator[Servers]:
    """Start, or join, the run's servers; the last worker to leave stops them and removes their folder."""
    worker_input: dict[str, Any] = getattr(request.config, "workerinput", {})
    worker = worker_input.get("workerid", "main")
    run = worker_input.get("testrunuid", f"{os.getpid()}")
    folder = Path(tempfile.gettempdir()) / f"cantoria-tests-{run}"
    embedded = EmbeddedServers(folder, durable=False)
    embedded.start()
    number = int(worker.removeprefix("gw")) if worker.startswith("gw") else 0
    mine = Servers(
        embedded=embedded,
        database=f"test_{worker}",
        redis_url=embedded.redis.url(embedded.redis_port, database=number % 16),
    )
    try:
        with (folder / "template.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "template.made").exists():
                _make_template(mine, django_db_blocker)
                (folder / "template.made").touch()
            _make_worker_database(mine)
        _point_settings_at(mine, database=mine.database)
        django_settings.REDIS_URL = mine.redis_url
        django_settings.CELERY_BROKER_URL = mine.redis_url
        celery_app.conf.broker_url = mine.redis_url
        shared_redis_client.cache_clear()
        yield mine
        with django_db_blocker.unblock():
            connections.close_all()
    finally:
        if embedded.stop():
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def django_db_setup(servers: Servers) -> None:
    """pytest-django's own set-up would make databases as the app role, which may not."""


@pytest.fixture(scope="session")
def superuser_connection(servers: Servers) -> Iterator[psycopg.Connection[Any]]:
    """For emptying tables between tests; autocommit."""
    with psycopg.connect(servers.url("superuser"), autocommit=True) as connection:
        # Triggers that keep the ledger append-only, and foreign keys, do not fire for a replica.
        connection.execute("SET session_replication_role = replica; SET lock_timeout = '10s'")
        yield connection


@pytest.fixture
def database(
    servers: Servers,
    superuser_connection: psycopg.Connection[Any],
    redis_client: redis.Redis,
    django_db_blocker: DjangoDbBlocker,
    settings: Settings,
    tmp_path: Path,
) -> Iterator[None]:
    """Database access with real commits, on all four connections, and a storage folder; all emptied afterwards."""
    settings.STORAGE_URL = (tmp_path / "storage").as_uri()
    with django_db_blocker.unblock():
        yield
        for connection in connections.all(initialized_only=True):
            if connection.in_atomic_block or connection.needs_rollback:
                connection.close()
    try:
        superuser_connection.execute("SELECT test_support.reset()")
    except psycopg.errors.LockNotAvailable as error:
        raise AssertionError("the test left a transaction open, in a thread or process of its own") from error


@pytest.fixture
def _django_db_helper(database: None) -> None:
    """Marks and fixtures of pytest-django (`django_db`, `db`, `transactional_db`) mean real commits here."""


@pytest.fixture(autouse=True)
def _database_for_apps(request: pytest.FixtureRequest) -> None:
    if request.path.relative_to(TESTS).parts[0] in _APPS_WITH_DATABASE:
        request.getfixturevalue("database")


@pytest.fixture
def redis_client(servers: Servers) -> Iterator[redis.Redis]:
    """The app's own Redis client, on this worker's Redis database, emptied before and after."""
    client = shared_redis_client()
    client.flushdb()
    yield client
    client.flushdb()


@pytest.fixture
def role_connection(servers: Servers, database: None) -> Iterator[Callable[[str], psycopg.Connection[Any]]]:
    """Factory of raw connections: `role_connection("default")`; also migrate, staff, dispatch, superuser."""
    with ExitStack() as stack:

        def connect(role: str) -> psycopg.Connection[Any]:
            return stack.enter_context(psycopg.connect(servers.url(role)))

        yield connect
