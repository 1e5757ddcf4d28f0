"""Prometheus numbers of the Redis breaker. The same names in every process; a process shows its own."""

from __future__ import annotations

import time

from prometheus_client import Counter, Gauge

_BREAKER_OPENINGS = Counter(
    "cantoria_redis_breaker_openings_total", "Times that Redis failed so often that it was left alone for a while."
)
# A time and not a state: nothing happens when the breaker closes, and web processes that share a folder can be merged.
_BREAKER_OPEN_UNTIL = Gauge(
    "cantoria_redis_breaker_open_until_seconds",
    "Unix time until which Redis is left alone; in the past while all is well.",
    multiprocess_mode="max",
)


def count_breaker_opening(*, open_seconds: float) -> None:
    _BREAKER_OPENINGS.inc()
    _BREAKER_OPEN_UNTIL.set(time.time() + open_seconds)
