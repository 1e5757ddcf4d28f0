"""M8 in small: which day and month a charge belongs to, by the database's clock in the tenant's zone."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from billing import selectors, services
from billing.errors import InsufficientCreditsError
from billing.models import Account, Balance
from tenants.scoping import tenant_scope
from tests.billing.conftest import SetClock
from tests.billing.factories import charge, make_customer, settle
from tests.factories import make_job

MICROSECOND = dt.timedelta(microseconds=1)
ZONES = [
    "UTC",
    "Pacific/Kiritimati",  # +14
    "Pacific/Pago_Pago",  # -11
    "Asia/Kathmandu",  # +5:45
    "Asia/Shanghai",
    "Europe/Madrid",
    "America/New_York",
    "America/St_Johns",  # -3:30 and -2:30
    "Australia/Lord_Howe",  # half an hour of summer time
    "Africa/Casablanca",
]
MONTHS = [
    dt.date(2024, 3, 1),  # after a leap day
    dt.date(2026, 1, 1),
    dt.date(2026, 4, 1),
    dt.date(2026, 11, 1),  # the day on which New York leaves summer time
]


@pytest.mark.parametrize("zone", ZONES)
def test_a_period_begins_at_midnight_of_its_zone(zone: str, set_clock: SetClock) -> None:
    tenant = make_customer(time_zone=zone)
    for month in MONTHS:
        begin = dt.datetime.combine(month, dt.time(), ZoneInfo(zone)).astimezone(dt.UTC)
        set_clock(begin)
        first = charge(tenant)
        set_clock(begin - MICROSECOND)
        last = charge(tenant)
        day_before = month - dt.timedelta(days=1)
        assert (first.used_at, first.used_on, first.period) == (begin, month, month)
        assert (last.used_at, last.used_on, last.period) == (begin - MICROSECOND, day_before, day_before.replace(day=1))
    assert list(selectors.audit_tenant(tenant_id=tenant.id)) == []


def test_a_job_settles_into_the_month_of_acceptance(set_clock: SetClock) -> None:
    tenant = make_customer(included_units=5)
    set_clock(dt.datetime(2026, 1, 31, 23, 59, 59, 999_999, dt.UTC))
    job = make_job(tenant, text="hello")
    set_clock(dt.datetime(2026, 2, 1, 0, 10, tzinfo=dt.UTC))
    entry = settle(job, used_units=5)
    assert entry is not None
    assert (entry.period, entry.used_on) == (dt.date(2026, 1, 1), dt.date(2026, 1, 31))
    charge(tenant, text="12345")  # February has its own limit
    with pytest.raises(InsufficientCreditsError):
        make_job(tenant, text="1")
    with tenant_scope(tenant.id):
        balances = list(Balance.objects.order_by("period").values_list("period", "settled", "reserved"))
    assert balances == [(dt.date(2026, 1, 1), 5, 0), (dt.date(2026, 2, 1), 5, 0)]


def test_a_job_accepted_before_a_change_of_zone_keeps_its_day(set_clock: SetClock) -> None:
    tenant = make_customer(time_zone="Pacific/Kiritimati")
    set_clock(dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC))
    job = make_job(tenant)
    with tenant_scope(tenant.id):
        Account.objects.update(time_zone="UTC")
    entry = settle(job, used_units=5)
    assert entry is not None
    assert (entry.period, entry.used_on) == (dt.date(2026, 2, 1), dt.date(2026, 2, 1))


def test_an_adjustment_belongs_to_the_instant_it_is_about() -> None:
    tenant = make_customer(time_zone="Asia/Shanghai")
    at = dt.datetime(2025, 12, 31, 17, tzinfo=dt.UTC)  # 2026 in Shanghai
    entry = services.adjust(tenant_id=tenant.id, units=3, amount_micros=1, reason="late", actor="test", used_at=at)
    assert (entry.used_at, entry.used_on, entry.period) == (at, dt.date(2026, 1, 1), dt.date(2026, 1, 1))
    reversal = services.reverse_entry(tenant_id=tenant.id, seq=1, reason="no", actor="test")
    assert (reversal.used_on, reversal.period) == (entry.used_on, entry.period)


def test_today_is_the_tenants_day(set_clock: SetClock) -> None:
    set_clock(dt.datetime(2026, 6, 30, 11, tzinfo=dt.UTC))
    days = {zone: selectors.get_today(tenant_id=make_customer(time_zone=zone).id) for zone in ZONES[:3]}
    assert days == {
        "UTC": dt.date(2026, 6, 30),
        "Pacific/Kiritimati": dt.date(2026, 7, 1),
        "Pacific/Pago_Pago": dt.date(2026, 6, 30),
    }
