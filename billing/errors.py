"""Errors of billing: plain Python."""

from __future__ import annotations

import datetime as dt
from uuid import UUID

from tenants.errors import ApplicationError, NotFoundError


class InsufficientCreditsError(ApplicationError):
    code = "insufficient_credits"
    status = 402

    def __init__(self, *, needed: int, available: int) -> None:
        super().__init__("Not enough credits for this text.", needed=needed, available=available)


class PlanNotFoundError(NotFoundError):
    code = "plan_not_found"

    def __init__(self, *, slug: str, known: list[str]) -> None:
        super().__init__(f"There is no plan {slug!r}.", slug=slug, known_plans=known)


class UnknownTimeZoneError(ApplicationError):
    code = "unknown_time_zone"
    status = 422

    def __init__(self, *, time_zone: str) -> None:
        super().__init__("A time zone is an IANA name such as Europe/Madrid.", time_zone=time_zone)


class EntryNotFoundError(NotFoundError):
    code = "ledger_entry_not_found"

    def __init__(self, *, seq: int) -> None:
        super().__init__("There is no such ledger entry.", seq=seq)


class NotReversibleError(ApplicationError):
    """The entry is itself a reversal, or was reversed before. Correct a wrong reversal by an adjustment."""

    code = "not_reversible"
    status = 409

    def __init__(self, *, seq: int) -> None:
        super().__init__("This ledger entry is a reversal or was reversed before.", seq=seq)


class BalanceBelowZeroError(ApplicationError):
    """A correction would take more than was used in its period."""

    code = "balance_below_zero"
    status = 409

    def __init__(self, *, period: dt.date) -> None:
        super().__init__("More would be taken back than was used in this period.", period=period.isoformat())


class UnsupportedFormatError(ApplicationError):
    code = "unsupported_format"
    status = 422

    def __init__(self, *, report_format: str, supported: list[str]) -> None:
        super().__init__("This report format is not supported.", format=report_format[:50], supported=supported)


class NoPriceError(RuntimeError):
    """The plan has no price in effect: the operator's mistake. Nothing is given away for want of one."""

    def __init__(self, *, plan: str, meter: str) -> None:
        super().__init__(f"plan {plan!r} has no price in effect for {meter}")


class NoReservationError(RuntimeError):
    """A job without a reservation was settled or released: our own bug."""

    def __init__(self, *, job_id: UUID) -> None:
        super().__init__(f"job {job_id} has no reservation")
