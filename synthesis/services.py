"""The life of a job. Every step is one transaction, guarded by status and fence; every end moves the money with it.

Locks are taken in this order: job, voice, reservation, balance, account.
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F, Value
from django.db.models.functions import Coalesce, Greatest, Least, Now

from billing import selectors as billing_selectors
from billing import services as billing
from billing.rating import billable_chars
from synthesis import dispatch, metrics, selectors
from synthesis.contracts import BATCH_QUEUE, SPEECH_QUEUE, RenderRequest, RenderResult
from synthesis.errors import DEADLINE_EXCEEDED, WORKER_LOST, JobNotFoundError
from synthesis.models import TERMINAL_STATUSES, JobAttempt, JobKind, JobStatus, SynthesisJob
from tenants.api import idempotency
from tenants.errors import ApplicationError, TooManyConcurrentRequestsError
from tenants.ids import new_id
from tenants.scoping import tenant_scope
from tenants.storage import TenantStorage
from voices import selectors as voices_selectors
from voices import services as voices
from voices.errors import VoiceNotFoundError

LEASE: Final = dt.timedelta(seconds=30)
MAX_ATTEMPTS: Final = 3
DEADLINES: Final = {
    JobKind.SPEECH: dt.timedelta(minutes=15),
    JobKind.BATCH: dt.timedelta(hours=24),
    JobKind.PREPARE: dt.timedelta(hours=24),
}
_QUEUES: Final = {JobKind.SPEECH: SPEECH_QUEUE, JobKind.BATCH: BATCH_QUEUE, JobKind.PREPARE: SPEECH_QUEUE}
_FIRST_BACKOFF_SECONDS: Final = 2.0
_LONGEST_BACKOFF_SECONDS: Final = 300.0
_MESSAGE_CHARS: Final = 500
_HASH_BLOCK_BYTES: Final = 1 << 20


class LeaseState(enum.Enum):
    """What a heartbeat tells the worker."""

    HELD = "held"
    CANCEL_REQUESTED = "cancel_requested"
    LOST = "lost"  # stop, and write nothing


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt at a job. `fence` guards every write of it."""

    tenant_id: UUID
    job_id: UUID
    kind: JobKind
    voice_id: UUID
    attempt: int
    fence: int
    request: RenderRequest | None  # None when a voice is to be learned

    @property
    def has_listener(self) -> bool:
        return self.kind == JobKind.SPEECH


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt did not succeed."""

    code: str
    message: str
    retryable: bool


class ArtifactDamagedError(Exception):
    """What lies in storage is not what was rendered."""


# --- accepting -------------------------------------------------------------------------------------


def submit_job(
    *, tenant_id: UUID, kind: JobKind, voice_id: UUID, request: RenderRequest, api_key_id: UUID | None
) -> SynthesisJob:
    """Reserve credits for the text and queue one synthesis; workers are told on commit.

    Call it inside the transaction of the idempotency record. Raises VoiceNotFoundError, VoiceNotReadyError,
    ConsentWithdrawnError, InsufficientCreditsError, TooManyConcurrentRequestsError; nothing is stored then.
    """
    units = billable_chars(request.text)
    with tenant_scope(tenant_id):
        voice = voices_selectors.get_ready_voice(voice_id=voice_id)
        job = _insert_job(
            tenant_id=tenant_id,
            kind=kind,
            voice_id=voice.id,
            api_key_id=api_key_id,
            text=request.text,
            language=request.language,
            audio_format=request.audio_format.value,
            sample_rate_hz=request.sample_rate_hz,
            speed=request.speed,
            pitch_semitones=request.pitch_semitones,
            seed=request.seed,
            pronunciations=[list(pair) for pair in request.pronunciations],
            billable_chars=units,
        )
        billing.reserve(tenant_id=tenant_id, job_id=job.id, units=units)
        if kind == JobKind.SPEECH:
            _refuse_too_many_streams(tenant_id)
    return job


def submit_preparation(*, tenant_id: UUID, voice_id: UUID) -> SynthesisJob:
    """Queue the learning of a voice: free, and with the lease, retries and poison limit of every job."""
    with tenant_scope(tenant_id):
        return _insert_job(tenant_id=tenant_id, kind=JobKind.PREPARE, voice_id=voice_id)


def _insert_job(*, tenant_id: UUID, kind: JobKind, **fields: Any) -> SynthesisJob:
    queue = _QUEUES[kind]
    job: SynthesisJob = SynthesisJob.objects.create(
        id=new_id(), tenant_id=tenant_id, kind=kind, queue=queue, deadline_at=Now() + DEADLINES[kind], **fields
    )
    job.refresh_from_db()
    transaction.on_commit(partial(dispatch.ring, queue=queue))  # a hint; the row is the queue
    return job


def _refuse_too_many_streams(tenant_id: UUID) -> None:
    # The reservation has locked the tenant's balance row, so requests of one tenant count one after the other.
    limit = billing_selectors.get_plan(tenant_id=tenant_id).max_concurrent_streams
    open_streams = SynthesisJob.objects.filter(
        kind=JobKind.SPEECH, status__in=[JobStatus.QUEUED, JobStatus.RUNNING]
    ).count()
    if open_streams > limit:
        raise TooManyConcurrentRequestsError(limit=limit)


# --- working ---------------------------------------------------------------------------------------


def claim_job(*, queues: Sequence[str], worker_id: str) -> Claim | None:
    """Take the next due job, fairly over tenants; None when there is none that may run now.

    The attempt is counted here, so that a job which kills its worker comes to an end.
    """
    for tenant_id in selectors.find_tenants_with_due_jobs(queues=queues):
        claim = _claim_job_of(tenant_id, queues=queues, worker_id=worker_id)
        if claim is not None:
            return claim
    return None


def _claim_job_of(tenant_id: UUID, *, queues: Sequence[str], worker_id: str) -> Claim | None:
    with tenant_scope(tenant_id):
        _serialise_claims(tenant_id)
        running = SynthesisJob.objects.filter(status=JobStatus.RUNNING).count()
        if running >= billing_selectors.get_plan(tenant_id=tenant_id).max_running_jobs:
            return None
        due = SynthesisJob.objects.filter(
            status=JobStatus.QUEUED, queue__in=list(queues), run_after__lte=Now(), deadline_at__gt=Now()
        ).order_by("created_at", "id")
        due = due.annotate(waited=Now() - F("run_after"))
        while (job := due.select_for_update(skip_locked=True).first()) is not None:
            refusal = _why_voice_is_gone(job)
            if refusal is None:
                waited = partial(metrics.observe_wait, kind=job.kind, seconds=job.waited.total_seconds())
                transaction.on_commit(waited)
                return _claim(job, worker_id=worker_id)
            _end_job(job, JobStatus.FAILED, error_code=refusal.code, error_message=refusal.message)
    return None


def _serialise_claims(tenant_id: UUID) -> None:
    """One claim of a tenant at a time: two that count at once would both find the last free place."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"claim:{tenant_id}"])


