"""The second wall, asked directly: raw SQL as each role, and the catalogue check with each rule broken in turn."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.core.checks import CheckMessage
from django.db import connection

from billing import services as billing
from synthesis.models import JobAttempt
from tenants import services as tenants
from tenants.checks import check_catalogue
from tenants.models import Tenant
from tenants.scoping import tenant_scope
from tests.factories import make_job, make_tenant, make_voice
from voices.models import PreparedVoice, ReferenceClip, VoiceKey

RoleConnection = Callable[[str], psycopg.Connection[Any]]

pytestmark = pytest.mark.usefixtures("database")


def tenant_tables(db: psycopg.Connection[Any]) -> list[str]:
    rows = db.execute(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'tenant_id'"
    ).fetchall()
    return sorted(row[0] for row in rows)


def refused(db: psycopg.Connection[Any], statement: str, parameters: Any = None) -> str:
    """Run a statement that the database must refuse; answer the SQLSTATE."""
    with pytest.raises(psycopg.Error) as caught:
        db.execute(statement, parameters)
        db.commit()
    db.rollback()
    assert caught.value.sqlstate is not None
    return caught.value.sqlstate


def test_no_scope_sees_no_row_of_any_tenant_table(role_connection: RoleConnection) -> None:
    make_job(make_tenant("full"))
    owner, app = role_connection("migrate"), role_connection("default")
    tables = tenant_tables(owner)
    assert len(tables) >= 12
    filled = [table for table in tables if owner.execute(f"SELECT count(*) FROM {table}").fetchone() != (0,)]
    assert {"synthesis_job", "voices_voice", "billing_reservation", "billing_balance"} <= set(filled)
    for table in [*tables, "tenants_tenant"]:
        assert app.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


@pytest.mark.parametrize("statement", ["UPDATE {} SET tenant_id = tenant_id", "DELETE FROM {}"])
def test_no_scope_changes_no_row(role_connection: RoleConnection, statement: str) -> None:
    make_job(make_tenant("full"))
    app = role_connection("default")
    for table in tenant_tables(role_connection("migrate")):
        try:
            assert app.execute(statement.format(table)).rowcount == 0, table
        except psycopg.errors.InsufficientPrivilege:
            app.rollback()  # append-only or never deleted: refused before row security is asked


def test_insert_for_another_tenant_is_refused(role_connection: RoleConnection) -> None:
    mine, other = make_tenant("mine"), make_tenant("other")
    app = role_connection("default")
    insert = (
        "INSERT INTO voices_voice (id, tenant_id, name, description, language, labels, status, failure_code,"
        " failure_message, key_epoch) VALUES (%s, %s, 'x', '', '', '{}', 'preparing', '', '', 1)"
    )
    app.execute("SELECT set_config('app.tenant_id', %s, true)", [str(mine.id)])
    app.execute(insert, [uuid.uuid4(), mine.id])
    assert refused(app, insert, [uuid.uuid4(), other.id]) == "42501"
    assert refused(app, insert, [uuid.uuid4(), mine.id]) == "42501"  # the scope ended with the transaction


def test_moving_a_row_to_another_tenant_is_refused(role_connection: RoleConnection) -> None:
    mine, other = make_tenant("mine"), make_tenant("other")
    voice = make_voice(mine)
    app = role_connection("default")
    app.execute("SELECT set_config('app.tenant_id', %s, true)", [str(mine.id)])
    assert refused(app, "UPDATE voices_voice SET tenant_id = %s WHERE id = %s", [other.id, voice.id]) == "42501"


def test_a_job_cannot_point_at_another_tenants_voice(role_connection: RoleConnection) -> None:
    mine, other = make_tenant("mine"), make_tenant("other")
    job, their_voice = make_job(mine), make_voice(other)
    app = role_connection("default")
    app.execute("SELECT set_config('app.tenant_id', %s, true)", [str(mine.id)])
    move = "UPDATE synthesis_job SET voice_id = %s WHERE id = %s"
    assert refused(app, move, [their_voice.id, job.id]) == "23503"


def fill_every_table(tenant: Tenant) -> None:
    """At least one row in each table that points at another tenant table."""
    issued = tenants.create_api_key(tenant_id=tenant.id, name="x", actor="test")
    voice = make_voice(tenant)
    job = make_job(tenant, voice=voice, api_key_id=issued.api_key.id)
    with tenant_scope(tenant.id):
        owned = {"tenant_id": tenant.id}
        VoiceKey.objects.create(**owned, voice=voice, wrapped_key=b"x")
        ReferenceClip.objects.create(
            **owned, voice=voice, storage_key=str(uuid.uuid4()), reference_seconds=5, sample_rate_hz=24_000, quality={}
        )
        PreparedVoice.objects.create(
            **owned,
            voice=voice,
            engine="x",
            engine_version="1",
            key_epoch=1,
            storage_key=str(uuid.uuid4()),
            size_bytes=1,
        )
        JobAttempt.objects.create(**owned, job=job, attempt=1, fence=1, worker_id="x")
        billing.settle(
            tenant_id=tenant.id,
            job_id=job.id,
            used_units=job.billable_chars,
            attempt=1,
            api_key_id=issued.api_key.id,
            voice_id=voice.id,
            language="en",
        )


def test_every_key_between_tenant_tables_refuses_a_cross_tenant_row(role_connection: RoleConnection) -> None:
    """I6, by introspection: for each composite key, a copy of my row that names the other tenant's is refused."""
    mine, other = make_tenant("mine"), make_tenant("other")
    fill_every_table(mine)
    fill_every_table(other)
    make_voice(other)  # the newest: one that nothing points at yet
    owner = role_connection("migrate")
    keys = owner.execute(
        """
        SELECT con.conrelid::regclass::text, a.attname, con.confrelid::regclass::text FROM pg_constraint con
        JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = con.conkey[2]
        WHERE con.contype = 'f' AND array_length(con.conkey, 1) = 2 ORDER BY 1, 2
        """
    ).fetchall()
    assert len(keys) >= 9
    for table, column, target in keys:
        for owner_of_target, fits in ((mine, True), (other, False)):
            found = owner.execute(
                f"SELECT id FROM {target} WHERE tenant_id = %s ORDER BY id DESC", [owner_of_target.id]
            ).fetchone()
            assert found is not None, target
            own = owner.execute(f"SELECT {column} FROM {table} WHERE tenant_id = %s", [mine.id]).fetchone()
            assert own is not None, table
            target_id = own[0] if fits else found[0]
            # Besides the key under test, what must be unique; PostgreSQL leaves out what a table does not have.
            copy = {"id": str(uuid.uuid4()), "storage_key": str(uuid.uuid4()), "seq": 999, column: str(target_id)}
            copy |= {"kind": "adjustment"} if table == "billing_ledgerentry" else {}
            inserted = f"""
                INSERT INTO {table} SELECT (jsonb_populate_record(r, %s)).* FROM {table} r WHERE tenant_id = %s LIMIT 1
            """
            try:
                owner.execute(inserted, [json.dumps(copy), mine.id])
                owner.execute("SET CONSTRAINTS ALL IMMEDIATE")
                accepted = True
            except psycopg.errors.UniqueViolation:
                accepted = True  # of my own row: only the target differs, and it was found
            except psycopg.errors.ForeignKeyViolation:
                accepted = False
            owner.rollback()
            assert accepted == fits, (table, column)


