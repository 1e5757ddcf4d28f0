"""The four PostgreSQL roles and the connections that each kind of process holds.

The web process has no staff and no owner credentials, so that an injection there cannot leave its tenant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import psycopg
from django.core.exceptions import ImproperlyConfigured
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

URL_VARIABLES: Final[Mapping[str, str]] = {
    "default": "DATABASE_URL",
    "migrate": "DATABASE_URL_MIGRATE",
    "staff": "DATABASE_URL_STAFF",
    "dispatch": "DATABASE_URL_DISPATCH",
}
ROLES: Final[Mapping[str, str]] = {  # policies and grants name these roles, so a server cannot have others
    "default": "cantoria_app",
    "migrate": "cantoria_migrate",
    "staff": "cantoria_staff",
    "dispatch": "cantoria_dispatch",
}
OWNER: Final = ROLES["migrate"]

PROCESSES: Final = ("web", "admin", "worker", "dispatcher", "manage")
ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "web": ("default",),
    "admin": ("default", "staff"),
    "worker": ("default", "dispatch"),
    "dispatcher": ("default", "dispatch"),
    "manage": ("default", "migrate", "staff", "dispatch"),
}
_WORKER_CONNECTION_SECONDS: Final = 600


def databases(process: str, urls: Mapping[str, str], *, pool_size: int) -> dict[str, dict[str, Any]]:
    """Django's DATABASES for one kind of process. `urls`: connection string by alias; extra ones are ignored."""
    settings: dict[str, dict[str, Any]] = {}
    for alias in ALIASES[process]:
        entry = _entry(urls[alias], variable=URL_VARIABLES[alias], role=ROLES[alias])
        if process in ("web", "admin"):
            # A pool and persistent connections exclude each other; async views run the ORM on many threads.
            entry["OPTIONS"]["pool"] = {"min_size": min(2, pool_size), "max_size": pool_size, "timeout": 5}
        else:
            # Celery closes a pool after every task (celery#10554), so its threads keep their connections instead.
            entry["CONN_MAX_AGE"] = _WORKER_CONNECTION_SECONDS
            entry["CONN_HEALTH_CHECKS"] = True
        settings[alias] = entry
    return settings


def _entry(url: str, *, variable: str, role: str) -> dict[str, Any]:
    parts = _parse(url, variable=variable)
    if parts.pop("user", None) != role:
        raise ImproperlyConfigured(f"{variable} must connect as the role {role}: row security is bound to that name.")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.pop("dbname"),
        "USER": role,
        "PASSWORD": parts.pop("password", ""),
        "HOST": parts.pop("host", ""),
        "PORT": str(parts.pop("port", "")),
        "CONN_MAX_AGE": 0,
        "DISABLE_SERVER_SIDE_CURSORS": True,  # they do not survive a pooler in transaction mode
        "OPTIONS": parts,
    }


def _parse(url: str, *, variable: str) -> dict[str, Any]:
    try:
        parts = dict(conninfo_to_dict(url))
    except psycopg.ProgrammingError:
        parts = {}  # the parser's message quotes the URL, and with it the password
    if not parts.get("dbname"):
        raise ImproperlyConfigured(f"{variable} must look like postgresql://role:password@host:5432/database.")
    return parts


def create_roles(superuser_url: str, *, database: str, passwords: Mapping[str, str]) -> None:
    """Create or repair the four roles and the database they share; safe to repeat.

    `passwords`: by alias. The superuser may be a managed server's administrator (CREATEROLE, CREATEDB).
    Raises ImproperlyConfigured when an existing role could pass by row security.
    """
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        for alias, role in ROLES.items():
            _create_role(connection, role, passwords[alias])
        _refuse_privileged_roles(connection)
        if connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() != (True,):
            # Giving a database to a role needs membership of it.
            connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(OWNER)))
        exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone()
        statement = "ALTER DATABASE {} OWNER TO {}" if exists else "CREATE DATABASE {} OWNER {} TEMPLATE template0"
        connection.execute(sql.SQL(statement).format(sql.Identifier(database), sql.Identifier(OWNER)))
    with psycopg.connect(superuser_url, dbname=database, autocommit=True) as connection:
        grant_access(connection, database=database)


def grant_access(connection: psycopg.Connection[Any], *, database: str) -> None:
    """Let the four roles, and nobody else, into `database`, to which `connection` is open. Tables: by migrations."""
    name, owner, roles = sql.Identifier(database), sql.Identifier(OWNER), _identifiers(ROLES.values())
    for statement in (
        sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name),
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, roles),
        sql.SQL("REVOKE ALL ON SCHEMA public FROM PUBLIC"),
        sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(roles),
        sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(owner),
    ):
        connection.execute(statement)


def _create_role(connection: psycopg.Connection[Any], role: str, password: str) -> None:
    # Hashed here: a server that logs statements would write a plain password down.
    digest = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
    statement = "ALTER ROLE {} LOGIN PASSWORD {}" if exists else "CREATE ROLE {} LOGIN PASSWORD {}"
    connection.execute(sql.SQL(statement).format(sql.Identifier(role), sql.Literal(digest)))


def _refuse_privileged_roles(connection: psycopg.Connection[Any]) -> None:
    rows = connection.execute(
        "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND (rolsuper OR rolbypassrls OR rolcreaterole)",
        [list(ROLES.values())],
    ).fetchall()
    if rows:
        names = ", ".join(sorted(row[0] for row in rows))
        raise ImproperlyConfigured(f"These roles could pass by row security; take their attributes away: {names}.")


def _identifiers(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
