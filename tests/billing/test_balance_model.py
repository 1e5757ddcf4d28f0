"""M2: any sequence of money's steps leaves what a few lines of plain Python say it should."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from billing import selectors, services
from billing.errors import BalanceBelowZeroError, InsufficientCreditsError, NotReversibleError
from billing.models import Balance, LedgerEntry
from tenants.scoping import tenant_scope
from tests.billing.factories import make_customer, settle
from tests.factories import make_job, make_voice

UNITS = st.integers(1, 12)


@dataclass
class ModelEntry:
    """A ledger entry as the model remembers it."""

    units: int
    micros: int
    is_reversal: bool = False
    is_reversed: bool = False


class Money(RuleBasedStateMachine):
    """One tenant, one period. `jobs` holds (job, units held); the model is four plain attributes."""

    jobs = Bundle("jobs")
    ended = Bundle("ended")

    @initialize(limit=st.integers(0, 30), overage=st.integers(0, 10), price=st.integers(0, 50))
    def open(self, limit: int, overage: int, price: int) -> None:
        self.tenant = make_customer(included_units=limit, overage_units=overage, unit_price_micros=price)
        self.voice = make_voice(self.tenant)
        self.limit, self.price = limit + overage, price
        self.held = 0
        self.used = 0
        self.ledger: list[ModelEntry] = []

    @rule(target=jobs, units=UNITS)
    def reserve(self, units: int) -> Any:
        fits = self.used + self.held + units <= self.limit
        try:
            job = make_job(self.tenant, voice=self.voice, text="x" * units)
        except InsufficientCreditsError:
            assert not fits
            return multiple()
        assert fits
        self.held += units
        return job, units

    @rule(target=ended, job=consumes(jobs), share=st.integers(0, 12))
    def settle(self, job: Any, share: int) -> Any:
        job, held = job
        used = min(share, held)
        entry = settle(job, used_units=used)
        assert (entry is None) == (used == 0)
        self.held -= held
        self.used += used
        if used:
            self.ledger.append(ModelEntry(used, used * self.price))
        return job, used

    @rule(target=ended, job=consumes(jobs))
    def release(self, job: Any) -> Any:
        job, held = job
        services.release(tenant_id=self.tenant.id, job_id=job.id)
        self.held -= held
        return job, 0

    @rule(job=ended, share=st.integers(0, 12))
    def settle_again(self, job: Any, share: int) -> None:
        job, used = job
        entry = settle(job, used_units=share)
        assert (entry.units if entry else 0) == used

    @rule(job=ended)
    def release_again(self, job: Any) -> None:
        job, used = job
        assert services.release(tenant_id=self.tenant.id, job_id=job.id).state == ("settled" if used else "released")

    @precondition(lambda self: self.ledger)
    @rule(data=st.data())
    def reverse(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.ledger) - 1))
        entry = self.ledger[index]
        try:
            services.reverse_entry(tenant_id=self.tenant.id, seq=index + 1, reason="model", actor="test")
        except NotReversibleError:
            assert entry.is_reversal or entry.is_reversed
        except BalanceBelowZeroError:
            assert self.used < entry.units
        else:
            assert not entry.is_reversal
            assert not entry.is_reversed
            entry.is_reversed = True
            self.used -= entry.units
            self.ledger.append(ModelEntry(-entry.units, -entry.micros, is_reversal=True))

    @rule(units=st.integers(-10, 10), micros=st.integers(-100, 100))
    def adjust(self, units: int, micros: int) -> None:
        try:
            services.adjust(tenant_id=self.tenant.id, units=units, amount_micros=micros, reason="model", actor="test")
        except BalanceBelowZeroError:
            assert self.used + units < 0
        else:
            self.used += units
            self.ledger.append(ModelEntry(units, micros))

    @invariant()
    def equals_the_model(self) -> None:
        balance = selectors.get_balance(tenant_id=self.tenant.id)
        assert (balance.reserved, balance.settled) == (self.held, self.used)
        assert balance.available == max(0, self.limit - self.held - self.used)
        with tenant_scope(self.tenant.id):
            assert Balance.objects.count() <= 1
            stored = list(LedgerEntry.objects.order_by("seq").values_list("seq", "units", "amount_micros"))
        assert stored == [(seq, entry.units, entry.micros) for seq, entry in enumerate(self.ledger, 1)]
        assert self.used == sum(entry.units for entry in self.ledger)
        assert list(selectors.audit_tenant(tenant_id=self.tenant.id)) == []


@pytest.mark.usefixtures("database")
def test_money_equals_the_model() -> None:
    run_state_machine_as_test(
        Money,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
