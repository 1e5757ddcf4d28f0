"""Changes to money. Locks are taken in the order reservation, balance, account; the account's row comes last.

Every function opens the tenant's scope itself; called inside one, its work commits with the caller's transaction.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from billing import ledger, metrics, rating, selectors
from billing.errors import (
    BalanceBelowZeroError,
    EntryNotFoundError,
    InsufficientCreditsError,
    NoReservationError,
    NotReversibleError,
    UnknownTimeZoneError,
)
from billing.models import Account, Balance, EntryKind, LedgerEntry, Meter, Reservation, ReservationState
from billing.selectors import Terms
from tenants.ids import new_id
from tenants.scoping import tenant_scope
from tenants.services import record_audit_event


@dataclass(frozen=True, slots=True)
class Quote:
    """What `units` would cost now; a reservation fixes exactly this price."""

    units: int
    currency: str
    amount_micros: int
    price_version: int


def open_account(*, tenant_id: UUID, plan_slug: str, time_zone: str = "UTC") -> Account:
    """Give a tenant its billing side: plan, time zone, empty ledger. Raises PlanNotFoundError, UnknownTimeZoneError."""
    plan = selectors.get_plan_by_slug(plan_slug)
    with tenant_scope(tenant_id):
        with connection.cursor() as cursor:  # PostgreSQL's zones are the ones that count
            cursor.execute("SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = %s)", [time_zone])
            if cursor.fetchone() != (True,):
                raise UnknownTimeZoneError(time_zone=time_zone)
        account: Account = Account.objects.create(tenant_id=tenant_id, plan=plan, time_zone=time_zone)
    return account


def quote(*, tenant_id: UUID, units: int) -> Quote:
    """The price of `units` at this moment."""
    price = selectors.get_terms(tenant_id=tenant_id).price
    amount = rating.rate_micros(units=units, unit_price_micros=price.unit_price_micros)
    return Quote(units, price.currency, amount, price.version)


def reserve(*, tenant_id: UUID, job_id: UUID, units: int) -> Reservation:
    """Hold `units` for a new job in the current period, at the price of now.

    Raises InsufficientCreditsError, and then nothing was written. A job reserves once: a second call raises
    IntegrityError.
    """
    movement = ledger.reserve(units=units)
    with tenant_scope(tenant_id):
        terms = selectors.get_terms(tenant_id=tenant_id)
        if not _hold(movement, period=terms.period):
            _open_balance(tenant_id=tenant_id, terms=terms)
            if not _hold(movement, period=terms.period):
                available = selectors.get_balance(tenant_id=tenant_id).available
                raise InsufficientCreditsError(needed=units, available=available)
        reservation: Reservation = Reservation.objects.create(
            tenant_id=tenant_id,
            job_id=job_id,
            period=terms.period,
            used_on=terms.day,
            meter=Meter.CHARACTERS,
            units=units,
            price=terms.price,
            created_at=terms.at,
        )
    return reservation


def settle(
    *,
    tenant_id: UUID,
    job_id: UUID,
    used_units: int,
    attempt: int,
    api_key_id: UUID | None,
    voice_id: UUID | None,
    language: str,
) -> LedgerEntry | None:
    """Charge `used_units` of what is held for the job and free the rest, in the transaction that ends the job.

    The charge belongs to the moment of acceptance: its day, period and price. Nothing used is a release: no entry,
    None. For a reservation that has ended already nothing happens, and the first outcome is returned. Raises ValueError
    when more was used than held, NoReservationError.
    """
    state = ReservationState.SETTLED if used_units else ReservationState.RELEASED
    with tenant_scope(tenant_id):
        reservation, ended_now = _end_reservation(job_id=job_id, state=state)
        if not ended_now:
            first: LedgerEntry | None = LedgerEntry.objects.filter(job_id=job_id, kind=EntryKind.USAGE).first()
            return first
        _move_balance(ledger.settle(held=reservation.units, used=used_units), period=reservation.period)
        if not used_units:
            return None
        currency = reservation.price.currency
        micros = rating.rate_micros(units=used_units, unit_price_micros=reservation.price.unit_price_micros)
        transaction.on_commit(partial(metrics.count_settled, currency=currency, amount_micros=micros))
        return _append_entry(
            tenant_id=tenant_id,
            kind=EntryKind.USAGE,
            meter=reservation.meter,
            units=used_units,
            price_id=reservation.price_id,
            currency=currency,
            amount_micros=micros,
            period=reservation.period,
            job_id=job_id,
            attempt=attempt,
            api_key_id=api_key_id,
            voice_id=voice_id,
            language=language,
            used_at=reservation.created_at,
            used_on=reservation.used_on,
        )


def release(*, tenant_id: UUID, job_id: UUID) -> Reservation:
    """Free what is held for a job that ended without a charge. Does nothing to a reservation that has ended already.

    Returns the reservation; its state tells the first outcome. Raises NoReservationError.
    """
    with tenant_scope(tenant_id):
        reservation, ended_now = _end_reservation(job_id=job_id, state=ReservationState.RELEASED)
        if ended_now:
            _move_balance(ledger.release(held=reservation.units), period=reservation.period)
    return reservation


def reverse_entry(*, tenant_id: UUID, seq: int, reason: str, actor: str) -> LedgerEntry:
    """Take one usage or adjustment back, by a new entry with its figures negated, on its day and in its period.

    Raises EntryNotFoundError, NotReversibleError (a reversal, or reversed before), BalanceBelowZeroError.
    """
    with tenant_scope(tenant_id):
        entry: LedgerEntry | None = LedgerEntry.objects.filter(seq=seq).first()
        if entry is None:
            raise EntryNotFoundError(seq=seq)
        if entry.kind == EntryKind.REVERSAL:
            raise NotReversibleError(seq=seq)
        _lock_balance(period=entry.period)  # a concurrent twin waits here, then finds the first reversal
        if LedgerEntry.objects.filter(kind=EntryKind.REVERSAL, reverses_seq=seq).exists():
            raise NotReversibleError(seq=seq)
        _move_balance(ledger.correct(units=-entry.units), period=entry.period)
        reversal = _append_entry(
            tenant_id=tenant_id,
            kind=EntryKind.REVERSAL,
            meter=entry.meter,
            units=-entry.units,
            price_id=entry.price_id,
            currency=entry.currency,
            amount_micros=-entry.amount_micros,
            period=entry.period,
            job_id=entry.job_id,
            attempt=entry.attempt,
            api_key_id=entry.api_key_id,
            voice_id=entry.voice_id,
            language=entry.language,
            reverses_seq=seq,
            reason=reason,
            actor=actor,
            used_at=entry.used_at,
            used_on=entry.used_on,
        )
        _record_correction(reversal, action="ledger.reverse")
    return reversal


def adjust(
    *, tenant_id: UUID, units: int, amount_micros: int, reason: str, actor: str, used_at: dt.datetime | None = None
) -> LedgerEntry:
    """Add or take back signed units and money for a stated reason; no limit is asked.

    `used_at`: the instant the correction is about, which decides day, period and currency; by default now.
    Raises BalanceBelowZeroError.
    """
    with tenant_scope(tenant_id):
        terms = selectors.get_terms(tenant_id=tenant_id, at=used_at)
        _open_balance(tenant_id=tenant_id, terms=terms)
        _move_balance(ledger.correct(units=units), period=terms.period)
        adjustment = _append_entry(
            tenant_id=tenant_id,
            kind=EntryKind.ADJUSTMENT,
            meter=Meter.CHARACTERS,
            units=units,
            price_id=terms.price.id,
            currency=terms.price.currency,
            amount_micros=amount_micros,
            period=terms.period,
            reason=reason,
            actor=actor,
            used_at=terms.at,
            used_on=terms.day,
        )
        _record_correction(adjustment, action="ledger.adjust")
    return adjustment


# --- reservation


def _end_reservation(*, job_id: UUID, state: ReservationState) -> tuple[Reservation, bool]:
    """The job's reservation, locked and ended as `state` when it was held, and whether that happened now."""
    wanted = Reservation.objects.filter(job_id=job_id, meter=Meter.CHARACTERS)
    ended_now = wanted.filter(state=ReservationState.HELD).update(state=state, ended_at=Now()) == 1
    reservation: Reservation | None = wanted.select_related("price").first()
    if reservation is None:
        raise NoReservationError(job_id=job_id)
    return reservation, ended_now


