"""`manage.py check --deploy --database default`: the catalogue of the running database against the walls we rely on.

The cheapest lasting test of tenancy: it asks PostgreSQL itself, so a table added without its wall is found by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connections

from tenants.rls import APP_ROLE

# SECURITY DEFINER functions run with their owner's rights: each one here was reviewed by hand.
REVIEWED_DEFINER_FUNCTIONS: Final = ("auth_key",)

# Tables whose own id is the tenant's.
_TENANT_COLUMNS: Final = {"tenants_tenant": "id"}

# The policy of `tenants.rls` as PostgreSQL writes it back from its parse tree.
POLICY_AS_STORED: Final = (
    "({column} = ( SELECT (NULLIF(current_setting('app.tenant_id'::text, true), ''::text))::uuid AS \"nullif\"))"
)

_Cursor = Any


def _tenant_tables(cursor: _Cursor) -> dict[str, str]:
    """Table -> the column that names its tenant."""
    cursor.execute(
        """
        SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
        WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') ORDER BY 1
        """
    )
    return {**{row[0]: "tenant_id" for row in cursor.fetchall()}, **_TENANT_COLUMNS}


def check_role(cursor: _Cursor) -> Iterator[CheckMessage]:
    cursor.execute("SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
    name, is_superuser, bypasses = cursor.fetchone()
    if is_superuser or bypasses:
        yield Error(f"role {name} is not bound by row security", hint=f"connect as {APP_ROLE}", id="tenants.E001")
    cursor.execute(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v') AND pg_has_role(relowner, 'MEMBER')"
        " AND relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    for (table,) in cursor.fetchall():
        yield Error(f"role {name} owns {table}", hint="tables belong to the migrate role", id="tenants.E002")


def check_policies(cursor: _Cursor) -> Iterator[CheckMessage]:
    for table, column in _tenant_tables(cursor).items():
        cursor.execute("SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = %s::regclass", [table])
        enabled, forced = cursor.fetchone()
        if not enabled or not forced:
            yield Error(f"table {table} has no forced row security", hint="enable_row_security", id="tenants.E003")
        cursor.execute(
            "SELECT policyname, roles::text[], cmd, qual, with_check, permissive FROM pg_policies"
            " WHERE schemaname = 'public' AND tablename = %s ORDER BY 1",
            [table],
        )
        policies = cursor.fetchall()
        expected = POLICY_AS_STORED.format(column=column)
        if not any(
            (name, roles, command) == ("tenant_isolation", [APP_ROLE], "ALL") and using == check == expected
            for name, roles, command, using, check, _ in policies
        ):
            yield Error(
                f"table {table} lacks the tenant_isolation policy", hint="enable_row_security", id="tenants.E004"
            )
        # Permissive policies add up: one more for the app role (or everyone) would open the wall.
        for name, roles, _, _, _, permissive in policies:
            if name != "tenant_isolation" and permissive == "PERMISSIVE" and {APP_ROLE, "public"} & set(roles):
                yield Error(f"policy {name} on {table} widens the app role's view", id="tenants.E005")


def check_foreign_keys(cursor: _Cursor) -> Iterator[CheckMessage]:
    tables = set(_tenant_tables(cursor)) - set(_TENANT_COLUMNS)
    cursor.execute(
        """
        SELECT con.conname, con.conrelid::regclass::text, con.confrelid::regclass::text,
               ARRAY(SELECT a.attname::text FROM unnest(con.conkey) WITH ORDINALITY k(attnum, position)
                     JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum ORDER BY k.position),
               ARRAY(SELECT a.attname::text FROM unnest(con.confkey) WITH ORDINALITY k(attnum, position)
                     JOIN pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.attnum ORDER BY k.position)
        FROM pg_constraint con WHERE con.contype = 'f' ORDER BY 1
        """
    )
    for name, table, target, columns, target_columns in cursor.fetchall():
        if table in tables and target in tables and not _is_composite(columns, target_columns):
            yield Error(
                f"foreign key {name} of {table} does not include the tenant",
                hint="add_tenant_foreign_key",
                id="tenants.E006",
            )


def _is_composite(columns: Sequence[str], target_columns: Sequence[str]) -> bool:
    return ("tenant_id", "tenant_id") in zip(columns, target_columns, strict=True)


def check_views(cursor: _Cursor) -> Iterator[CheckMessage]:
    cursor.execute(
        """
        SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND (
            c.relkind = 'm'
            OR (c.relkind = 'v' AND NOT coalesce('security_invoker=true' = ANY (c.reloptions), false))
        ) ORDER BY 1
        """
    )
    for (view,) in cursor.fetchall():
        yield Error(
            f"view {view} runs with its owner's rights", hint="WITH (security_invoker = true)", id="tenants.E007"
        )


def check_definer_functions(cursor: _Cursor) -> Iterator[CheckMessage]:
    cursor.execute("SELECT proname FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace ORDER BY 1")
    for (function,) in cursor.fetchall():
        if function not in REVIEWED_DEFINER_FUNCTIONS:
            yield Error(f"function {function} is SECURITY DEFINER and not reviewed", id="tenants.E008")


CATALOGUE_CHECKS: Final[tuple[Callable[[_Cursor], Iterator[CheckMessage]], ...]] = (
    check_role,
    check_policies,
    check_foreign_keys,
    check_views,
    check_definer_functions,
)


@register(Tags.database, deploy=True)
def check_catalogue(*, databases: Sequence[str] | None, **kwargs: Any) -> list[CheckMessage]:
    """Run by `manage.py check --deploy --database default`, as the role the application uses."""
    if "default" not in (databases or ()):
        return []
    with connections["default"].cursor() as cursor:
        return [message for check in CATALOGUE_CHECKS for message in check(cursor)]
