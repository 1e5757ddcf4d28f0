"""Routes that stream: plain async views, because DRF's are synchronous and would collect a stream before sending it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework.renderers import JSONRenderer

from synthesis import metrics, selectors, services
from synthesis.api.listening import (
    JobState,
    Listening,
    failure_of,
    read_artifact,
    read_state,
)
from synthesis.api.serializers import JobSerializer, SpeechOrder
from synthesis.api.threads import in_thread
from synthesis.api.views import read_job_id
from synthesis.contracts import CONTENT_TYPES, LIVE_FORMATS, MAX_SPEECH_CHARS, AudioFormat
from synthesis.errors import JobCancelledError, JobNotFinishedError
from synthesis.models import TERMINAL_STATUSES, JobKind, JobStatus, SynthesisJob
from tenants.api import idempotency, throttling
from tenants.api.caller import Caller, authenticate, remote_address, require_scope
from tenants.api.errors import UnsupportedMediaTypeError, answer_problems
from tenants.errors import IdempotencyConflictError, MalformedRequestError, MethodNotAllowedError
from tenants.models import Scope
from tenants.scoping import tenant_scope

SPEECH_ROUTE: Final = "POST /v1/speech"  # of idempotency records
JOIN_SECONDS: Final = 2.0  # a twin waits this long for the first to finish
_JOIN_POLL_SECONDS: Final = 0.1
_EVENT_POLL_SECONDS: Final = 0.5
_KEEP_ALIVE_SECONDS: Final = 15.0

View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]


def _only(method: str, view: View) -> View:
    """Problems as JSON, one method, and no CSRF: keys are not sent by browsers on their own."""

    @answer_problems
    async def answered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method != method:
            raise MethodNotAllowedError(f"Only {method} is allowed here.")
        return await view(request, *args, **kwargs)

    return cast(View, csrf_exempt(answered))


def _call(request: HttpRequest) -> Caller:
    caller = authenticate(request.headers.get("Authorization"), address=remote_address(request))
    throttling.take(caller)
    require_scope(caller, Scope.SPEECH_WRITE)
    request.user = caller  # type: ignore[assignment]  # as in DRF's views: the access log names the tenant
    return caller


# --- POST /v1/speech ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Accepted:
    """`is_new`: this request made the job. Otherwise an earlier one with its Idempotency-Key did."""

    job: SynthesisJob
    is_new: bool


async def _speak(request: HttpRequest) -> HttpResponseBase:
    arrived = time.perf_counter()
    accepted = await in_thread(_accept, request)
    if not accepted.is_new:
        return await _replay(accepted.job)
    listening = Listening(accepted.job)
    pieces = listening.pieces()
    # The status waits for the first sound: a failure before it has a status of its own.
    first = await anext(pieces, b"")
    metrics.observe_first_audio(
        started=arrived,
        is_live=accepted.job.audio_format in LIVE_FORMATS,
        is_warm=listening.is_warm,
        text_chars=accepted.job.billable_chars,
    )
    return StreamingHttpResponse(
        _from_first(first, pieces),
        content_type=CONTENT_TYPES[AudioFormat(accepted.job.audio_format)],
        headers=_speech_headers(accepted.job, engine=settings.ENGINE),
    )


async def _from_first(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for piece in rest:
            yield piece
    finally:
        await rest.aclose()


async def _stored_audio(job: SynthesisJob) -> AsyncIterator[bytes]:
    """The artifact, begun before a status is sent: storage that is out of reach has a status of its own."""
    pieces = read_artifact(job.tenant_id, job.artifact_key)
    return _from_first(await anext(pieces, b""), pieces)


def _accept(request: HttpRequest) -> _Accepted:
    caller = _call(request)
    key = idempotency.read_key(request.headers)
    order = SpeechOrder(_read_json(request), limit_chars=MAX_SPEECH_CHARS)
    with tenant_scope(caller.tenant_id):
        if key is not None:
            record, is_first = idempotency.claim(
                tenant_id=caller.tenant_id, route=SPEECH_ROUTE, key=key, fingerprint=order.fingerprint
            )
            if not is_first:
                assert record.resource_id is not None
                return _Accepted(selectors.get_job(job_id=record.resource_id), is_new=False)
        job = services.submit_job(
            tenant_id=caller.tenant_id,
            kind=JobKind.SPEECH,
            voice_id=order.voice_id,
            request=order.request,
            api_key_id=caller.key_id,
        )
        if key is not None:
            idempotency.finish(record, status=200, body=None, resource_id=job.id)
    structlog.contextvars.bind_contextvars(job_id=str(job.id))
    return _Accepted(job, is_new=True)


def _read_json(request: HttpRequest) -> Any:
    if request.content_type != "application/json":
        raise UnsupportedMediaTypeError("Send a JSON body with `Content-Type: application/json`.")
    try:
        return json.loads(request.body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedRequestError("The body could not be parsed.") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _speech_headers(job: SynthesisJob, *, engine: str) -> dict[str, str]:
    return {
        "X-Job-Id": str(job.id),
        "X-Characters": str(job.billable_chars),
        "X-Sample-Rate": str(job.sample_rate_hz),
        "X-Engine": engine,
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",  # nginx would collect the stream
    }


async def _replay(job: SynthesisJob) -> HttpResponseBase:
    """A finished twin's artifact; a running twin is waited for a while. A cancelled one stays cancelled."""
    state = await _join(job)
    if state.status == JobStatus.CANCELLED:
        raise JobCancelledError
    if state.status != JobStatus.SUCCEEDED:
        # Running still, or just failed: then its key was forgotten, and the next request starts afresh.
        raise IdempotencyConflictError(
            "The first request with this Idempotency-Key is still running.", retry_after_seconds=1.0
        )
    job = await in_thread(_reload, job)
    headers = _speech_headers(job, engine=job.engine)
    return StreamingHttpResponse(
        await _stored_audio(job),
        content_type=CONTENT_TYPES[AudioFormat(job.audio_format)],
        headers={**headers, "Content-Length": str(job.artifact_bytes), idempotency.REPLAYED_HEADER: "true"},
    )