def test_the_pool_never_carries_a_tenant(role_connection: RoleConnection) -> None:
    first, second = make_tenant("first"), make_tenant("second")
    make_voice(first)
    make_voice(second)

    def visible() -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT tenant_id FROM voices_voice")
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows

    with tenant_scope(first.id):
        assert visible() == [(first.id,)]
    with pytest.raises(ZeroDivisionError), tenant_scope(second.id):
        assert visible() == [(second.id,)]
        raise ZeroDivisionError
    assert visible() == []


def test_append_only_tables_refuse_every_role(role_connection: RoleConnection) -> None:
    make_job(make_tenant("full"))
    for table in ("billing_ledgerentry", "voices_consent", "tenants_auditevent", "billing_priceversion"):
        for role in ("default", "staff", "migrate"):
            db = role_connection(role)
            assert refused(db, f"TRUNCATE {table} CASCADE") in {"42501", "23001"}
        assert refused(role_connection("default"), f"DELETE FROM {table}") == "42501"
    owner = role_connection("migrate")
    assert refused(owner, "DELETE FROM voices_consent") == "23001"
    assert refused(owner, "UPDATE tenants_auditevent SET actor = 'nobody'") == "23001"


def test_the_dispatch_role_sees_only_what_picking_needs(role_connection: RoleConnection) -> None:
    job = make_job(make_tenant("full"))
    dispatch = role_connection("dispatch")
    assert dispatch.execute("SELECT id FROM synthesis_job").fetchall() == [(job.id,)]
    assert refused(dispatch, "SELECT text FROM synthesis_job") == "42501"
    assert refused(dispatch, "UPDATE synthesis_job SET status = 'running'") == "42501"
    assert refused(dispatch, "SELECT * FROM voices_voice") == "42501"