# --- balance


def _open_balance(*, tenant_id: UUID, terms: Terms) -> None:
    """Make the period's row with the plan's limits, unless it is there. A concurrent twin waits for the first."""
    row = Balance(
        tenant_id=tenant_id,
        period=terms.period,
        meter=Meter.CHARACTERS,
        limit_units=terms.plan.included_units,
        overage_units=terms.plan.overage_units,
    )
    Balance.objects.bulk_create([row], ignore_conflicts=True)


def _lock_balance(*, period: dt.date) -> None:
    Balance.objects.select_for_update(no_key=True).get(period=period, meter=Meter.CHARACTERS)


def _hold(movement: ledger.Movement, *, period: dt.date) -> bool:
    """Reserve in one guarded UPDATE: a racer waits for the row and compares again. False: no row, or over the limit.

    The guard is `settled + reserved + n <= limit + overage`, written so that an unbounded overage does not overflow.
    """
    needed = F("settled") + F("reserved") + movement.reserved - F("limit_units")
    held = Balance.objects.filter(period=period, meter=Meter.CHARACTERS, overage_units__gte=needed)
    return held.update(reserved=F("reserved") + movement.reserved) == 1


def _move_balance(movement: ledger.Movement, *, period: dt.date) -> None:
    """Apply a movement that no limit binds. Raises BalanceBelowZeroError."""
    moved = Balance.objects.filter(
        period=period, meter=Meter.CHARACTERS, reserved__gte=-movement.reserved, settled__gte=-movement.settled
    ).update(reserved=F("reserved") + movement.reserved, settled=F("settled") + movement.settled)
    if not moved:
        raise BalanceBelowZeroError(period=period)


