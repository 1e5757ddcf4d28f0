"""This process's engines, and what a worker does with a claim. Each engine is loaded once and shared by all threads."""

from __future__ import annotations

import contextvars
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Final, Protocol
from uuid import UUID

import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from billing.rating import billable_chars
from synthesis import metrics, prompts, services
from synthesis.contracts import LIVE_FORMATS, RenderRequest
from synthesis.engines.base import SpeechEngine
from synthesis.engines.errors import EngineError
from synthesis.engines.gpt_sovits.errors import ModelNotFoundError, ModelUnavailableError
from synthesis.errors import INTERNAL_ERROR
from synthesis.models import JobStatus
from synthesis.rendering import RenderCancelledError, render
from synthesis.services import Claim, Failure, LeaseState
from synthesis.streams import Publisher
from tenants.errors import ApplicationError
from tenants.scoping import tenant_scope
from tenants.storage import TenantStorage
from voices import selectors as voices_selectors

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.5  # the longest a render goes on without asking whether it was cancelled
WORKER_ID: Final = f"{socket.gethostname()}-{os.getpid()}"


# --- the engine ------------------------------------------------------------------------------------


class _Parametric:
    """One engine for every voice: it has no models."""

    def __init__(self) -> None:
        from synthesis.engines.parametric import ParametricEngine

        self._engine = ParametricEngine()

    def open(self, model: str) -> SpeechEngine:
        return self._engine


def _make_gpt_sovits() -> _Engines:
    from synthesis.engines.gpt_sovits.library import Library, Precision

    return Library(
        settings.MODEL_PATH,
        default_model=settings.MODEL,
        device=settings.ENGINE_DEVICE,
        precision=Precision(settings.ENGINE_PRECISION),
        hop_length=settings.HOP_LENGTH,
    )


class _Engines(Protocol):
    def open(self, model: str) -> SpeechEngine:
        """The engine of a model, loaded at the first call; of a blank name, the default. Raises EngineError."""
        ...


_MAKERS: Final[dict[str, Callable[[], _Engines]]] = {"parametric": _Parametric, "gpt_sovits": _make_gpt_sovits}
_engines: _Engines | None = None
_engine_for_all: SpeechEngine | None = None
_engine_lock = threading.Lock()


def get_engine(model: str = "") -> SpeechEngine:
    """The engine that `settings.ENGINE` names, with this model or the default one, loaded at the first call.

    Raises ImproperlyConfigured, EngineError.
    """
    global _engines
    if _engine_for_all is not None:
        return _engine_for_all
    with _engine_lock:
        if _engines is None:
            maker = _MAKERS.get(settings.ENGINE)
            if maker is None:
                raise ImproperlyConfigured(f"ENGINE must be one of {', '.join(sorted(_MAKERS))}.")
            _engines = maker()
    return _engines.open(model)


def engine_of_voice(*, tenant_id: UUID, voice_id: UUID) -> SpeechEngine:
    """The engine with the model that a voice, or else its tenant, names.

    Raises ModelNotFoundError for a name that is not installed, ModelUnavailableError for all else: those errors are
    the operator's, and what they say of this machine is not for a tenant.
    """
    with tenant_scope(tenant_id):
        model = voices_selectors.get_model_name(voice_id=voice_id)
    try:
        return get_engine(model)
    except EngineError as error:
        log.error("model_not_loaded", model=model, code=error.code, reason=error.message)
        if isinstance(error, ModelNotFoundError) and error.details.get("name") == model:
            raise ModelNotFoundError(f"There is no model {model!r}.", name=model) from error
        raise ModelUnavailableError from error


def use_engine(engine: SpeechEngine | None) -> None:
    """Work with this engine from now on; None: with those of the settings again. The old ones are not closed."""
    global _engine_for_all
    _engine_for_all = engine


# --- stopping --------------------------------------------------------------------------------------

_stopping = threading.Event()


def stop_claiming() -> None:
    """Finish what is under way, and claim nothing more in this process."""
    _stopping.set()


# --- working ---------------------------------------------------------------------------------------


class _LeaseLostError(Exception):
    """Another worker may have the job by now: stop, and write nothing."""


class _CancelSeenError(Exception):
    """The job's cancellation was asked for."""


