"""M6 and billing's part of M12: who may change the ledger, and what a superuser's edit looks like afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from billing import selectors
from billing.selectors import Finding
from tenants.models import Tenant
from tests.billing.factories import charge, make_customer
from tests.factories import make_job

Tamper = Callable[..., None]
RoleConnection = Callable[[str], psycopg.Connection[Any]]


@pytest.fixture
def tenant() -> Tenant:
    """Three charged jobs and one that still holds its units."""
    tenant = make_customer()
    for _ in range(3):
        charge(tenant, text="hello")
    make_job(tenant, text="abc")
    return tenant


def audit(tenant: Tenant) -> list[tuple[str, str]]:
    found = list(selectors.audit_tenant(tenant_id=tenant.id))
    assert all(finding.tenant_id == tenant.id for finding in found)
    return [(finding.rule, finding.message) for finding in found]


@pytest.mark.parametrize(
    ("role", "code"),
    [("default", "42501"), ("dispatch", "42501"), ("staff", "42501"), ("migrate", "23001"), ("superuser", "23001")],
)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE billing_ledgerentry SET units = 0",
        "DELETE FROM billing_ledgerentry",
        "TRUNCATE billing_ledgerentry",
        "UPDATE billing_priceversion SET unit_price_micros = 0",
        "DELETE FROM billing_priceversion",
    ],
)
def test_no_role_changes_the_ledger_or_a_price(
    tenant: Tenant, role_connection: RoleConnection, role: str, code: str, statement: str
) -> None:
    connection = role_connection(role)
    connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant.id)])
    with pytest.raises(psycopg.Error) as refused:
        connection.execute(statement)
    assert refused.value.sqlstate == code
    connection.rollback()
    assert audit(tenant) == []


def test_clean_books_have_no_findings(tenant: Tenant) -> None:
    make_customer()
    assert list(selectors.audit_all_tenants()) == []


EDITS = {
    "units": ("units = units + 1", {"R1", "R7"}),
    "money": ("amount_micros = 0", {"R7"}),
    # Not out of its month, which a constraint would refuse.
    "day": ("used_on = CASE WHEN used_on = period THEN used_on + 1 ELSE used_on - 1 END", {"R7"}),
    "voice": ("voice_id = NULL", {"R7"}),
    "language": ("language = 'zh'", {"R7"}),
    "actor": ("actor = 'nobody'", {"R7"}),
    "attempt": ("attempt = attempt + 1", {"R7"}),
    "recorded": ("recorded_at = recorded_at + interval '1 microsecond'", {"R7"}),
}


@pytest.mark.parametrize("edit", sorted(EDITS))
def test_a_superusers_edit_is_found_with_its_seq(tenant: Tenant, tamper: Tamper, edit: str) -> None:
    change, rules = EDITS[edit]
    tamper(f"UPDATE billing_ledgerentry SET {change} WHERE tenant_id = %s AND seq = 2", [tenant.id])
    found = audit(tenant)
    assert {rule for rule, _ in found} == rules
    assert ("R7", "ledger entry 2 was changed after it was written") in found


def test_a_removed_entry_is_found(tenant: Tenant, tamper: Tamper) -> None:
    tamper("DELETE FROM billing_ledgerentry WHERE tenant_id = %s AND seq = 2", [tenant.id])
    rules = dict(audit(tenant))
    assert rules["R7"] == "ledger entry 2 is missing, with all up to 2"
    assert "settled is 15, the ledger says 10" in rules["R1"]


def test_a_cut_end_is_found(tenant: Tenant, tamper: Tamper) -> None:
    tamper("DELETE FROM billing_ledgerentry WHERE tenant_id = %s AND seq = 3", [tenant.id])
    assert ("R7", "ledger entry 3 is missing, with all up to 3") in audit(tenant)


def test_a_forgotten_end_is_found(tenant: Tenant, tamper: Tamper) -> None:
    tamper("UPDATE billing_account SET last_seq = 2 WHERE tenant_id = %s", [tenant.id])
    rules = audit(tenant)
    assert ("R7", "ledger entry 3 lies beyond the head that the account remembers") in rules
    assert ("R7", "ledger entry 2 is not the head that the account remembers") in rules


def test_a_wrong_balance_is_found(tenant: Tenant, tamper: Tamper) -> None:
    tamper(
        "UPDATE billing_balance SET settled = settled - 1, reserved = reserved + 2 WHERE tenant_id = %s", [tenant.id]
    )
    r1, r2 = audit(tenant)
    assert r1[0] == "R1"
    assert "characters: settled is 14, the ledger says 15" in r1[1]
    assert r2[0] == "R2"
    assert "characters: reserved is 5, held reservations say 3" in r2[1]


def test_a_lost_balance_is_found(tenant: Tenant, tamper: Tamper) -> None:
    tamper("DELETE FROM billing_balance WHERE tenant_id = %s", [tenant.id])
    assert [rule for rule, _ in audit(tenant)] == ["R1", "R2"]


def test_a_vanished_reservation_is_found(tenant: Tenant, tamper: Tamper) -> None:
    tamper("DELETE FROM billing_reservation WHERE tenant_id = %s AND state = 'held'", [tenant.id])
    ((rule, message),) = audit(tenant)
    assert rule == "R2"
    assert "reserved is 3, held reservations say 0" in message


def test_the_audit_of_all_tenants_names_the_broken_one(tenant: Tenant, tamper: Tamper) -> None:
    charge(make_customer())
    tamper("UPDATE billing_balance SET settled = 0 WHERE tenant_id = %s", [tenant.id])
    (finding,) = selectors.audit_all_tenants()
    assert finding == Finding("R1", tenant.id, finding.message)
    assert str(finding).startswith(f"R1 tenant {tenant.id}: ")
