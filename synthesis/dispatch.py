"""Rings for workers. A doorbell is a hint: the row is the queue, and the dispatcher's poll rings again."""

from __future__ import annotations

from typing import Final

import structlog
from celery import current_app
from kombu.exceptions import KombuError

from synthesis.contracts import WORK_TASK
from tenants.redis import RedisError, redis_breaker

log = structlog.get_logger(__name__)

# An unheard ring is worth nothing later: the dispatcher rings again every few seconds.
RING_LIFE_SECONDS: Final = 30


def ring(*, queue: str) -> bool:
    """Tell the workers of `queue` that there may be work. Never raises; False when nobody could be told.

    While Redis is known to be away nothing is tried, so that accepting a job costs no time-out.
    """
    if redis_breaker.is_open:
        return False
    try:
        current_app.send_task(
            WORK_TASK, kwargs={"queue": queue}, queue=queue, expires=RING_LIFE_SECONDS, retry=False, ignore_result=True
        )
    except (RedisError, KombuError, OSError) as error:
        redis_breaker.failed()
        log.warning("doorbell_unheard", queue=queue, reason=type(error).__name__)
        return False
    return True
