"""Request rates: GCRA in Redis, the same algorithm in the process when Redis is away."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tenants import redis as tenant_redis
from tenants.api import throttling
from tenants.api.caller import Caller
from tenants.api.throttling import Rate
from tenants.errors import RateLimitedError
from tenants.ids import new_id

SLOW = Rate(per_second=5, burst=3)


@pytest.mark.usefixtures("redis_client")
def test_a_burst_passes_and_then_the_rate_holds() -> None:
    key = f"test:{new_id()}"
    waits = [throttling._wait_seconds(key, SLOW, write=True) for _ in range(4)]
    assert waits[:3] == [0, 0, 0]
    assert 0.1 < waits[3] <= 0.2
    time.sleep(waits[3])
    assert throttling._wait_seconds(key, SLOW, write=True) == 0


@pytest.mark.usefixtures("redis_client")
def test_looking_does_not_count() -> None:
    key = f"test:{new_id()}"
    assert [throttling._wait_seconds(key, SLOW, write=False) for _ in range(9)] == [0] * 9


def test_the_process_takes_over_when_redis_is_away(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    tenant_redis.redis_client.cache_clear()
    throttling._script.cache_clear()
    monkeypatch.setattr(throttling, "redis_breaker", tenant_redis.Breaker())
    monkeypatch.setattr(throttling, "REQUESTS", SLOW)
    caller = Caller(tenant_id=new_id(), key_id=new_id(), scopes=frozenset())
    try:
        for _ in range(3):
            throttling.take(caller)
        with pytest.raises(RateLimitedError):
            throttling.take(caller)
    finally:
        tenant_redis.redis_client.cache_clear()
        throttling._script.cache_clear()