# --- account: the ledger's head

_NEXT_SEQ: Final = """
UPDATE billing_account SET last_seq = last_seq + 1 WHERE tenant_id = %s
RETURNING last_seq, last_hash, clock_timestamp()
"""


def _append_entry(
    *,
    tenant_id: UUID,
    job_id: UUID | None = None,
    attempt: int | None = None,
    api_key_id: UUID | None = None,
    voice_id: UUID | None = None,
    language: str = "",
    reverses_seq: int | None = None,
    reason: str = "",
    actor: str = "",
    **columns: Any,
) -> LedgerEntry:
    """Add an entry at the ledger's head. The account's row stays locked to the end of the transaction.

    So seq has no gaps, grows in commit order, and each hash continues the committed one before it.
    """
    with connection.cursor() as cursor:
        cursor.execute(_NEXT_SEQ, [tenant_id])
        seq, prev_hash, recorded_at = cursor.fetchone()
    entry = ledger.Entry(
        id=new_id(),
        tenant_id=tenant_id,
        seq=seq,
        job_id=job_id,
        attempt=attempt,
        api_key_id=api_key_id,
        voice_id=voice_id,
        language=language,
        reverses_seq=reverses_seq,
        reason=reason,
        actor=actor,
        recorded_at=recorded_at,
        **columns,
    )
    prev_hash = bytes(prev_hash)
    digest = ledger.chain_hash(prev_hash, entry)
    row: LedgerEntry = LedgerEntry.objects.create(**asdict(entry), prev_hash=prev_hash, hash=digest)
    Account.objects.update(last_hash=digest)
    return row


def _record_correction(entry: LedgerEntry, *, action: str) -> None:
    record_audit_event(
        tenant_id=entry.tenant_id,
        actor=entry.actor,
        action=action,
        object_type="ledger_entry",
        object_id=entry.id,
        seq=entry.seq,
        units=entry.units,
        amount_micros=entry.amount_micros,
        reason=entry.reason,
    )