def _why_voice_is_gone(job: SynthesisJob) -> ApplicationError | None:
    """Consent may have been withdrawn, or the voice erased, since the job was accepted."""
    try:
        if job.kind == JobKind.PREPARE:
            voices_selectors.get_consented_voice(voice_id=job.voice_id)
        else:
            voices_selectors.get_ready_voice(voice_id=job.voice_id)
    except ApplicationError as error:
        return error
    return None


def _claim(job: SynthesisJob, *, worker_id: str) -> Claim:
    SynthesisJob.objects.filter(id=job.id).update(
        status=JobStatus.RUNNING,
        attempt=F("attempt") + 1,
        fence=F("fence") + 1,
        lease_until=Now() + LEASE,
        worker_id=worker_id,
        started_at=Now(),
        # What an attempt before this one delivered was thrown away with it.
        first_audio_at=None,
        delivered_chars=0,
    )
    claim = Claim(
        tenant_id=job.tenant_id,
        job_id=job.id,
        kind=JobKind(job.kind),
        voice_id=job.voice_id,
        attempt=job.attempt + 1,
        fence=job.fence + 1,
        request=None if job.kind == JobKind.PREPARE else selectors.render_request(job),
    )
    JobAttempt.objects.create(
        tenant_id=job.tenant_id, job_id=job.id, attempt=claim.attempt, fence=claim.fence, worker_id=worker_id
    )
    return claim