def test_tenant_rows_are_walled_too() -> None:
    mine, other = make_tenant("mine"), make_tenant("other")
    with tenant_scope(mine.id):
        assert list(Tenant.objects.values_list("id", flat=True)) == [mine.id]
        assert not Tenant.objects.filter(id=other.id).update(name="taken over")


# --- the catalogue check


def findings() -> list[CheckMessage]:
    return check_catalogue(databases=["default"])


def test_the_catalogue_is_clean() -> None:
    assert findings() == []


BREAKS = {
    "tenants.E003": (
        "ALTER TABLE voices_voice NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE voices_voice FORCE ROW LEVEL SECURITY",
        "voices_voice",
    ),
    "tenants.E004": ("ALTER POLICY tenant_isolation ON voices_voice USING (true)", None, "voices_voice"),
    "tenants.E005": (
        "CREATE POLICY everyone ON voices_voice USING (true)",
        "DROP POLICY everyone ON voices_voice",
        "everyone",
    ),
    "tenants.E006": (
        "ALTER TABLE synthesis_job ADD CONSTRAINT plain_key FOREIGN KEY (voice_id) REFERENCES voices_voice (id)",
        "ALTER TABLE synthesis_job DROP CONSTRAINT plain_key",
        "plain_key",
    ),
    "tenants.E007": ("CREATE VIEW all_voices AS SELECT * FROM voices_voice", "DROP VIEW all_voices", "all_voices"),
    "tenants.E008": (
        "CREATE FUNCTION leak() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM voices_voice'",
        "DROP FUNCTION leak()",
        "leak",
    ),
}


@contextmanager
def broken(owner: psycopg.Connection[Any], statement: str, mend: str | None) -> Iterator[None]:
    owner.execute(statement)
    owner.commit()
    try:
        yield
    finally:
        if mend is None:
            wall = "tenant_id = (SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid)"
            mend = f"ALTER POLICY tenant_isolation ON voices_voice USING ({wall})"
        owner.execute(mend)
        owner.commit()


@pytest.mark.parametrize("check_id", sorted(BREAKS))
def test_the_catalogue_check_names_what_is_broken(role_connection: RoleConnection, check_id: str) -> None:
    statement, mend, name = BREAKS[check_id]
    with broken(role_connection("migrate"), statement, mend):
        found = findings()
    assert [message.id for message in found] == [check_id]
    assert name in found[0].msg
    assert findings() == []


def test_the_catalogue_check_names_an_unbound_role(role_connection: RoleConnection) -> None:
    from tenants.checks import check_role

    superuser = role_connection("superuser")
    with superuser.cursor() as cursor:
        assert "tenants.E001" in {message.id for message in check_role(cursor)}
    with role_connection("migrate").cursor() as cursor:
        assert {message.id for message in check_role(cursor)} == {"tenants.E002"}
