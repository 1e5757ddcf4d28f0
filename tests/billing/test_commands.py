"""`create_tenant`, `create_api_key` and `usage_report`, as scripts use them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command

from billing import selectors
from billing.models import Account
from tenants.api import caller
from tenants.models import Scope, Tenant
from tenants.scoping import tenant_scope
from tests.billing.factories import charge, make_customer


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command(*arguments, stdout=output, stderr=io.StringIO())
    return output.getvalue()


def last_line(*arguments: str) -> str:
    return run(*arguments).splitlines()[-1]


def test_a_made_tenant_can_be_billed_and_its_key_works() -> None:
    tenant_id = UUID(last_line("create_tenant", "acme", "--name", "Acme Ltd", "--time-zone", "Asia/Tokyo"))
    with tenant_scope(tenant_id):
        tenant, account = Tenant.objects.get(), Account.objects.get()
    assert (tenant.slug, tenant.name, account.time_zone, account.plan.slug) == (
        "acme",
        "Acme Ltd",
        "Asia/Tokyo",
        "standard",
    )
    secret = last_line("create_api_key", "acme", "--name", "ci", "--scopes", "usage:read, voices:read")
    found = caller.authenticate(f"Bearer {secret}", address="127.0.0.1")
    assert (found.tenant_id, found.scopes) == (tenant_id, frozenset({"usage:read", "voices:read"}))
    everything = caller.authenticate(f"Bearer {last_line('create_api_key', 'acme')}", address="127.0.0.1")
    assert everything.scopes == set(Scope.values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create_tenant", "acme"], "'acme' is taken"),
        (["create_tenant", "Not A Slug"], "lower-case letters"),
        (["create_tenant", "other", "--plan", "gold"], "Known plans: standard"),
        (["create_tenant", "other", "--time-zone", "Mars/Olympus"], "IANA"),
        (["create_api_key", "nobody"], "no tenant 'nobody'"),
        (["create_api_key", "acme", "--scopes", "everything"], "Known scopes: speech:write"),
        (["create_api_key", "acme", "--expires-in", "0"], "at least one day"),
        (["usage_report", "--tenant", "nobody", "--from", "2026-01-01", "--to", "2026-01-31"], "no tenant 'nobody'"),
        (["usage_report", "--tenant", "acme", "--from", "2026-01-31", "--to", "2026-01-01"], "after the last"),
        (["usage_report", "--tenant", "acme", "--from", "31.1.2026", "--to", "2026-01-01"], "YYYY-MM-DD"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str) -> None:
    run("create_tenant", "acme")
    with pytest.raises(CommandError, match=message):
        run(*arguments)
    assert list(Tenant.objects.using("staff").values_list("slug", flat=True)) == ["acme"]


def test_the_report_goes_to_standard_output_or_a_file(tmp_path: Path, capfdbinary: Any) -> None:
    tenant = make_customer()
    day = str(charge(tenant, text="hello").used_on)
    arguments = ["usage_report", "--tenant", tenant.slug, "--from", day, "--to", day, "--format", "json"]
    call_command(*arguments, stderr=io.StringIO())
    printed = capfdbinary.readouterr().out
    target = tmp_path / "report.json"
    call_command(*arguments, "--output", str(target), stderr=io.StringIO())
    assert printed == target.read_bytes()
    assert b'"units":5' in printed
    assert selectors.get_head(tenant_id=tenant.id) == 1