def heartbeat(claim: Claim) -> LeaseState:
    """Extend the lease of a claim that still holds the job, and learn whether to go on."""
    with tenant_scope(claim.tenant_id):
        if not _held_by(claim).update(lease_until=Now() + LEASE):
            return LeaseState.LOST
        cancelled = _held_by(claim).filter(cancel_requested_at__isnull=False).exists()
    return LeaseState.CANCEL_REQUESTED if cancelled else LeaseState.HELD


def finish_render(claim: Claim, *, result: RenderResult, artifact_key: str, engine_seconds: float) -> JobStatus | None:
    """End a job whose artifact is stored: succeeded and settled, or cancelled when that was asked for first.

    None when the claim no longer holds the job: nothing is written then. Raises ArtifactDamagedError.
    """
    _check_artifact(claim.tenant_id, artifact_key, result)
    with tenant_scope(claim.tenant_id):
        job = _lock_held(claim)
        if job is None:
            return None
        if job.cancel_requested_at is not None:
            _end_job(job, JobStatus.CANCELLED, engine_seconds=engine_seconds)
            return JobStatus.CANCELLED
        _end_job(
            job,
            JobStatus.SUCCEEDED,
            engine_seconds=engine_seconds,
            artifact_key=artifact_key,
            artifact_sha256=result.sha256,
            artifact_bytes=result.size_bytes,
            audio_frames=result.audio_frames,
            segments=result.segments,
            engine=result.engine,
            engine_version=result.engine_version,
            marks=[[mark.kind, mark.text_start, mark.text_end, mark.start_ms, mark.end_ms] for mark in result.marks],
        )
    return JobStatus.SUCCEEDED


def finish_preparation(claim: Claim, *, key_epoch: int, engine_seconds: float) -> JobStatus | None:
    """End a preparation and make its voice ready. None when the claim no longer holds the job."""
    with tenant_scope(claim.tenant_id):
        job = _lock_held(claim)
        if job is None:
            return None
        if job.cancel_requested_at is not None:
            _end_job(job, JobStatus.CANCELLED, engine_seconds=engine_seconds)
            return JobStatus.CANCELLED
        _end_job(job, JobStatus.SUCCEEDED, engine_seconds=engine_seconds)
        voices.mark_voice_ready(tenant_id=claim.tenant_id, voice_id=claim.voice_id, key_epoch=key_epoch)
    return JobStatus.SUCCEEDED


def fail_render(claim: Claim, failure: Failure, *, engine_seconds: float | None = None) -> JobStatus | None:
    """Note that an attempt failed: queued again after a while when waiting may cure it, else failed and released.

    None when the claim no longer holds the job. A job that somebody has begun to hear is not tried again: the sound
    of a second attempt cannot be sewn to the first's.
    """
    with tenant_scope(claim.tenant_id):
        job = _lock_held(claim)
        if job is None:
            return None
        if job.cancel_requested_at is not None:
            _end_job(job, JobStatus.CANCELLED, engine_seconds=engine_seconds)
        elif failure.retryable and _may_try_again(job):
            _queue_again(job, outcome=failure.code, engine_seconds=engine_seconds)
        else:
            _end_job(
                job,
                JobStatus.FAILED,
                engine_seconds=engine_seconds,
                error_code=failure.code,
                error_message=failure.message[:_MESSAGE_CHARS],
            )
        return JobStatus(job.status)


def end_cancelled(claim: Claim, *, engine_seconds: float | None = None) -> JobStatus | None:
    """End a running job whose cancellation the worker has seen. None when the claim no longer holds it."""
    with tenant_scope(claim.tenant_id):
        job = _lock_held(claim)
        if job is None:
            return None
        _end_job(job, JobStatus.CANCELLED, engine_seconds=engine_seconds)
    return JobStatus.CANCELLED


# --- listening and cancelling ----------------------------------------------------------------------


