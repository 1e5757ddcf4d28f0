"""Reads of plans, balances and usage, and the audit of balances against the ledger."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final
from uuid import UUID

from django.db import connection, models
from django.db.models import Count, F, Func, Q, Sum, Value
from django.db.models.functions import Cast

from billing import ledger
from billing.errors import NoPriceError, PlanNotFoundError
from billing.models import Account, Balance, EntryKind, LedgerEntry, Meter, Plan, PriceVersion
from tenants.models import Tenant
from tenants.scoping import tenant_scope

_PAGE_ENTRIES: Final = 5_000  # of a long read; client-side cursors hold a page in memory


@dataclass(frozen=True, slots=True)
class Terms:
    """What counts for one tenant at one instant of the database's clock."""

    plan: Plan
    price: PriceVersion
    at: dt.datetime
    day: dt.date  # in the tenant's zone

    @property
    def period(self) -> dt.date:
        return self.day.replace(day=1)


def _account_at(at: dt.datetime | None) -> Any:
    """The account in scope with `at` (by default the transaction's start) and its calendar day, by PostgreSQL."""
    instant = Func(function="now", output_field=models.DateTimeField()) if at is None else Value(at)
    local = Func(F("time_zone"), instant, function="timezone", output_field=models.DateTimeField())
    return (
        Account.objects.select_related("plan")
        .annotate(at=Cast(instant, models.DateTimeField()), day=Cast(local, models.DateField()))
        .get()
    )


def get_terms(*, tenant_id: UUID, at: dt.datetime | None = None) -> Terms:
    """Plan, price and calendar day at `at`, by default now. Raises Account.DoesNotExist, NoPriceError."""
    with tenant_scope(tenant_id):
        account = _account_at(at)
        price = (
            PriceVersion.objects.filter(plan=account.plan, meter=Meter.CHARACTERS, effective_from__lte=account.at)
            .order_by("-effective_from", "-version")
            .first()
        )
        if price is None:
            raise NoPriceError(plan=account.plan.slug, meter=Meter.CHARACTERS)
        return Terms(plan=account.plan, price=price, at=account.at, day=account.day)


def get_plan(*, tenant_id: UUID) -> Plan:
    """The tenant's plan. Raises Account.DoesNotExist."""
    with tenant_scope(tenant_id):
        plan: Plan = Account.objects.select_related("plan").get().plan
        return plan


def get_plan_by_slug(slug: str) -> Plan:
    """Raises PlanNotFoundError, which lists the plans there are."""
    plan = Plan.objects.filter(slug=slug).first()
    if plan is None:
        raise PlanNotFoundError(slug=slug, known=list(Plan.objects.values_list("slug", flat=True)))
    return plan


@dataclass(frozen=True, slots=True)
class PeriodBalance:
    """One calendar month of a tenant, in units."""

    period: dt.date
    limit_units: int
    overage_units: int
    reserved: int
    settled: int

    @property
    def available(self) -> int:
        """What the next reservation may hold; 0 when a plan was lowered below what is used."""
        return max(0, self.limit_units + self.overage_units - self.reserved - self.settled)


def get_balance(*, tenant_id: UUID) -> PeriodBalance:
    """The current period, also before anything was reserved in it."""
    with tenant_scope(tenant_id):
        account = _account_at(None)
        period = account.day.replace(day=1)
        row = Balance.objects.filter(period=period, meter=Meter.CHARACTERS).first()
        if row is None:
            return PeriodBalance(period, account.plan.included_units, account.plan.overage_units, 0, 0)
        return PeriodBalance(period, row.limit_units, row.overage_units, row.reserved, row.settled)


def get_today(*, tenant_id: UUID) -> dt.date:
    """The calendar day in the tenant's zone, by the database's clock."""
    with tenant_scope(tenant_id):
        today: dt.date = _account_at(None).day
        return today


class UsageGroup(models.TextChoices):
    DAY = "day"
    MONTH = "month"
    VOICE = "voice"
    KEY = "key"
    LANGUAGE = "language"


# A period is the month of its entries' days (constraint ledger_period_is_month_of_use).
_GROUP_COLUMNS: Final = {
    UsageGroup.DAY: "used_on",
    UsageGroup.MONTH: "period",
    UsageGroup.VOICE: "voice_id",
    UsageGroup.KEY: "api_key_id",
    UsageGroup.LANGUAGE: "language",
}


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Net usage of one group: what was charged, less reversals, with adjustments."""

    group: str | None  # None: entries without this dimension, such as adjustments
    currency: str
    requests: int  # charged and not reversed
    characters: int
    amount_micros: int


def _group_name(value: object, group_by: UsageGroup) -> str | None:
    name = str(value) if value else None
    return name[: len("2026-01")] if name and group_by == UsageGroup.MONTH else name


def usage(*, tenant_id: UUID, first_day: dt.date, last_day: dt.date, group_by: UsageGroup) -> list[UsageRow]:
    """Net usage from `first_day` to `last_day`, both included, in order of the group; one row per currency."""
    with tenant_scope(tenant_id):
        rows = (
            LedgerEntry.objects.filter(used_on__range=(first_day, last_day), meter=Meter.CHARACTERS)
            .order_by()
            .values(group=F(_GROUP_COLUMNS[group_by]), of=F("currency"))
            .annotate(
                requests=Count("id", filter=Q(kind=EntryKind.USAGE))
                - Count("id", filter=Q(kind=EntryKind.REVERSAL, job_id__isnull=False)),
                characters=Sum("units"),
                total_micros=Sum("amount_micros"),
            )
        )
        found = [
            UsageRow(
                _group_name(row["group"], group_by),
                row["of"],
                row["requests"],
                row["characters"],
                row["total_micros"],
            )
            for row in rows
        ]
    return sorted(found, key=lambda row: (row.group is None, row.group or "", row.currency))


def get_head(*, tenant_id: UUID) -> int:
    """The seq of the tenant's last ledger entry; 0 for an empty ledger. All entries up to it are committed."""
    with tenant_scope(tenant_id):
        seq: int = Account.objects.get().last_seq
        return seq


