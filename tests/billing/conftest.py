"""What several billing tests need of the real database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection

SetClock = Callable[[dt.datetime], None]


@pytest.fixture
def tamper(role_connection: Callable[[str], psycopg.Connection[Any]]) -> Callable[..., None]:
    """`tamper(statement, parameters)`: what a superuser can do, past triggers and row security."""
    superuser = role_connection("superuser")
    superuser.execute("SET session_replication_role = replica")
    superuser.commit()

    def execute(statement: str, parameters: Any = None) -> None:
        assert superuser.execute(statement, parameters).rowcount != 0
        superuser.commit()

    return execute


@pytest.fixture
def set_clock(role_connection: Callable[[str], psycopg.Connection[Any]]) -> Iterator[SetClock]:
    """Put the database's clock, as this thread's app connection asks it (`now()`), to an instant."""
    superuser = role_connection("superuser")
    superuser.execute("CREATE SCHEMA test_clock; GRANT USAGE ON SCHEMA test_clock TO PUBLIC")
    superuser.commit()

    def set_to(instant: dt.datetime) -> None:
        superuser.execute(
            "CREATE OR REPLACE FUNCTION test_clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS "
            f"$$ SELECT '{instant.isoformat()}'::timestamptz $$"
        )
        superuser.commit()
        with connection.cursor() as cursor:
            cursor.execute("SET search_path = test_clock, pg_catalog, public")

    yield set_to
    connection.close()
    superuser.execute("DROP SCHEMA test_clock CASCADE")
    superuser.commit()