async def _join(job: SynthesisJob) -> JobState:
    give_up_at = time.monotonic() + JOIN_SECONDS
    while True:
        state = await in_thread(read_state, job.tenant_id, job.id)
        if state.is_terminal or time.monotonic() >= give_up_at:
            return state
        await asyncio.sleep(_JOIN_POLL_SECONDS)


def _reload(job: SynthesisJob) -> SynthesisJob:
    with tenant_scope(job.tenant_id):
        return selectors.get_job(job_id=job.id)


# --- GET /v1/jobs/{job_id}/audio ----------------------------------------------------------------


async def _fetch_audio(request: HttpRequest, job_id: str) -> HttpResponseBase:
    job = await in_thread(_find_job, request, job_id)
    if job.status not in TERMINAL_STATUSES:
        raise JobNotFinishedError(job_status=job.status)
    if job.status != JobStatus.SUCCEEDED:
        raise failure_of(
            JobState(JobStatus(job.status), job.fence, job.artifact_key, job.error_code, job.error_message), job.id
        )
    return StreamingHttpResponse(
        await _stored_audio(job),
        content_type=CONTENT_TYPES[AudioFormat(job.audio_format)],
        headers={
            "Content-Length": str(job.artifact_bytes),
            "Content-Disposition": f'attachment; filename="{job.id}.{job.audio_format}"',
            "Cache-Control": "private, no-store",
            "ETag": f'"{job.artifact_sha256}"',
            "X-Job-Id": str(job.id),
            "X-Sample-Rate": str(job.sample_rate_hz),
        },
    )


def _find_job(request: HttpRequest, job_id: str) -> SynthesisJob:
    caller = _call(request)
    with tenant_scope(caller.tenant_id):
        return selectors.get_job(job_id=read_job_id(job_id))


# --- GET /v1/jobs/{job_id}/events ---------------------------------------------------------------


async def _follow_job(request: HttpRequest, job_id: str) -> HttpResponseBase:
    job = await in_thread(_find_job, request, job_id)
    return StreamingHttpResponse(
        _events(job.tenant_id, job.id),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(tenant_id: UUID, job_id: UUID) -> AsyncIterator[bytes]:
    """`status` events with the job as data: the first at once, then on each change, until the job has ended."""
    seen: Mapping[str, Any] | None = None
    said_at = time.monotonic()
    while True:
        job = await in_thread(_describe, tenant_id, job_id)
        if job != seen:
            seen, said_at = job, time.monotonic()
            yield b"event: status\ndata: " + JSONRenderer().render(job) + b"\n\n"
        elif time.monotonic() - said_at >= _KEEP_ALIVE_SECONDS:
            said_at = time.monotonic()
            yield b": still here\n\n"
        if job["status"] in TERMINAL_STATUSES:
            return
        await asyncio.sleep(_EVENT_POLL_SECONDS)


def _describe(tenant_id: UUID, job_id: UUID) -> Mapping[str, Any]:
    with tenant_scope(tenant_id):
        return JobSerializer(selectors.get_job(job_id=job_id)).data


speech = _only("POST", _speak)
job_audio = _only("GET", _fetch_audio)
job_events = _only("GET", _follow_job)