def begin_delivery(*, tenant_id: UUID, job_id: UUID, fence: int) -> bool:
    """Note that the first byte of this attempt is about to be sent; False when it no longer may be."""
    with tenant_scope(tenant_id):
        attempt = SynthesisJob.objects.filter(id=job_id, fence=fence)
        return bool(
            attempt.filter(status=JobStatus.RUNNING).update(first_audio_at=Coalesce(F("first_audio_at"), Now()))
            or attempt.filter(status=JobStatus.SUCCEEDED).exists()
        )


def mark_delivered(*, tenant_id: UUID, job_id: UUID, fence: int, chars: int) -> None:
    """Raise the mark of what a listener has wholly received. It never falls, and counts for this attempt only."""
    with tenant_scope(tenant_id):
        SynthesisJob.objects.filter(id=job_id, fence=fence, status=JobStatus.RUNNING).update(
            delivered_chars=Least(Greatest(F("delivered_chars"), Value(chars)), F("billable_chars"))
        )


def cancel_job(*, tenant_id: UUID, job_id: UUID) -> SynthesisJob:
    """Stop a job: at once when queued, at its worker's next look when running. An ended job stays as it is.

    A running job that is cancelled never succeeds afterwards; what a listener had wholly received is charged, and
    nothing else. Raises JobNotFoundError.
    """
    with tenant_scope(tenant_id):
        job: SynthesisJob | None = SynthesisJob.objects.select_for_update().filter(id=job_id).first()
        if job is None:
            raise JobNotFoundError
        if job.status == JobStatus.QUEUED:
            _end_job(job, JobStatus.CANCELLED)
        elif job.status == JobStatus.RUNNING and job.cancel_requested_at is None:
            SynthesisJob.objects.filter(id=job.id).update(cancel_requested_at=Now())
            job.refresh_from_db()
    return job


def cancel_for_listener(*, tenant_id: UUID, job_id: UUID, fence: int, delivered_chars: int) -> SynthesisJob:
    """The listener has left: raise the mark to what was wholly received, then cancel."""
    with tenant_scope(tenant_id):
        if delivered_chars:
            mark_delivered(tenant_id=tenant_id, job_id=job_id, fence=fence, chars=delivered_chars)
        return cancel_job(tenant_id=tenant_id, job_id=job_id)


def cancel_jobs_of_voice(*, tenant_id: UUID, voice_id: UUID) -> int:
    """Cancel every job of a voice that has not ended; how many there were."""
    with tenant_scope(tenant_id):
        open_jobs = SynthesisJob.objects.filter(voice_id=voice_id).exclude(status__in=TERMINAL_STATUSES)
        job_ids = list(open_jobs.order_by("id").values_list("id", flat=True))
        for job_id in job_ids:
            cancel_job(tenant_id=tenant_id, job_id=job_id)
    return len(job_ids)


# --- reaping ---------------------------------------------------------------------------------------


def reap_jobs(*, limit: int = 200) -> int:
    """Take jobs away from workers that have gone silent, and end those whose deadline has passed; how many."""
    reaped = 0
    for tenant_id, job_id in selectors.find_overdue_jobs(limit=limit):
        reaped += _reap_job(tenant_id, job_id)
    return reaped


def _reap_job(tenant_id: UUID, job_id: UUID) -> bool:
    with tenant_scope(tenant_id):
        # Picked outside the scope, so asked again here, with the row locked and by the database's clock.
        job = (
            SynthesisJob.objects.select_for_update(skip_locked=True)
            .exclude(status__in=TERMINAL_STATUSES)
            .annotate(now=Now())
            .filter(id=job_id)
            .first()
        )
        if job is None:
            return False
        if job.deadline_at < job.now:
            _end_job(
                job,
                JobStatus.EXPIRED,
                error_code=DEADLINE_EXCEEDED,
                error_message="The job was not done before its deadline.",
            )
            return True
        if job.status != JobStatus.RUNNING or job.lease_until >= job.now:
            return False
        transaction.on_commit(partial(metrics.count_lease_lost, noticed_by="dispatcher"))
        if job.cancel_requested_at is not None:
            _end_job(job, JobStatus.CANCELLED)
        elif _may_try_again(job):
            _queue_again(job, outcome="lease_lost")
        else:
            _end_job(job, JobStatus.FAILED, error_code=WORKER_LOST, error_message="The worker of this job was lost.")
        return True


