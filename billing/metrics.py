"""Prometheus numbers of money. Who spent it is in the ledger: a tenant is no label."""

from __future__ import annotations

from prometheus_client import Counter

_SETTLED = Counter(
    "cantoria_settled_micros_total",
    "Millionths of the currency charged for speech; reversals and adjustments are not taken off.",
    ("currency",),
)


def count_settled(*, currency: str, amount_micros: int) -> None:
    _SETTLED.labels(currency).inc(amount_micros)
