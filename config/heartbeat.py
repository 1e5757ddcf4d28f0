"""Workers say in Redis that they live; `/readyz` counts them."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Final

from tenants.redis import RedisError, redis_client

_KEY: Final = "workers"  # a sorted set: worker's name by the time of its last beat
_BEAT_SECONDS: Final = 5.0
_ALIVE_SECONDS: Final = 20.0
_FORGET_SECONDS: Final = 3600.0

_stopped = threading.Event()


def count_live_workers() -> int:
    """How many workers beat lately. Raises RedisError."""
    count = redis_client().zcount(_KEY, time.time() - _ALIVE_SECONDS, "+inf")
    return int(count)


def start_beating() -> None:
    """Beat in a thread until `stop_beating`. Redis may come and go."""
    _stopped.clear()
    threading.Thread(target=_beat, name="heartbeat", daemon=True).start()


def stop_beating() -> None:
    """Take this worker off the list at once: it accepts no more work."""
    _stopped.set()
    try:
        redis_client().zrem(_KEY, _name())
    except RedisError:
        return  # the entry ages


def _beat() -> None:
    while not _stopped.is_set():
        now = time.time()
        try:
            redis_client().zadd(_KEY, {_name(): now})
            redis_client().zremrangebyscore(_KEY, "-inf", now - _FORGET_SECONDS)
        except RedisError:
            pass  # said again in a moment
        _stopped.wait(_BEAT_SECONDS)


def _name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
