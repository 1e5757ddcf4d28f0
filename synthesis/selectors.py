"""Reads of jobs. Those that see all tenants go through `dispatch` (picking) or `staff` (reconciling)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import connections
from django.db.models import QuerySet

from synthesis.contracts import AudioFormat, RenderRequest
from synthesis.errors import JobNotFoundError
from synthesis.metrics import QueueState
from synthesis.models import JobKind, SynthesisJob

# What a tenant was served in this time decides who is next when nobody has more running jobs.
_FAIRNESS_SECONDS = 60.0
_JOB_OF_KEY = re.compile(r"/artifacts/\d{4}/\d{2}/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/")


def list_jobs() -> QuerySet[SynthesisJob]:
    """The jobs of the tenant in scope that its API shows, newest first, without their long fields."""
    jobs: QuerySet[SynthesisJob] = SynthesisJob.objects.exclude(kind=JobKind.PREPARE).defer("text", "marks")
    return jobs


def get_job(*, job_id: UUID) -> SynthesisJob:
    """A job of the tenant in scope that its API shows. Raises JobNotFoundError."""
    job: SynthesisJob | None = SynthesisJob.objects.exclude(kind=JobKind.PREPARE).filter(id=job_id).first()
    if job is None:
        raise JobNotFoundError
    return job


def find_artifact_keys(*, keys: Collection[str]) -> set[str]:
    """Those of `keys` that a job of the tenant in scope names as its artifact."""
    jobs: QuerySet[SynthesisJob] = SynthesisJob.objects.all()
    job_ids = {UUID(found[1]) for key in keys if (found := _JOB_OF_KEY.search(key))}
    named = set(jobs.filter(id__in=job_ids, artifact_key__in=keys).values_list("artifact_key", flat=True))
    # By id is the quick way, over an index; what it does not find is asked for as it stands.
    if rest := set(keys) - named:
        named |= set(jobs.filter(artifact_key__in=rest).values_list("artifact_key", flat=True))
    return named


def render_request(job: SynthesisJob) -> RenderRequest:
    """What the renderer is asked for; the prepared voice is found apart from it."""
    return RenderRequest(
        text=job.text,
        language=job.language,
        audio_format=AudioFormat(job.audio_format),
        sample_rate_hz=job.sample_rate_hz or 0,
        speed=job.speed,
        pitch_semitones=job.pitch_semitones,
        seed=job.seed,
        pronunciations=tuple((written, spoken) for written, spoken in job.pronunciations),
    )


def find_tenants_with_due_jobs(*, queues: Sequence[str]) -> list[UUID]:
    """Tenants that have something to do in `queues`, the one to be served next first.

    Fewest running jobs first; then fewest jobs started in the last minute, so that one worker too serves tenants in
    turn; then the oldest job.
    """
    with connections["dispatch"].cursor() as cursor:
        cursor.execute(
            """
            WITH due AS (
                SELECT tenant_id, min(created_at) AS oldest FROM synthesis_job
                WHERE status = 'queued' AND queue = ANY(%(queues)s)
                  AND run_after <= clock_timestamp() AND deadline_at > clock_timestamp()
                GROUP BY tenant_id
            ), running AS (
                SELECT tenant_id, count(*) AS jobs FROM synthesis_job WHERE status = 'running' GROUP BY tenant_id
            ), lately AS (
                SELECT tenant_id, count(*) AS jobs FROM synthesis_job
                WHERE started_at > clock_timestamp() - make_interval(secs => %(window)s) GROUP BY tenant_id
            )
            SELECT due.tenant_id FROM due
            LEFT JOIN running USING (tenant_id) LEFT JOIN lately USING (tenant_id)
            ORDER BY coalesce(running.jobs, 0), coalesce(lately.jobs, 0), due.oldest
            """,
            {"queues": list(queues), "window": _FAIRNESS_SECONDS},
        )
        return [row[0] for row in cursor.fetchall()]


def count_due_jobs(*, waiting_seconds: float) -> dict[str, int]:
    """Jobs by queue that have been due, and unclaimed, for at least `waiting_seconds`."""
    with connections["dispatch"].cursor() as cursor:
        cursor.execute(
            """
            SELECT queue, count(*) FROM synthesis_job
            WHERE status = 'queued' AND deadline_at > clock_timestamp()
              AND run_after <= clock_timestamp() - make_interval(secs => %s)
            GROUP BY queue
            """,
            [waiting_seconds],
        )
        return dict(cursor.fetchall())


def measure_queues() -> dict[str, QueueState]:
    """Every queue as it is now, the empty ones too."""
    with connections["dispatch"].cursor() as cursor:
        cursor.execute(
            """
            SELECT queue,
                   count(*) FILTER (WHERE status = 'queued'),
                   extract(epoch FROM max(clock_timestamp() - run_after) FILTER (WHERE status = 'queued'))::float8,
                   count(*) FILTER (WHERE status = 'running')
            FROM synthesis_job
            WHERE status = 'running'
               OR (status = 'queued' AND run_after <= clock_timestamp() AND deadline_at > clock_timestamp())
            GROUP BY queue
            """
        )
        found = {queue: QueueState(due, oldest or 0.0, running) for queue, due, oldest, running in cursor.fetchall()}
    return {str(queue): QueueState(0, 0.0, 0) for queue, _ in SynthesisJob._meta.get_field("queue").flatchoices} | found


def find_overdue_jobs(*, limit: int) -> list[tuple[UUID, UUID]]:
    """(tenant, job) of jobs whose lease or deadline is over by the database's clock."""
    with connections["dispatch"].cursor() as cursor:
        cursor.execute(
            """
            SELECT tenant_id, id FROM synthesis_job
            WHERE (status = 'running' AND (lease_until < clock_timestamp() OR deadline_at < clock_timestamp()))
               OR (status = 'queued' AND deadline_at < clock_timestamp())
            ORDER BY id LIMIT %s
            """,
            [limit],
        )
        return [(row[0], row[1]) for row in cursor.fetchall()]


