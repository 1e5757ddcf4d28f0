"""The rules of reserve, settle and release, and of the ledger's hash chain: pure, no database.

A step moves a balance by a `Movement`; `billing.services` applies it in one guarded statement. The chain shows an entry
that was edited, removed or inserted, even by a superuser: each hash covers its entry and the hash before it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Final
from uuid import UUID

GENESIS_HASH: Final = bytes(32)  # before the first entry


@dataclass(frozen=True, slots=True)
class Movement:
    """What one step adds to a balance's two counters, in units."""

    reserved: int
    settled: int


def reserve(*, units: int) -> Movement:
    """Hold `units` for a job. The limit is checked where it is applied."""
    if units <= 0:
        raise ValueError(f"a reservation holds at least one unit, not {units}")
    return Movement(reserved=units, settled=0)


def settle(*, held: int, used: int) -> Movement:
    """End a reservation: `used` of the `held` units are charged, the rest is free again."""
    if not 0 <= used <= held:
        raise ValueError(f"cannot settle {used} of {held} held units")
    return Movement(reserved=-held, settled=used)


def release(*, held: int) -> Movement:
    """End a reservation without a charge."""
    return settle(held=held, used=0)


def correct(*, units: int) -> Movement:
    """A reversal or an adjustment: signed units, nothing held."""
    return Movement(reserved=0, settled=units)


@dataclass(frozen=True, slots=True)
class Entry:
    """Every column of a ledger entry that its hash covers: all but the two hashes."""

    id: UUID
    tenant_id: UUID
    seq: int
    kind: str
    meter: str
    units: int
    price_id: UUID
    currency: str
    amount_micros: int
    period: dt.date
    job_id: UUID | None
    attempt: int | None
    api_key_id: UUID | None
    voice_id: UUID | None
    language: str
    reverses_seq: int | None
    reason: str
    actor: str
    used_at: dt.datetime
    used_on: dt.date
    recorded_at: dt.datetime


def _canonical(value: object) -> object:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="microseconds")
    return str(value)


def canonical_bytes(entry: Entry) -> bytes:
    """One spelling of an entry: JSON in ASCII, sorted keys, no blanks, UTC instants with microseconds."""
    return json.dumps(asdict(entry), sort_keys=True, separators=(",", ":"), default=_canonical).encode("ascii")


def chain_hash(prev_hash: bytes, entry: Entry) -> bytes:
    """SHA-256 over the hash before and the entry's canonical bytes."""
    return hashlib.sha256(prev_hash + canonical_bytes(entry)).digest()


@dataclass(frozen=True, slots=True)
class Link:
    """A stored entry with its stored hashes."""

    entry: Entry
    prev_hash: bytes
    hash: bytes


def find_breaks(links: Iterable[Link], *, last_seq: int, last_hash: bytes) -> Iterator[tuple[int, str]]:
    """Check a whole chain, in order of seq, against its head; yields (seq, what is wrong) for each break.

    After a break the check goes on from the stored hash, so that one edit is one finding, with its own seq.
    """
    seq, previous = 0, GENESIS_HASH
    for link in links:
        if link.entry.seq != seq + 1:
            yield seq + 1, f"is missing, with all up to {link.entry.seq - 1}"
        elif link.prev_hash != previous:
            yield link.entry.seq, "does not continue the entry before it"
        if link.hash != chain_hash(link.prev_hash, link.entry):
            yield link.entry.seq, "was changed after it was written"
        seq, previous = link.entry.seq, link.hash
    if seq < last_seq:
        yield seq + 1, f"is missing, with all up to {last_seq}"
    elif previous != last_hash:
        yield seq, "is not the head that the account remembers"
