"""One listener's way through a job's audio: from Redis while it is made, from the artifact when Redis has a gap.

Promises: bytes of one attempt only, in order, without a gap; a failure after the first byte raises, so that the
connection is cut and nobody takes a torso for the whole; a listener who leaves cancels the job.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from synthesis import metrics, selectors, services
from synthesis.api.threads import in_thread
from synthesis.errors import JobCancelledError, JobFailedError
from synthesis.models import TERMINAL_STATUSES, JobStatus, SynthesisJob
from synthesis.streams import Entry, EntryKind, Subscription
from tenants.redis import RedisError, redis_breaker
from tenants.scoping import tenant_scope
from tenants.storage import TenantStorage

log = structlog.get_logger(__name__)

BLOCK_BYTES: Final = 256 * 1024
MARK_SECONDS: Final = 1.0  # between two writes of the delivered mark
POLL_SECONDS: Final = 0.25  # of the row, while Redis says nothing

_farewells: set[asyncio.Task[None]] = set()  # kept from the garbage collector until they are done


class StreamCutError(Exception):
    """What was sent cannot be continued. Raised out of the response, so that the server cuts the connection."""


@dataclass(frozen=True, slots=True)
class JobState:
    """What a listener needs of a job's row."""

    status: JobStatus
    fence: int
    artifact_key: str
    error_code: str
    error_message: str

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL_STATUSES


def read_state(tenant_id: UUID, job_id: UUID) -> JobState:
    with tenant_scope(tenant_id):
        job = selectors.get_job(job_id=job_id)
        return JobState(JobStatus(job.status), job.fence, job.artifact_key, job.error_code, job.error_message)


def failure_of(state: JobState, job_id: UUID) -> JobCancelledError | JobFailedError:
    """Why a job that has ended has no audio."""
    if state.status == JobStatus.CANCELLED:
        return JobCancelledError()
    return JobFailedError(error_code=state.error_code, message=state.error_message, job_id=str(job_id))


async def read_artifact(tenant_id: UUID, key: str, *, start: int = 0) -> AsyncGenerator[bytes]:
    """The stored audio from byte `start` on, in blocks."""
    artifact = await in_thread(TenantStorage(tenant_id).open, key)
    try:
        await in_thread(artifact.seek, start)
        while block := await in_thread(artifact.read, BLOCK_BYTES):
            yield block
    finally:
        artifact.close()


class Listening:
    """Iterate `pieces` once. `delivered_chars` is what the listener has wholly received."""

    def __init__(self, job: SynthesisJob) -> None:
        self._tenant_id: UUID = job.tenant_id
        self._job_id: UUID = job.id
        self._subscription = Subscription(tenant_id=job.tenant_id, job_id=job.id)
        self._fence = 0  # of the attempt that is listened to
        self._next_number = 0
        self._has_gap = False
        self._has_begun = False  # a byte was sent
        self._artifact_position = 0  # where what was not sent yet begins in the artifact
        self._marked_at = time.monotonic()
        self.delivered_chars = 0
        self.is_warm = False  # what has begun came from a worker that had the voice in memory

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The audio as it is made.

        Raises JobFailedError, JobCancelledError (a status can still be sent when nothing was yielded before),
        StreamCutError. Closed or cancelled before the end, it cancels the job.
        """
        has_ended = False
        metrics.add_listeners(1)
        try:
            async for piece in self._pieces():
                yield piece
            has_ended = True
        except (JobFailedError, JobCancelledError):
            has_ended = True
            raise
        finally:
            metrics.add_listeners(-1)
            if not has_ended:
                self._leave()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while True:
            entries = await self._read()
            must_ask = not entries
            for entry in entries:
                if entry.fence < self._fence:
                    continue
                self._follow(entry)
                if entry.kind is EntryKind.DONE and self._has_begun and not self._has_gap:
                    return
                if self._has_gap or entry.kind in (EntryKind.DONE, EntryKind.ENDED):
                    must_ask = True  # a format that is sent whole has no bytes here: they are in the artifact
                elif entry.kind is EntryKind.AUDIO:
                    if not self._has_begun and not await self._may_begin():
                        self._has_gap = must_ask = True
                        continue
                    self._has_begun, self._artifact_position = True, entry.artifact_end
                    self.is_warm = self.is_warm or entry.is_warm
                    yield entry.data
                    await self._note_delivered(entry)
            if must_ask:
                state = await in_thread(read_state, self._tenant_id, self._job_id)
                if state.is_terminal:
                    async for block in self._rest(state):
                        yield block
                    return
                if self._has_gap:
                    await asyncio.sleep(POLL_SECONDS)

    async def _read(self) -> list[Entry]:
        if not redis_breaker.is_open:
            try:
                return await self._subscription.read()
            except (RedisError, TimeoutError):
                redis_breaker.failed()
        await asyncio.sleep(POLL_SECONDS)
        return []

    def _follow(self, entry: Entry) -> None:
        """Take up a new attempt, or find that one is not whole. Raises StreamCutError."""
        if entry.fence > self._fence:
            if self._has_begun:
                raise StreamCutError("another attempt has begun")
            self._fence, self._next_number, self._has_gap = entry.fence, 0, False
        if entry.number != self._next_number:
            self._has_gap = True
        self._next_number += 1

    async def _may_begin(self) -> bool:
        return await in_thread(
            services.begin_delivery, tenant_id=self._tenant_id, job_id=self._job_id, fence=self._fence
        )

    async def _note_delivered(self, entry: Entry) -> None:
        """Called when the server has taken the bytes before it asked for more."""
        if entry.delivered_chars <= self.delivered_chars:
            return
        self.delivered_chars = entry.delivered_chars
        if time.monotonic() - self._marked_at >= MARK_SECONDS:
            self._marked_at = time.monotonic()
            await in_thread(
                services.mark_delivered,
                tenant_id=self._tenant_id,
                job_id=self._job_id,
                fence=self._fence,
                chars=self.delivered_chars,
            )

    async def _rest(self, state: JobState) -> AsyncIterator[bytes]:
        """What the artifact holds beyond what was sent: the same attempt gives the same bytes. Else the reason."""
        if state.status != JobStatus.SUCCEEDED:
            raise failure_of(state, self._job_id)
        if self._has_begun and state.fence != self._fence:
            raise StreamCutError("the artifact is another attempt's")
        async for block in read_artifact(self._tenant_id, state.artifact_key, start=self._artifact_position):
            yield block

    def _leave(self) -> None:
        """The listener has gone: say so in the row, whatever becomes of this task."""
        farewell = asyncio.get_running_loop().create_task(self._cancel())
        _farewells.add(farewell)
        farewell.add_done_callback(_farewells.discard)

    async def _cancel(self) -> None:
        try:
            await in_thread(
                services.cancel_for_listener,
                tenant_id=self._tenant_id,
                job_id=self._job_id,
                fence=self._fence,
                delivered_chars=self.delivered_chars,
            )
        except Exception as error:  # the deadline ends the job, and charges nothing then
            log.error("listener_not_signed_off", job_id=str(self._job_id), exc_info=error)
