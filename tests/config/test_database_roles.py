"""The four roles on a real server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from psycopg import sql

from config.database import ROLES, create_roles
from config.embedded.servers import EmbeddedServers
from tests.conftest import Servers

Connect = Callable[[str], psycopg.Connection[Any]]


def test_repeating_it_changes_nothing_but_the_passwords(servers: Servers) -> None:
    passwords = servers.embedded.secrets.role_passwords
    superuser = servers.embedded.postgres.superuser_url(servers.embedded.postgres_port)
    create_roles(superuser, database=servers.database, passwords=passwords)
    with psycopg.connect(servers.url("default")) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("cantoria_app",)


def test_a_wrong_password_is_refused(servers: Servers) -> None:
    url = servers.url("default").replace(servers.embedded.secrets.role_passwords["default"], "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


@pytest.mark.parametrize("alias", sorted(set(ROLES) - {"migrate"}))
def test_only_the_owner_makes_tables(role_connection: Connect, alias: str) -> None:
    role_connection("migrate").execute("CREATE TABLE scribble (id int); DROP TABLE scribble")
    for statement in ("CREATE TABLE scribble (id int)", "CREATE TEMPORARY TABLE scribble (id int)"):
        connection = role_connection(alias)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(sql.SQL(statement))


def test_a_stranger_cannot_enter(servers: Servers, role_connection: Connect) -> None:
    superuser = role_connection("superuser")
    superuser.autocommit = True
    superuser.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
    try:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(servers.url("superuser"), user="stranger", password="stranger")
    finally:
        superuser.execute("DROP ROLE stranger")


def test_a_role_that_could_pass_by_row_security_is_refused(servers: Servers, role_connection: Connect) -> None:
    superuser = role_connection("superuser")
    superuser.autocommit = True
    superuser.execute("ALTER ROLE cantoria_staff BYPASSRLS")
    try:
        with pytest.raises(ImproperlyConfigured, match="cantoria_staff"):
            create_roles(
                servers.embedded.postgres.superuser_url(servers.embedded.postgres_port),
                database=servers.database,
                passwords=servers.embedded.secrets.role_passwords,
            )
    finally:
        superuser.execute("ALTER ROLE cantoria_staff NOBYPASSRLS")


def test_an_administrator_without_superuser_can_make_them(servers: Servers) -> None:
    """As on a managed server: CREATEROLE and CREATEDB are enough. On a server of its own, since roles are shared."""
    fresh = EmbeddedServers(servers.embedded.var / "managed", durable=False)
    fresh.start()
    try:
        superuser = fresh.postgres.superuser_url(fresh.postgres_port)
        with psycopg.connect(superuser, autocommit=True) as connection:
            connection.execute("DROP DATABASE cantoria")
            for role in ROLES.values():
                connection.execute(sql.SQL("DROP OWNED BY {}; DROP ROLE {}").format(*[sql.Identifier(role)] * 2))
            connection.execute("CREATE ROLE clerk LOGIN CREATEROLE CREATEDB PASSWORD 'clerk'")
        clerk = psycopg.conninfo.make_conninfo(superuser, user="clerk", password="clerk")
        for _ in range(2):
            create_roles(clerk, database="shop", passwords=dict.fromkeys(ROLES, "secret"))
        owner = psycopg.conninfo.make_conninfo(superuser, user="cantoria_migrate", password="secret", dbname="shop")
        with psycopg.connect(owner) as connection:
            connection.execute("CREATE TABLE goods (id int)")
    finally:
        fresh.stop()