def iterate_entries(
    *,
    tenant_id: UUID,
    watermark: int,
    first_day: dt.date = dt.date.min,
    last_day: dt.date = dt.date.max,
) -> Iterator[LedgerEntry]:
    """Entries up to the seq `watermark` used between two days, both included, in order of seq, with their prices.

    Each page is read in a scope of its own: no transaction is open while the caller works.
    """
    seq = 0
    while True:
        with tenant_scope(tenant_id):
            page = list(
                LedgerEntry.objects.filter(seq__gt=seq, seq__lte=watermark, used_on__range=(first_day, last_day))
                .select_related("price")
                .order_by("seq")[:_PAGE_ENTRIES]
            )
        yield from page
        if len(page) < _PAGE_ENTRIES:
            return
        seq = page[-1].seq


# --- audit: the balance is a cache, the ledger and the held reservations are the truth


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction. `rule` is its name in the reconciliation: R1, R2 or R7."""

    rule: str
    tenant_id: UUID
    message: str

    def __str__(self) -> str:
        return f"{self.rule} tenant {self.tenant_id}: {self.message}"


# One statement each, so that both sides are of one moment while others write.
_R1_SETTLED: Final = """
SELECT COALESCE(b.period, l.period), COALESCE(b.meter, l.meter), COALESCE(b.settled, 0), COALESCE(l.units, 0)
FROM (SELECT period, meter, settled FROM billing_balance WHERE tenant_id = %(tenant)s) b
FULL JOIN (
    SELECT period, meter, SUM(units) AS units FROM billing_ledgerentry
    WHERE tenant_id = %(tenant)s GROUP BY period, meter
) l ON l.period = b.period AND l.meter = b.meter
WHERE COALESCE(b.settled, 0) <> COALESCE(l.units, 0)
ORDER BY 1, 2
"""
_R2_RESERVED: Final = """
SELECT COALESCE(b.period, r.period), COALESCE(b.meter, r.meter), COALESCE(b.reserved, 0), COALESCE(r.units, 0)
FROM (SELECT period, meter, reserved FROM billing_balance WHERE tenant_id = %(tenant)s) b
FULL JOIN (
    SELECT period, meter, SUM(units) AS units FROM billing_reservation
    WHERE tenant_id = %(tenant)s AND state = 'held' GROUP BY period, meter
) r ON r.period = b.period AND r.meter = b.meter
WHERE COALESCE(b.reserved, 0) <> COALESCE(r.units, 0)
ORDER BY 1, 2
"""
_BEYOND_HEAD: Final = """
SELECT seq FROM billing_ledgerentry
WHERE tenant_id = %(tenant)s AND seq > (SELECT last_seq FROM billing_account WHERE tenant_id = %(tenant)s)
ORDER BY seq
"""
_ENTRY_COLUMNS: Final = [field.name for field in fields(ledger.Entry)]


def _query(statement: str, tenant_id: UUID) -> list[tuple[Any, ...]]:
    with tenant_scope(tenant_id), connection.cursor() as cursor:
        cursor.execute(statement, {"tenant": tenant_id})
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _links(*, tenant_id: UUID, last_seq: int) -> Iterator[ledger.Link]:
    for row in iterate_entries(tenant_id=tenant_id, watermark=last_seq):
        entry = ledger.Entry(**{name: getattr(row, name) for name in _ENTRY_COLUMNS})
        yield ledger.Link(entry, prev_hash=bytes(row.prev_hash), hash=bytes(row.hash))


def audit_tenant(*, tenant_id: UUID) -> Iterator[Finding]:
    """R1 settled = ledger, R2 reserved = held reservations, R7 hash chain. Nothing found means all three hold.

    Safe beside running work. The end of a chain cut off together with the account's memory of it is the one edit that
    stays unseen here; an earlier report of the tenant proves it.
    """
    for period, meter, settled, units in _query(_R1_SETTLED, tenant_id):
        yield Finding("R1", tenant_id, f"{period} {meter}: settled is {settled}, the ledger says {units}")
    for period, meter, reserved, units in _query(_R2_RESERVED, tenant_id):
        yield Finding("R2", tenant_id, f"{period} {meter}: reserved is {reserved}, held reservations say {units}")
    with tenant_scope(tenant_id):
        account = Account.objects.first()
    last_seq, last_hash = (account.last_seq, bytes(account.last_hash)) if account else (0, ledger.GENESIS_HASH)
    links = _links(tenant_id=tenant_id, last_seq=last_seq)
    for seq, problem in ledger.find_breaks(links, last_seq=last_seq, last_hash=last_hash):
        yield Finding("R7", tenant_id, f"ledger entry {seq} {problem}")
    for (seq,) in _query(_BEYOND_HEAD, tenant_id):
        yield Finding("R7", tenant_id, f"ledger entry {seq} lies beyond the head that the account remembers")


def audit_all_tenants() -> Iterator[Finding]:
    """`audit_tenant` for every tenant; the list comes from the staff connection, each tenant is read in its scope."""
    for tenant_id in Tenant.objects.using("staff").order_by("id").values_list("id", flat=True):
        yield from audit_tenant(tenant_id=tenant_id)
