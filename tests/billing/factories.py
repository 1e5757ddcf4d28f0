"""Plans and charged jobs for the billing tests."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

from django.db import connections

from billing import services
from billing.models import LedgerEntry, Meter, Plan, PriceVersion
from synthesis.models import SynthesisJob
from tenants import services as tenants
from tenants.models import Tenant
from tests.factories import make_job

_numbers = itertools.count(1)


def make_plan(*, included_units: int = 1_000, overage_units: int = 0, unit_price_micros: int = 7) -> Plan:
    """A plan with one price, in effect since 2000."""
    slug = f"plan-{next(_numbers)}"
    plan = Plan.objects.using("staff").create(
        slug=slug, name=slug, included_units=included_units, overage_units=overage_units
    )
    add_price(plan, unit_price_micros=unit_price_micros)
    return plan


def add_price(
    plan: Plan,
    *,
    unit_price_micros: int,
    version: int = 1,
    currency: str = "EUR",
    effective_from: dt.datetime = dt.datetime(2000, 1, 1, tzinfo=dt.UTC),
) -> PriceVersion:
    price: PriceVersion = PriceVersion.objects.using("staff").create(
        plan=plan,
        meter=Meter.CHARACTERS,
        version=version,
        effective_from=effective_from,
        currency=currency,
        unit_price_micros=unit_price_micros,
    )
    return price


def make_customer(*, time_zone: str = "UTC", **plan: Any) -> Tenant:
    """A tenant on a plan of its own."""
    slug = f"customer-{next(_numbers)}"
    tenant = tenants.create_tenant(slug=slug, name=slug, actor="test")
    services.open_account(tenant_id=tenant.id, plan_slug=make_plan(**plan).slug, time_zone=time_zone)
    return tenant


def settle(job: SynthesisJob, *, used_units: int, **fields: Any) -> LedgerEntry | None:
    details: dict[str, Any] = {
        "attempt": 1,
        "api_key_id": job.api_key_id,
        "voice_id": job.voice_id,
        "language": job.language,
        **fields,
    }
    return services.settle(tenant_id=job.tenant_id, job_id=job.id, used_units=used_units, **details)


def charge(tenant: Tenant, *, text: str = "hello", **fields: Any) -> LedgerEntry:
    """The entry of a job that used all it held."""
    entry = settle(make_job(tenant, text=text), used_units=len(text), **fields)
    assert entry is not None
    return entry


def close_connections() -> None:
    """At the end of a thread: its connections would outlive it."""
    connections.close_all()
