"""One Redis client for the process. A dead Redis must cost under a millisecond a call, and nothing durable is in it."""

from __future__ import annotations

import threading
import time
from functools import lru_cache
from typing import Any

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from tenants.metrics import count_breaker_opening

# What a caller of the clients below catches; redis-py raises OSError subclasses of its own kind too.
RedisError = redis.RedisError

_FAILURES_BEFORE_OPEN = 5
_OPEN_SECONDS = 2.0


def _options(*, socket_timeout: float | None) -> dict[str, Any]:
    # redis-py 8 retries ten times with back-off by default: 4.35 s a call on a dead server.
    return {"socket_timeout": socket_timeout, "socket_connect_timeout": 0.1, "retry": Retry(NoBackoff(), 0)}


@lru_cache(maxsize=1)
def redis_client() -> redis.Redis:
    """The shared synchronous client, for short commands."""
    return redis.Redis.from_url(settings.REDIS_URL, **_options(socket_timeout=0.1))


class Breaker:
    """Skip a failing service for a while: open after 5 failures in a row, for 2 s."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until = 0.0

    @property
    def is_open(self) -> bool:
        return time.monotonic() < self._open_until

    def failed(self) -> None:
        with self._lock:
            self._failures += 1
            if self._failures >= _FAILURES_BEFORE_OPEN:
                self._open_until = time.monotonic() + _OPEN_SECONDS
                self._failures = 0
                count_breaker_opening(open_seconds=_OPEN_SECONDS)

    def succeeded(self) -> None:
        with self._lock:
            self._failures = 0


redis_breaker = Breaker()