def list_tenants_with_jobs() -> list[UUID]:
    """Every tenant that ever had a job, in any state."""
    with connections["dispatch"].cursor() as cursor:
        cursor.execute("SELECT DISTINCT tenant_id FROM synthesis_job ORDER BY tenant_id")
        return [row[0] for row in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference that `reconcile` found."""

    rule: str
    tenant_id: UUID
    message: str

    def __str__(self) -> str:
        return f"{self.rule} tenant {self.tenant_id}: {self.message}"


def find_ledger_differences() -> Iterator[Finding]:
    """R3: one usage entry for each job that succeeded, or ended early with a delivered mark, and none for others.

    Its units are the quote, or the mark. Reads all tenants by the staff connection.
    """
    with connections["staff"].cursor() as cursor:
        cursor.execute(
            """
            WITH owed AS (
                SELECT tenant_id, id, CASE status WHEN 'succeeded' THEN billable_chars ELSE delivered_chars END AS units
                FROM synthesis_job
                WHERE kind <> 'prepare'
                  AND (status = 'succeeded' OR (status = 'cancelled' AND delivered_chars > 0))
            ), charged AS (
                SELECT tenant_id, job_id AS id, sum(units) AS units, count(*) AS entries
                FROM billing_ledgerentry WHERE kind = 'usage' GROUP BY tenant_id, job_id
            )
            SELECT coalesce(owed.tenant_id, charged.tenant_id), coalesce(owed.id, charged.id),
                   owed.units, charged.units, charged.entries
            FROM owed FULL JOIN charged ON charged.tenant_id = owed.tenant_id AND charged.id = owed.id
            WHERE owed.units IS DISTINCT FROM charged.units OR charged.entries <> 1
            ORDER BY 1, 2
            """
        )
        for tenant_id, job_id, owed, charged, entries in cursor.fetchall():
            message = f"job {job_id} owes {owed or 0} units, {entries or 0} entries charge {charged or 0}"
            yield Finding("R3", tenant_id, message)


def find_reservation_differences() -> Iterator[Finding]:
    """R4: a held reservation for each job that has not ended, and none for others. By the staff connection."""
    with connections["staff"].cursor() as cursor:
        cursor.execute(
            """
            WITH open AS (
                SELECT tenant_id, id, status, billable_chars FROM synthesis_job
                WHERE kind <> 'prepare' AND status IN ('queued', 'running')
            ), held AS (
                SELECT tenant_id, job_id AS id, sum(units) AS units FROM billing_reservation
                WHERE state = 'held' GROUP BY tenant_id, job_id
            )
            SELECT coalesce(open.tenant_id, held.tenant_id), coalesce(open.id, held.id), open.billable_chars, held.units
            FROM open FULL JOIN held ON held.tenant_id = open.tenant_id AND held.id = open.id
            WHERE open.billable_chars IS DISTINCT FROM held.units
            ORDER BY 1, 2
            """
        )
        for tenant_id, job_id, quoted, held in cursor.fetchall():
            yield Finding("R4", tenant_id, f"job {job_id} needs {quoted or 0} units held, {held or 0} are")
