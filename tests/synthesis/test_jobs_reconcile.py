"""`manage.py reconcile` finds each way in which jobs and money can come apart, and nothing in a clean database."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import call_command

from synthesis import services
from synthesis.models import JobKind
from tests.synthesis.jobs import Customer, findings, must_claim, work


@pytest.fixture
def corrupt(role_connection: Callable[[str], psycopg.Connection[Any]]) -> Callable[[str], None]:
    """Change rows as only somebody with the server's own password can."""
    connection = role_connection("superuser")

    def execute(statement: str) -> None:
        connection.execute("SET session_replication_role = replica")
        assert connection.execute(statement).rowcount == 1
        connection.commit()

    return execute


@pytest.fixture
def busy(customer: Customer) -> Customer:
    """A job of each kind of end, and one that has not ended."""
    customer.submit("succeeds")
    work()
    stream = customer.submit("is left early", kind=JobKind.SPEECH)
    running = must_claim()
    services.cancel_for_listener(tenant_id=customer.tenant.id, job_id=stream.id, fence=1, delivered_chars=3)
    services.end_cancelled(running)
    customer.submit("fails")
    services.fail_render(must_claim(), services.Failure("engine_failed", "no", retryable=False))
    customer.submit("waits")
    return customer


def test_a_clean_database_has_no_findings(busy: Customer) -> None:
    errors = StringIO()
    call_command("reconcile", stdout=StringIO(), stderr=errors)
    assert (findings(), errors.getvalue().strip()) == ([], "0 findings")


@pytest.mark.parametrize(
    ("statement", "rules"),
    [
        ("UPDATE billing_balance SET settled = settled + 1", {"R1"}),
        ("UPDATE billing_balance SET reserved = reserved + 1", {"R2"}),
        ("DELETE FROM billing_ledgerentry WHERE units = 3", {"R1", "R3", "R7"}),
        ("UPDATE billing_ledgerentry SET units = 4 WHERE units = 3", {"R1", "R3", "R7"}),
        ("UPDATE synthesis_job SET delivered_chars = 2 WHERE delivered_chars = 3", {"R3"}),
        ("UPDATE synthesis_job SET status = 'succeeded' WHERE text = 'fails'", None),  # a constraint stands before it
        ("UPDATE synthesis_job SET status = 'cancelled', finished_at = now() WHERE text = 'waits'", {"R4"}),
        (
            "UPDATE billing_reservation SET state = 'released', ended_at = now() WHERE state = 'held'",
            {"R2", "R4"},
        ),
        ("UPDATE billing_reservation SET units = units + 1 WHERE state = 'held'", {"R2", "R4"}),
        ("UPDATE billing_ledgerentry SET language = 'xx' WHERE units = 3", {"R7"}),
    ],
)
def test_each_corruption_is_named(
    busy: Customer, corrupt: Callable[[str], None], statement: str, rules: set[str] | None
) -> None:
    if rules is None:
        with pytest.raises(psycopg.errors.CheckViolation):
            corrupt(statement)
        return
    corrupt(statement)
    with pytest.raises(SystemExit) as ended:
        call_command("reconcile", stdout=StringIO(), stderr=StringIO())
    found = findings()
    assert ended.value.code == 1
    assert {line.split()[0] for line in found} == rules
    assert all(str(busy.tenant.id) in line for line in found)