class Lease:
    """Keeps a claim alive from a thread of its own, which needs neither the engine nor the render's connection.

    `check` is for the render: it asks the database itself when nobody has for a while.
    """

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._state = LeaseState.HELD
        self._asked_at = time.monotonic()
        self._ended = threading.Event()
        beat = partial(contextvars.copy_context().run, self._beat)  # its log lines name the job too
        self._thread = threading.Thread(target=beat, name=f"lease-{claim.job_id}", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raises _LeaseLostError, _CancelSeenError."""
        if self._state is LeaseState.HELD and time.monotonic() - self._asked_at >= LOOK_SECONDS:
            self._ask()
        match self._state:
            case LeaseState.LOST:
                raise _LeaseLostError
            case LeaseState.CANCEL_REQUESTED:
                raise _CancelSeenError

    def must_stop(self) -> bool:
        """`check` for the renderer, which asks between blocks of sound."""
        try:
            self.check()
        except (_LeaseLostError, _CancelSeenError):
            return True
        return False

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        state = services.heartbeat(self._claim)
        if self._state is not LeaseState.LOST:
            self._state = state

    def _beat(self) -> None:
        try:
            while not self._ended.wait(HEARTBEAT_SECONDS):
                try:
                    self._ask()
                except Exception as error:  # PostgreSQL may be back before the lease is over; if not, the fence stands
                    log.warning("heartbeat_failed", reason=type(error).__name__)
        finally:
            connections.close_all()


def work(*, queues: Sequence[str]) -> int:
    """Claim and do jobs until none is due, or this process is to stop; how many were claimed."""
    claimed = 0
    while not _stopping.is_set():
        claim = services.claim_job(queues=queues, worker_id=WORKER_ID)
        if claim is None:
            break
        claimed += 1
        process(claim)
    return claimed


def process(claim: Claim) -> JobStatus | None:
    """Do one claimed job to its end, or give it back; its status then, or None when it is no longer ours."""
    ids = {"tenant_id": str(claim.tenant_id), "job_id": str(claim.job_id), "attempt": claim.attempt}
    with structlog.contextvars.bound_contextvars(**ids):  # on every line of this attempt
        return _process(claim)


def _process(claim: Claim) -> JobStatus | None:
    started = time.monotonic()
    publisher: Publisher | None = None
    if claim.has_listener:
        publisher = Publisher(tenant_id=claim.tenant_id, job_id=claim.job_id, fence=claim.fence)
    status: JobStatus | None = None
    try:
        with Lease(claim) as lease:
            if claim.request is None:
                status = _learn(claim, started)
            else:
                status = _render(claim, claim.request, lease, publisher, started)
    except _LeaseLostError:
        metrics.count_lease_lost(noticed_by="worker")
        log.warning("lease_lost", fence=claim.fence)
    except _CancelSeenError:
        status = services.end_cancelled(claim, engine_seconds=time.monotonic() - started)
    except Exception as error:
        failure = _failure_of(error)
        log.warning("attempt_failed", code=failure.code, exc_info=error)
        status = services.fail_render(claim, failure, engine_seconds=time.monotonic() - started)
    finally:
        seconds = time.monotonic() - started
        metrics.count_engine_seconds(engine=settings.ENGINE, kind=claim.kind, seconds=seconds)
        log.info("attempt_ended", kind=claim.kind, status=status or "lost", milliseconds=round(seconds * 1000))
        if publisher is not None:
            if status is JobStatus.SUCCEEDED:
                publisher.done()
            else:
                publisher.ended()
    return status


def _learn(claim: Claim, started: float) -> JobStatus | None:
    engine = engine_of_voice(tenant_id=claim.tenant_id, voice_id=claim.voice_id)
    key_epoch = prompts.prepare(tenant_id=claim.tenant_id, voice_id=claim.voice_id, engine=engine)
    return services.finish_preparation(claim, key_epoch=key_epoch, engine_seconds=time.monotonic() - started)


def _render(
    claim: Claim, request: RenderRequest, lease: Lease, publisher: Publisher | None, started: float
) -> JobStatus | None:
    engine = engine_of_voice(tenant_id=claim.tenant_id, voice_id=claim.voice_id)
    voice = prompts.load_prompt(tenant_id=claim.tenant_id, voice_id=claim.voice_id, engine=engine)
    storage = TenantStorage(claim.tenant_id)
    begun = time.monotonic()
    with tempfile.TemporaryFile(prefix="cantoria-artifact-") as artifact:
        rendering = render(request, engine=engine, voice=voice, artifact=artifact, is_cancelled=lease.must_stop)
        try:
            text_end = delivered_chars = 0
            for chunk in rendering:
                if publisher is None or request.audio_format not in LIVE_FORMATS:
                    continue
                if chunk.text_end > text_end:
                    text_end = chunk.text_end
                    delivered_chars = billable_chars(request.text[:text_end])
                publisher.audio(chunk.data, delivered_chars=delivered_chars, artifact_end=artifact.tell())
        except RenderCancelledError:
            lease.check()
            raise
        finally:
            rendering.close()
        seconds, audio_seconds = time.monotonic() - begun, rendering.result.audio_seconds
        metrics.count_rendering(engine=settings.ENGINE, seconds=seconds, audio_seconds=audio_seconds)
        lease.check()
        key = storage.make_key(
            "artifacts", claim.job_id, request.audio_format.value, attempt=f"{claim.attempt}-{claim.fence}"
        )
        artifact.seek(0)
        storage.save(key, artifact)
    status = services.finish_render(
        claim, result=rendering.result, artifact_key=key, engine_seconds=time.monotonic() - started
    )
    if status is not JobStatus.SUCCEEDED:  # asked and answered: no row names this object
        storage.delete(key)
    return status


_OUR_OWN_MISTAKE: Final = Failure(INTERNAL_ERROR, "Something went wrong on our side.", retryable=True)


def _failure_of(error: Exception) -> Failure:
    """What is known to be hopeless fails now; everything else may be tried again, and was counted at the claim."""
    if isinstance(error, EngineError | ApplicationError):
        return Failure(error.code, error.message, retryable=error.retryable)
    return _OUR_OWN_MISTAKE
