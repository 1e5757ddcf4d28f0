"""Request rates by GCRA in Redis, in this process when Redis is away; failed authentications per address."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from redis.commands.core import Script

from tenants.errors import RateLimitedError
from tenants.redis import RedisError, redis_breaker, redis_client

if TYPE_CHECKING:
    from tenants.api.caller import Caller


@dataclass(frozen=True, slots=True)
class Rate:
    per_second: float
    burst: int

    @property
    def interval_us(self) -> int:
        return int(1_000_000 / self.per_second)


REQUESTS: Final = Rate(per_second=50, burst=100)  # per tenant and key
FAILED_AUTHENTICATIONS: Final = Rate(per_second=1, burst=20)  # per address

# Generic cell rate algorithm: one timestamp per key, the instant at which the bucket would be empty again.
# Redis' own clock, so that processes agree. Answers 0, or the microseconds to wait.
_GCRA: Final = """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, burst, write = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local empty_at = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local wait = empty_at + interval - interval * burst - now
if wait > 0 then return wait end
if write then
  local next_empty_at = empty_at + interval
  redis.call('SET', KEYS[1], string.format('%d', next_empty_at), 'PX', math.ceil((next_empty_at - now) / 1000) + 1)
end
return 0
"""

_local_lock = threading.Lock()
_local_empty_at: dict[str, float] = {}
_LOCAL_KEYS: Final = 10_000


@lru_cache(maxsize=1)
def _script() -> Script:
    return redis_client().register_script(_GCRA)


def _wait_seconds(key: str, rate: Rate, *, write: bool) -> float:
    if not redis_breaker.is_open:
        try:
            wait_us: Any = _script()(keys=[key], args=[rate.interval_us, rate.burst, int(write)])
        except RedisError:
            redis_breaker.failed()
        else:
            redis_breaker.succeeded()
            return int(wait_us) / 1e6
    return _local_wait_seconds(key, rate, write=write)


def _local_wait_seconds(key: str, rate: Rate, *, write: bool) -> float:
    """The same algorithm in this process: each process allows the full rate, which is the price of a dead Redis."""
    interval = 1 / rate.per_second
    with _local_lock:
        now = time.monotonic()
        empty_at = max(_local_empty_at.get(key, now), now)
        wait = empty_at + interval - interval * rate.burst - now
        if wait > 0:
            return wait
        if write:
            if len(_local_empty_at) >= _LOCAL_KEYS:
                for old in [old for old, at in _local_empty_at.items() if at <= now]:
                    del _local_empty_at[old]
            _local_empty_at[key] = empty_at + interval
        return 0.0


def take(caller: Caller) -> None:
    """Count one request of this key. Raises RateLimitedError."""
    wait = _wait_seconds(f"{caller.tenant_id}:rate:{caller.key_id}", REQUESTS, write=True)
    if wait > 0:
        raise RateLimitedError(retry_after_seconds=wait)


def refuse_after_failures(address: str) -> None:
    """Raises RateLimitedError while an address has failed too often."""
    wait = _wait_seconds(f"auth-failures:{address}", FAILED_AUTHENTICATIONS, write=False)
    if wait > 0:
        raise RateLimitedError(retry_after_seconds=wait)


def note_failure(address: str) -> None:
    _wait_seconds(f"auth-failures:{address}", FAILED_AUTHENTICATIONS, write=True)


_used_lock = threading.Lock()
_used_at: dict[UUID, float] = {}


def first_use_this_minute(key_id: UUID) -> bool:
    """Whether this process has not seen the key for a minute: `last_used_at` is written no oftener."""
    now = time.monotonic()
    with _used_lock:
        if now - _used_at.get(key_id, -60.0) < 60.0:
            return False
        _used_at[key_id] = now
        return True
