"""Audio on its way from a worker to a listener: one Redis stream per job. A convenience, never the truth.

Entries carry the attempt's fence and a running number, so that a listener can tell a gap (Redis was restarted or the
stream was cut to its bound) and a second attempt from what it has sent so far. Whatever is missing here is in the
job's row, and the whole sound is in its artifact.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID
from weakref import WeakKeyDictionary

import redis.asyncio
from django.conf import settings
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from synthesis.metrics import is_warm
from tenants.redis import RedisError, redis_breaker, redis_client

ENTRY_BYTES: Final = 64 * 1024
MAX_ENTRIES: Final = 256  # 16 MiB a stream; a listener who is further behind goes on from the artifact
LIFE_SECONDS: Final = 900  # of a stream whose worker has died
LINGER_SECONDS: Final = 60  # of one that has come to its end
BLOCK_MS: Final = 1000
READ_SECONDS: Final = BLOCK_MS / 1000 + 1.0  # then Redis is not answering


class EntryKind(enum.StrEnum):
    START = "start"  # an attempt begins: anything of an older one is void
    AUDIO = "audio"
    DONE = "done"  # the job has succeeded
    ENDED = "ended"  # this attempt gives no more; the row says why


@dataclass(frozen=True, slots=True)
class Entry:
    """`delivered_chars`: billable characters that sound completely up to and including `data`.

    `artifact_end`: where in the artifact the bytes after `data` begin; an MP3 file has a frame that no listener gets.
    """

    fence: int
    number: int
    kind: EntryKind
    data: bytes = b""
    delivered_chars: int = 0
    artifact_end: int = 0
    is_warm: bool = False  # the worker had the voice in memory


def stream_key(tenant_id: UUID, job_id: UUID) -> str:
    return f"{tenant_id}:speech:{job_id}"


class Publisher:
    """The worker's end. After the first failure it is silent: the listener would find a gap, and asks the row."""

    def __init__(self, *, tenant_id: UUID, job_id: UUID, fence: int) -> None:
        self._key = stream_key(tenant_id, job_id)
        self._fence = fence
        self._number = 0
        self._is_broken = redis_breaker.is_open
        self._send(EntryKind.START, begin=True)

    def audio(self, data: bytes, *, delivered_chars: int, artifact_end: int) -> None:
        """Send encoded bytes; the mark goes with the last of them."""
        for start in range(0, len(data), ENTRY_BYTES):
            part = data[start : start + ENTRY_BYTES]
            rest_bytes = len(data) - start - len(part)
            chars = 0 if rest_bytes else delivered_chars
            self._send(EntryKind.AUDIO, {"d": part, "c": chars, "e": artifact_end - rest_bytes, "w": int(is_warm())})

    def done(self) -> None:
        self._send(EntryKind.DONE, life_seconds=LINGER_SECONDS)

    def ended(self) -> None:
        self._send(EntryKind.ENDED, life_seconds=LINGER_SECONDS)

    def _send(
        self,
        kind: EntryKind,
        fields: Mapping[str, Any] | None = None,
        *,
        life_seconds: int = LIFE_SECONDS,
        begin: bool = False,
    ) -> None:
        if self._is_broken:
            return
        entry = {"f": self._fence, "n": self._number, "k": kind.value, **(fields or {})}
        try:
            with redis_client().pipeline(transaction=begin) as pipeline:
                if begin:
                    pipeline.delete(self._key)
                pipeline.xadd(self._key, cast(Any, entry), maxlen=MAX_ENTRIES, approximate=False)
                pipeline.expire(self._key, life_seconds)
                pipeline.execute()
        except RedisError:
            redis_breaker.failed()
            self._is_broken = True
        self._number += 1


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, redis.asyncio.Redis] = WeakKeyDictionary()


def _client() -> redis.asyncio.Redis:
    """The listeners' client of this event loop: its reads block, so they do not share the short-timeout one."""
    loop = asyncio.get_running_loop()
    client = _clients.get(loop)
    if client is None:
        client = redis.asyncio.Redis.from_url(
            settings.REDIS_URL,
            # With a time-out redis-py sends through asyncio.wait_for, which in Python 3.11 may swallow a cancellation:
            # the listener would have left and the view gone on (CPython gh-86296, mended in 3.12). See `read`.
            socket_timeout=None,
            socket_connect_timeout=0.2,
            retry=Retry(NoBackoff(), 0),  # redis-py 8 would try ten times
        )
        _clients[loop] = client
    return client


class Subscription:
    """The listener's end, from the beginning of what Redis still has."""

    def __init__(self, *, tenant_id: UUID, job_id: UUID) -> None:
        self._key = stream_key(tenant_id, job_id)
        self._last_id: bytes | str = "0"

    async def read(self) -> list[Entry]:
        """The next entries in order, waiting up to a second for the first; empty when none came.

        Raises RedisError, TimeoutError.
        """
        async with asyncio.timeout(READ_SECONDS):
            answer: Any = await _client().xread({self._key: self._last_id}, count=16, block=BLOCK_MS)
        if not answer:
            return []
        streams = answer.items() if isinstance(answer, dict) else answer
        entries: list[Entry] = []
        for _, rows in streams:
            for entry_id, fields in rows:
                self._last_id = entry_id
                entries.append(_parse(fields))
        return entries


def _parse(fields: Mapping[bytes, bytes]) -> Entry:
    return Entry(
        fence=int(fields[b"f"]),
        number=int(fields[b"n"]),
        kind=EntryKind(fields[b"k"].decode()),
        data=fields.get(b"d", b""),
        delivered_chars=int(fields.get(b"c", b"0")),
        artifact_end=int(fields.get(b"e", b"0")),
        is_warm=fields.get(b"w") == b"1",
    )
