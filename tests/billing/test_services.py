"""Reserve, settle, release, reverse and adjust, as the other apps call them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from billing import selectors, services
from billing.errors import (
    BalanceBelowZeroError,
    EntryNotFoundError,
    InsufficientCreditsError,
    NoPriceError,
    NoReservationError,
    NotReversibleError,
    PlanNotFoundError,
    UnknownTimeZoneError,
)
from billing.models import Balance, LedgerEntry, Plan, Reservation
from billing.selectors import PeriodBalance
from tenants import services as tenants
from tenants.ids import new_id
from tenants.models import AuditEvent, Tenant
from tenants.scoping import tenant_scope
from tests.billing.factories import add_price, charge, close_connections, make_customer, settle
from tests.factories import make_job, make_voice


def counters(tenant: Tenant) -> tuple[int, int]:
    """(reserved, settled) of the current period, after an audit that finds nothing."""
    assert list(selectors.audit_tenant(tenant_id=tenant.id)) == []
    balance = selectors.get_balance(tenant_id=tenant.id)
    return balance.reserved, balance.settled


def entries(tenant: Tenant) -> list[LedgerEntry]:
    with tenant_scope(tenant.id):
        return list(LedgerEntry.objects.order_by("seq"))


# --- reserve, settle, release


def test_a_job_is_charged_what_it_used() -> None:
    tenant = make_customer(unit_price_micros=7)
    job = make_job(tenant, text="twelve chars")
    assert counters(tenant) == (12, 0)
    entry = settle(job, used_units=9, attempt=3)
    assert entry is not None
    assert counters(tenant) == (0, 9)
    with tenant_scope(tenant.id):
        stored = LedgerEntry.objects.get()
        reservation = Reservation.objects.get()
    assert (stored.seq, stored.kind, stored.units, stored.amount_micros, stored.currency) == (1, "usage", 9, 63, "EUR")
    assert (stored.job_id, stored.attempt, stored.voice_id, stored.language) == (job.id, 3, job.voice_id, "en")
    assert (stored.used_at, stored.used_on) == (reservation.created_at, reservation.used_on)
    assert stored.period == reservation.period == stored.used_on.replace(day=1)
    assert (reservation.state, reservation.ended_at is not None) == ("settled", True)


def test_settling_twice_charges_once() -> None:
    tenant = make_customer()
    job = make_job(tenant)
    first = settle(job, used_units=5)
    assert settle(job, used_units=2, attempt=2) == first
    assert counters(tenant) == (0, 5)
    assert [entry.units for entry in entries(tenant)] == [5]


def test_settling_after_release_charges_nothing() -> None:
    tenant = make_customer()
    job = make_job(tenant)
    assert services.release(tenant_id=tenant.id, job_id=job.id).state == "released"
    assert settle(job, used_units=5) is None
    assert counters(tenant) == (0, 0)
    assert entries(tenant) == []


def test_release_after_settling_changes_nothing() -> None:
    tenant = make_customer()
    job = make_job(tenant)
    settle(job, used_units=5)
    assert services.release(tenant_id=tenant.id, job_id=job.id).state == "settled"
    assert counters(tenant) == (0, 5)


def test_releasing_twice_frees_once() -> None:
    tenant = make_customer()
    job, other = make_job(tenant), make_job(tenant)
    for _ in range(2):
        assert services.release(tenant_id=tenant.id, job_id=job.id).state == "released"
    assert counters(tenant) == (len(other.text), 0)


def test_nothing_used_is_a_release() -> None:
    tenant = make_customer()
    job = make_job(tenant)
    assert settle(job, used_units=0) is None
    assert counters(tenant) == (0, 0)
    assert entries(tenant) == []
    assert services.release(tenant_id=tenant.id, job_id=job.id).state == "released"


def test_more_than_held_is_refused_and_the_job_stays_held() -> None:
    tenant = make_customer()
    job = make_job(tenant, text="hello")
    with pytest.raises(ValueError, match="cannot settle 6 of 5"):
        settle(job, used_units=6)
    assert counters(tenant) == (5, 0)
    assert settle(job, used_units=5) is not None


@pytest.mark.parametrize("end", ["settle", "release"])
def test_a_job_without_a_reservation_is_our_bug(end: str) -> None:
    tenant, other = make_customer(), make_customer()
    theirs = make_job(other)
    for job_id in (new_id(), theirs.id):
        with pytest.raises(NoReservationError):
            if end == "release":
                services.release(tenant_id=tenant.id, job_id=job_id)
            else:
                services.settle(
                    tenant_id=tenant.id,
                    job_id=job_id,
                    used_units=1,
                    attempt=1,
                    api_key_id=None,
                    voice_id=None,
                    language="en",
                )
    assert counters(other) == (5, 0)


def test_a_job_reserves_once() -> None:
    tenant = make_customer()
    job = make_job(tenant)
    with pytest.raises(IntegrityError):
        services.reserve(tenant_id=tenant.id, job_id=job.id, units=5)
    assert counters(tenant) == (5, 0)


def test_the_price_is_that_of_the_reservation() -> None:
    tenant = make_customer(unit_price_micros=7)
    job = make_job(tenant, text="hello")
    with tenant_scope(tenant.id):
        at = Reservation.objects.get().created_at
        plan = Plan.objects.get(id=selectors.get_plan(tenant_id=tenant.id).id)
    add_price(plan, unit_price_micros=1_000, version=2, effective_from=at)
    entry = settle(job, used_units=5)
    assert entry is not None
    assert entry.amount_micros == 35
    later = charge(tenant, text="hello")
    assert (later.amount_micros, later.price.version) == (5_000, 2)


def test_a_quote_is_what_will_be_charged() -> None:
    tenant = make_customer(unit_price_micros=7)
    quote = services.quote(tenant_id=tenant.id, units=5)
    assert (quote.units, quote.currency, quote.amount_micros, quote.price_version) == (5, "EUR", 35, 1)
    assert charge(tenant, text="hello").amount_micros == quote.amount_micros
    assert counters(tenant) == (0, 5)


def test_without_a_price_nothing_is_given_away() -> None:
    tenant = make_customer()
    plan = Plan.objects.using("staff").create(slug="unpriced", name="Unpriced", included_units=10)
    other = tenants.create_tenant(slug="unpriced", name="", actor="test")
    services.open_account(tenant_id=other.id, plan_slug=plan.slug)
    with pytest.raises(NoPriceError):
        services.reserve(tenant_id=other.id, job_id=new_id(), units=1)
    assert services.quote(tenant_id=tenant.id, units=1).amount_micros == 7


# --- the limit


def test_the_limit_includes_overage_and_what_is_held() -> None:
    tenant = make_customer(included_units=8, overage_units=3)
    make_job(tenant, text="12345")
    make_job(tenant, text="123456")
    assert selectors.get_balance(tenant_id=tenant.id).available == 0
    with pytest.raises(InsufficientCreditsError):
        make_job(tenant, text="1")


def test_a_refused_reservation_leaves_nothing() -> None:
    tenant = make_customer(included_units=8)
    voice = make_voice(tenant)
    make_job(tenant, voice=voice, text="12345")
    with pytest.raises(InsufficientCreditsError) as refused:
        make_job(tenant, voice=voice, text="1234")
    assert (refused.value.status, refused.value.code) == (402, "insufficient_credits")
    assert refused.value.details == {"needed": 4, "available": 3}
    assert counters(tenant) == (5, 0)
    with tenant_scope(tenant.id):
        assert Reservation.objects.count() == 1
    make_job(tenant, voice=voice, text="123")


def test_a_first_reservation_over_the_limit_leaves_no_balance() -> None:
    tenant = make_customer(included_units=8)
    with pytest.raises(InsufficientCreditsError):
        make_job(tenant, text="123456789")
    with tenant_scope(tenant.id):
        assert not Balance.objects.exists()
    assert selectors.get_balance(tenant_id=tenant.id).available == 8


def test_an_unbounded_overage_does_not_overflow() -> None:
    tenant = make_customer(included_units=2**62, overage_units=2**63 - 1)
    charge(tenant, text="hello")
    assert counters(tenant) == (0, 5)


def test_released_units_can_be_reserved_again() -> None:
    tenant = make_customer(included_units=5)
    services.release(tenant_id=tenant.id, job_id=make_job(tenant, text="12345").id)
    settle(make_job(tenant, text="12345"), used_units=2)
    make_job(tenant, text="123")
    assert counters(tenant) == (3, 2)


def test_a_rolled_back_request_holds_nothing_and_leaves_no_gap() -> None:
    tenant = make_customer()
    charge(tenant)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        charge(tenant)
        raise ZeroDivisionError
    charge(tenant)
    assert [entry.seq for entry in entries(tenant)] == [1, 2]
    assert counters(tenant) == (0, 10)


# --- corrections


def test_a_reversal_takes_the_charge_back() -> None:
    tenant = make_customer(unit_price_micros=7)
    entry = charge(tenant, text="hello")
    reversal = services.reverse_entry(tenant_id=tenant.id, seq=1, reason="noise in the audio", actor="staff:ada")
    assert counters(tenant) == (0, 0)
    assert (reversal.seq, reversal.kind, reversal.units, reversal.amount_micros) == (2, "reversal", -5, -35)
    assert (reversal.reverses_seq, reversal.reason, reversal.actor) == (1, "noise in the audio", "staff:ada")
    for name in ("job_id", "voice_id", "api_key_id", "language", "used_at", "used_on", "period", "price_id"):
        assert getattr(reversal, name) == getattr(entry, name), name
    with tenant_scope(tenant.id):
        event = AuditEvent.objects.get(action="ledger.reverse")
    assert (event.actor, event.object_id, event.details["reason"]) == (
        "staff:ada",
        str(reversal.id),
        "noise in the audio",
    )


@pytest.mark.parametrize("seq", [1, 2])
def test_neither_a_reversed_entry_nor_a_reversal_is_reversed(seq: int) -> None:
    tenant = make_customer()
    charge(tenant)
    services.reverse_entry(tenant_id=tenant.id, seq=1, reason="mistake", actor="test")
    with pytest.raises(NotReversibleError):
        services.reverse_entry(tenant_id=tenant.id, seq=seq, reason="again", actor="test")
    assert counters(tenant) == (0, 0)
    assert len(entries(tenant)) == 2


def test_an_entry_of_another_tenant_is_not_found() -> None:
    tenant, other = make_customer(), make_customer()
    charge(other)
    with pytest.raises(EntryNotFoundError):
        services.reverse_entry(tenant_id=tenant.id, seq=1, reason="x", actor="test")
    assert counters(other) == (0, 5)


def test_an_adjustment_adds_and_takes_back() -> None:
    tenant = make_customer(included_units=10)
    services.adjust(tenant_id=tenant.id, units=25, amount_micros=100, reason="counted by hand", actor="staff:ada")
    assert counters(tenant) == (0, 25)  # beyond the limit: a correction states what was used
    services.adjust(tenant_id=tenant.id, units=-20, amount_micros=-300, reason="goodwill", actor="staff:ada")
    assert counters(tenant) == (0, 5)
    assert [(entry.kind, entry.units, entry.amount_micros) for entry in entries(tenant)] == [
        ("adjustment", 25, 100),
        ("adjustment", -20, -300),
    ]
    services.reverse_entry(tenant_id=tenant.id, seq=2, reason="taken too much", actor="staff:ada")
    assert counters(tenant) == (0, 25)


def test_no_correction_goes_below_zero() -> None:
    tenant = make_customer()
    charge(tenant, text="hello")
    with pytest.raises(BalanceBelowZeroError):
        services.adjust(tenant_id=tenant.id, units=-6, amount_micros=0, reason="x", actor="test")
    services.adjust(tenant_id=tenant.id, units=-3, amount_micros=0, reason="x", actor="test")
    with pytest.raises(BalanceBelowZeroError):
        services.reverse_entry(tenant_id=tenant.id, seq=1, reason="x", actor="test")
    assert counters(tenant) == (0, 2)
    assert [entry.seq for entry in entries(tenant)] == [1, 2]


# --- accounts


def test_an_account_opens_with_its_plans_limits() -> None:
    tenant = make_customer(included_units=8, overage_units=3)
    balance = selectors.get_balance(tenant_id=tenant.id)
    period = selectors.get_today(tenant_id=tenant.id).replace(day=1)
    assert balance == PeriodBalance(period, limit_units=8, overage_units=3, reserved=0, settled=0)
    assert selectors.get_plan(tenant_id=tenant.id).included_units == 8


def test_the_shipped_plan_has_a_price() -> None:
    tenant = tenants.create_tenant(slug="new", name="", actor="test")
    services.open_account(tenant_id=tenant.id, plan_slug="standard")
    quote = services.quote(tenant_id=tenant.id, units=1_000_000)
    assert (quote.currency, quote.amount_micros) == ("EUR", 15_000_000)
    assert selectors.get_balance(tenant_id=tenant.id).available == 1_000_000


def test_unknown_plan_and_zone_are_refused() -> None:
    tenant = tenants.create_tenant(slug="new", name="", actor="test")
    with pytest.raises(PlanNotFoundError) as refused:
        services.open_account(tenant_id=tenant.id, plan_slug="gold")
    assert refused.value.details["known_plans"] == ["standard"]
    with pytest.raises(UnknownTimeZoneError):
        services.open_account(tenant_id=tenant.id, plan_slug="standard", time_zone="Mars/Olympus")
    services.open_account(tenant_id=tenant.id, plan_slug="standard", time_zone="Asia/Kathmandu")
    with pytest.raises(IntegrityError):
        services.open_account(tenant_id=tenant.id, plan_slug="standard")


# --- races


def race(*calls: Any) -> list[Any]:
    """Run the calls at once, each on a connection of its own; answers or exceptions, in order."""
    barrier = threading.Barrier(len(calls))
    answers: list[Any] = [None] * len(calls)

    def run(number: int, call: Any) -> None:
        try:
            barrier.wait(timeout=10)
            answers[number] = call()
        except Exception as error:
            answers[number] = error
        finally:
            close_connections()

    threads = [threading.Thread(target=run, args=(number, call)) for number, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return answers


def test_settle_and_release_race_for_one_job() -> None:
    tenant = make_customer()
    voice = make_voice(tenant)
    for _ in range(10):
        before = counters(tenant)[1]
        job = make_job(tenant, voice=voice)
        outcomes = race(
            lambda job=job: settle(job, used_units=5),
            lambda job=job: settle(job, used_units=5),
            lambda job=job: services.release(tenant_id=tenant.id, job_id=job.id).state,
        )
        state = outcomes[2]
        assert outcomes[0] == outcomes[1]
        assert (outcomes[0] is None) == (state == "released")
        assert counters(tenant) == (0, before + (5 if state == "settled" else 0))


def test_two_people_reverse_one_entry() -> None:
    tenant = make_customer()
    charge(tenant)
    charge(tenant)  # so that the balance alone would allow a second reversal
    outcomes: list[BaseException | LedgerEntry] = []

    def reverse_too() -> None:
        try:
            outcomes.append(services.reverse_entry(tenant_id=tenant.id, seq=1, reason="x", actor="second"))
        except Exception as error:
            outcomes.append(error)
        finally:
            close_connections()

    thread = threading.Thread(target=reverse_too)
    with tenant_scope(tenant.id):
        services.reverse_entry(tenant_id=tenant.id, seq=1, reason="x", actor="first")
        thread.start()
        thread.join(timeout=0.5)
        assert thread.is_alive()  # waits for the first to commit
    thread.join(timeout=10)
    assert [type(outcome) for outcome in outcomes] == [NotReversibleError]
    assert counters(tenant) == (0, 5)


def test_a_later_entry_waits_for_an_earlier_one_to_commit() -> None:
    """So a report that has read up to a seq has missed nothing below it."""
    tenant = make_customer()
    first, second = make_job(tenant), make_job(tenant)
    done = threading.Event()

    def settle_second() -> None:
        settle(second, used_units=5)
        done.set()
        close_connections()

    thread = threading.Thread(target=settle_second)
    with tenant_scope(tenant.id):
        settle(first, used_units=5)
        thread.start()
        assert not done.wait(0.5)
    assert done.wait(10)
    thread.join(timeout=10)
    assert [entry.job_id for entry in entries(tenant)] == [first.id, second.id]
    assert counters(tenant) == (0, 10)
