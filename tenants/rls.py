"""The second wall between tenants: PostgreSQL row security, made by migrations.

Every table with a `tenant_id` gets the same policy text; `tenants.checks` compares the catalogue with it. Foreign keys
between tenant tables are composite, `(tenant_id, id)`, because row security does not look at foreign keys.
"""

from __future__ import annotations

from typing import Final

from django.db import migrations

MIGRATE_ROLE: Final = "cantoria_migrate"
APP_ROLE: Final = "cantoria_app"
STAFF_ROLE: Final = "cantoria_staff"
DISPATCH_ROLE: Final = "cantoria_dispatch"

# NULLIF: after the first SET LOCAL on a connection the setting reverts to '', and ''::uuid would raise.
# The sub-select becomes an InitPlan, so that an index on (tenant_id, ...) is used.
CURRENT_TENANT_SQL: Final = "(SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid)"

READ_WRITE: Final = "SELECT, INSERT, UPDATE, DELETE"
APPEND_ONLY: Final = "SELECT, INSERT"


def enable_row_security(
    table: str, *, grants: str = READ_WRITE, tenant_column: str = "tenant_id", staff_grants: str | None = None
) -> migrations.RunSQL:
    """Wall a tenant table in: policies for the app role (its tenant only) and for staff and owner (all rows).

    `grants` is what the app role may do; `staff_grants` defaults to the same.
    """
    policy = f"{tenant_column} = {CURRENT_TENANT_SQL}"
    return migrations.RunSQL(
        sql=f"""
        ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
        ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
        CREATE POLICY tenant_isolation ON {table} FOR ALL TO {APP_ROLE} USING ({policy}) WITH CHECK ({policy});
        CREATE POLICY staff_access ON {table} FOR ALL TO {STAFF_ROLE} USING (true) WITH CHECK (true);
        CREATE POLICY owner_access ON {table} FOR ALL TO {MIGRATE_ROLE} USING (true) WITH CHECK (true);
        GRANT {grants} ON {table} TO {APP_ROLE};
        GRANT {staff_grants or grants} ON {table} TO {STAFF_ROLE};
        """,
        reverse_sql=f"""
        REVOKE ALL ON {table} FROM {APP_ROLE}, {STAFF_ROLE};
        DROP POLICY tenant_isolation ON {table};
        DROP POLICY staff_access ON {table};
        DROP POLICY owner_access ON {table};
        ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY;
        ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;
        """,
    )


def allow_dispatch(table: str, *, columns: tuple[str, ...]) -> migrations.RunSQL:
    """Let the dispatch role read some columns of all rows, to pick (tenant, row). It may change nothing."""
    return migrations.RunSQL(
        sql=f"""
        CREATE POLICY dispatch_picks ON {table} FOR SELECT TO {DISPATCH_ROLE} USING (true);
        GRANT SELECT ({", ".join(columns)}) ON {table} TO {DISPATCH_ROLE};
        """,
        reverse_sql=f"""
        REVOKE ALL ON {table} FROM {DISPATCH_ROLE};
        DROP POLICY dispatch_picks ON {table};
        """,
    )


def add_tenant_foreign_key(
    table: str, column: str, *, references: str, on_delete: str = "NO ACTION"
) -> migrations.RunSQL:
    """Bind `(tenant_id, column)` to `(tenant_id, id)` of `references`, which needs a `tenant_and_id_unique`."""
    name = f"{table}_{column}_same_tenant"
    return migrations.RunSQL(
        sql=f"""
        ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY (tenant_id, {column})
        REFERENCES {references} (tenant_id, id) ON DELETE {on_delete} DEFERRABLE INITIALLY DEFERRED;
        """,
        reverse_sql=f"ALTER TABLE {table} DROP CONSTRAINT {name};",
    )


def make_append_only(table: str) -> migrations.RunSQL:
    """Refuse UPDATE, DELETE and TRUNCATE by trigger, for every role. Needs `forbid_change()` of tenants.0001."""
    return migrations.RunSQL(
        sql=f"""
        CREATE TRIGGER {table}_rows_stay BEFORE UPDATE OR DELETE ON {table}
        FOR EACH ROW EXECUTE FUNCTION forbid_change();
        CREATE TRIGGER {table}_table_stays BEFORE TRUNCATE ON {table}
        FOR EACH STATEMENT EXECUTE FUNCTION forbid_change();
        """,
        reverse_sql=f"""
        DROP TRIGGER {table}_rows_stay ON {table};
        DROP TRIGGER {table}_table_stays ON {table};
        """,
    )


def share_table(table: str, *, app_grants: str = "SELECT", staff_grants: str = READ_WRITE) -> migrations.RunSQL:
    """Grant on a table that belongs to no tenant (plans, prices)."""
    return migrations.RunSQL(
        sql=f"GRANT {app_grants} ON {table} TO {APP_ROLE}; GRANT {staff_grants} ON {table} TO {STAFF_ROLE};",
        reverse_sql=f"REVOKE ALL ON {table} FROM {APP_ROLE}, {STAFF_ROLE};",
    )