# --- steps, with the row locked --------------------------------------------------------------------


def _held_by(claim: Claim) -> Any:
    return SynthesisJob.objects.filter(id=claim.job_id, fence=claim.fence, status=JobStatus.RUNNING)


def _lock_held(claim: Claim) -> SynthesisJob | None:
    job: SynthesisJob | None = _held_by(claim).select_for_update().first()
    return job


def _may_try_again(job: SynthesisJob) -> bool:
    return job.attempt < MAX_ATTEMPTS and job.first_audio_at is None


def _queue_again(job: SynthesisJob, *, outcome: str, engine_seconds: float | None = None) -> None:
    """Full jitter: anything up to 2 s after the first attempt, twice that after the second, at most 5 min."""
    longest = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** (job.attempt - 1))
    _close_attempt(job, outcome=outcome, engine_seconds=engine_seconds)
    job.status = JobStatus.QUEUED
    SynthesisJob.objects.filter(id=job.id).update(
        status=job.status,
        lease_until=None,
        worker_id="",
        run_after=Now() + dt.timedelta(seconds=random.uniform(0, longest)),
    )


def _end_job(job: SynthesisJob, status: JobStatus, *, engine_seconds: float | None = None, **outcome: Any) -> None:
    """The one way to a terminal status: row, attempt, money and idempotency in the caller's transaction."""
    _close_attempt(job, outcome=outcome.get("error_code") or status.value, engine_seconds=engine_seconds)
    SynthesisJob.objects.filter(id=job.id).update(status=status, lease_until=None, finished_at=Now(), **outcome)
    job.refresh_from_db()
    transaction.on_commit(partial(metrics.count_job, kind=job.kind, status=job.status, code=job.error_code))
    if status in (JobStatus.FAILED, JobStatus.EXPIRED):
        idempotency.forget(tenant_id=job.tenant_id, resource_id=job.id)
        if job.kind == JobKind.PREPARE:
            _mark_voice_failed(job)
    if job.kind != JobKind.PREPARE:
        _move_money(job)


def _mark_voice_failed(job: SynthesisJob) -> None:
    try:
        voice = voices_selectors.get_voice(voice_id=job.voice_id)
    except VoiceNotFoundError:  # erased meanwhile
        return
    voices.mark_voice_failed(
        tenant_id=job.tenant_id,
        voice_id=voice.id,
        key_epoch=voice.key_epoch,
        code=job.error_code,
        message=job.error_message,
    )


def _move_money(job: SynthesisJob) -> None:
    """The charging table: the quote for what succeeded, what was delivered of what was cancelled, else nothing."""
    units = {JobStatus.SUCCEEDED: job.billable_chars, JobStatus.CANCELLED: job.delivered_chars}.get(
        JobStatus(job.status), 0
    )
    if units == 0:
        billing.release(tenant_id=job.tenant_id, job_id=job.id)
        return
    billing.settle(
        tenant_id=job.tenant_id,
        job_id=job.id,
        used_units=units,
        attempt=job.attempt,
        api_key_id=job.api_key_id,
        voice_id=job.voice_id,
        language=job.language,
    )


def _close_attempt(job: SynthesisJob, *, outcome: str, engine_seconds: float | None) -> None:
    JobAttempt.objects.filter(job_id=job.id, fence=job.fence, ended_at=None).update(
        ended_at=Now(), outcome=outcome, engine_seconds=engine_seconds
    )


def _check_artifact(tenant_id: UUID, key: str, result: RenderResult) -> None:
    digest = hashlib.sha256()
    size = 0
    with TenantStorage(tenant_id).open(key) as stored:
        while block := stored.read(_HASH_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    if (size, digest.hexdigest()) != (result.size_bytes, result.sha256):
        raise ArtifactDamagedError(f"{size} bytes in storage, {result.size_bytes} rendered")
