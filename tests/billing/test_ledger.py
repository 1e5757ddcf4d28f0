"""The pure rules: what a step moves, and which edits the hash chain shows."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import fields, replace
from typing import Any
from uuid import UUID

import pytest

from billing import ledger
from billing.ledger import Entry, Link, Movement

ENTRY = Entry(
    id=UUID(int=1),
    tenant_id=UUID(int=2),
    seq=1,
    kind="usage",
    meter="characters",
    units=5,
    price_id=UUID(int=3),
    currency="EUR",
    amount_micros=75,
    period=dt.date(2026, 2, 1),
    job_id=UUID(int=4),
    attempt=2,
    api_key_id=None,
    voice_id=UUID(int=5),
    language="zh",
    reverses_seq=None,
    reason="déjà vu",
    actor="",
    used_at=dt.datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=dt.UTC),
    used_on=dt.date(2026, 2, 28),
    recorded_at=dt.datetime(2026, 3, 1, 1, 0, tzinfo=dt.timezone(dt.timedelta(hours=1))),
)
# Written out by hand: a change of these bytes would break every ledger there is.
CANONICAL = (
    b'{"actor":"","amount_micros":75,"api_key_id":null,"attempt":2,"currency":"EUR",'
    b'"id":"00000000-0000-0000-0000-000000000001","job_id":"00000000-0000-0000-0000-000000000004","kind":"usage",'
    b'"language":"zh","meter":"characters","period":"2026-02-01","price_id":"00000000-0000-0000-0000-000000000003",'
    b'"reason":"d\\u00e9j\\u00e0 vu","recorded_at":"2026-03-01T00:00:00.000000+00:00","reverses_seq":null,"seq":1,'
    b'"tenant_id":"00000000-0000-0000-0000-000000000002","units":5,"used_at":"2026-02-28T23:59:59.999999+00:00",'
    b'"used_on":"2026-02-28","voice_id":"00000000-0000-0000-0000-000000000005"}'
)
CHANGES: dict[type, Any] = {int: 99, str: "other", UUID: UUID(int=99), dt.date: dt.date(2026, 2, 2)}


def make_chain(length: int) -> list[Link]:
    links, previous = [], ledger.GENESIS_HASH
    for seq in range(1, length + 1):
        entry = replace(ENTRY, seq=seq, id=UUID(int=seq))
        links.append(Link(entry, previous, ledger.chain_hash(previous, entry)))
        previous = links[-1].hash
    return links


def find(links: list[Link], head: Link | None = None, **account: Any) -> list[tuple[int, str]]:
    expected = {"last_seq": head.entry.seq, "last_hash": head.hash} if head else {}
    return list(ledger.find_breaks(links, **{**expected, **account}))


def test_movements() -> None:
    assert ledger.reserve(units=5) == Movement(5, 0)
    assert ledger.settle(held=5, used=3) == Movement(-5, 3)
    assert ledger.settle(held=5, used=5) == Movement(-5, 5)
    assert ledger.release(held=5) == Movement(-5, 0)
    assert ledger.correct(units=-4) == Movement(0, -4)


@pytest.mark.parametrize("used", [-1, 6])
def test_no_more_is_settled_than_was_held(used: int) -> None:
    with pytest.raises(ValueError, match="of 5 held"):
        ledger.settle(held=5, used=used)


@pytest.mark.parametrize("units", [0, -1])
def test_nothing_is_no_reservation(units: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        ledger.reserve(units=units)


def test_canonical_bytes_are_what_they_always_were() -> None:
    assert ledger.canonical_bytes(ENTRY) == CANONICAL
    assert ledger.chain_hash(b"\x01" * 32, ENTRY) == hashlib.sha256(b"\x01" * 32 + CANONICAL).digest()


def test_a_whole_chain_has_no_break() -> None:
    chain = make_chain(5)
    assert find(chain, chain[-1]) == []
    assert find([], last_seq=0, last_hash=ledger.GENESIS_HASH) == []


@pytest.mark.parametrize("name", [field.name for field in fields(Entry) if field.name != "seq"])
def test_every_edited_column_is_found_at_its_seq(name: str) -> None:
    chain = make_chain(3)
    value = getattr(ENTRY, name)
    changed = value + dt.timedelta(microseconds=1) if isinstance(value, dt.datetime) else CHANGES.get(type(value), 7)
    changes: dict[str, Any] = {name: changed}
    chain[1] = replace(chain[1], entry=replace(chain[1].entry, **changes))
    assert find(chain, chain[-1]) == [(2, "was changed after it was written")]


def test_an_edit_with_a_new_hash_breaks_the_next_link() -> None:
    chain = make_chain(3)
    entry = replace(chain[1].entry, units=0)
    chain[1] = Link(entry, chain[1].prev_hash, ledger.chain_hash(chain[1].prev_hash, entry))
    assert find(chain, chain[-1]) == [(3, "does not continue the entry before it")]


def test_a_removed_entry_is_found() -> None:
    chain = make_chain(4)
    assert find(chain[:1] + chain[3:], chain[-1]) == [(2, "is missing, with all up to 3")]
    assert find(chain[1:], chain[-1]) == [(1, "is missing, with all up to 1")]
    assert find(chain[:3], chain[-1]) == [(4, "is missing, with all up to 4")]


def test_a_rewritten_end_is_found() -> None:
    chain, other = make_chain(3), make_chain(3)
    entry = replace(other[2].entry, units=0)
    other[2] = Link(entry, other[2].prev_hash, ledger.chain_hash(other[2].prev_hash, entry))
    assert find(other, chain[-1]) == [(3, "is not the head that the account remembers")]
