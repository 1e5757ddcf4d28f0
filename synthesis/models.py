"""Jobs. PostgreSQL owns the truth: a job is a row with a lease and a fence, and the row is the queue."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from synthesis.contracts import BATCH_QUEUE, SPEECH_QUEUE
from tenants.ids import new_id
from tenants.scoping import TenantScopedModel, tenant_and_id_unique


class JobKind(models.TextChoices):
    SPEECH = "speech"  # somebody listens while it is made
    BATCH = "batch"  # fetched when done
    PREPARE = "prepare"  # learns a voice; free, and not listed in the API


class JobStatus(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL_STATUSES = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED)


class SynthesisJob(TenantScopedModel):
    """One piece of work: queued -> running -> succeeded | failed | cancelled | expired; running -> queued on retry.

    A trigger refuses any other step and any change of an ended row's outcome. `attempt` counts claims, so that a job
    which kills its worker ends as `worker_lost`; `fence` grows with each claim and guards every write of a worker.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    kind = models.CharField(max_length=16, choices=JobKind.choices)
    queue = models.CharField(max_length=16, choices=[(SPEECH_QUEUE, "speech"), (BATCH_QUEUE, "batch")])
    status = models.CharField(max_length=16, choices=JobStatus.choices, default=JobStatus.QUEUED)
    voice = models.ForeignKey("voices.Voice", on_delete=models.PROTECT, related_name="+", db_constraint=False)
    api_key_id = models.UUIDField(null=True)

    # The request (contracts.RenderRequest without the voice's storage key, which is found at the claim)
    text = models.TextField(blank=True)
    language = models.CharField(max_length=16, blank=True)
    audio_format = models.CharField(max_length=8, blank=True)
    sample_rate_hz = models.PositiveIntegerField(null=True)
    speed = models.FloatField(default=1.0)
    pitch_semitones = models.FloatField(default=0.0)
    seed = models.PositiveBigIntegerField(default=0)
    pronunciations = models.JSONField(default=list)  # [[written, spoken], ...]
    billable_chars = models.PositiveIntegerField(default=0)

    # The queue
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    run_after = models.DateTimeField(db_default=Now())
    deadline_at = models.DateTimeField()
    attempt = models.PositiveSmallIntegerField(default=0)
    fence = models.PositiveIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    worker_id = models.CharField(max_length=100, blank=True)
    cancel_requested_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)  # of the last claim
    first_audio_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    # What a listener has wholly received, kept under the fence
    delivered_chars = models.PositiveIntegerField(default=0)

    # The result
    artifact_key = models.CharField(max_length=512, blank=True)
    artifact_sha256 = models.CharField(max_length=64, blank=True)
    artifact_bytes = models.PositiveBigIntegerField(null=True)
    audio_frames = models.PositiveBigIntegerField(null=True)
    segments = models.PositiveIntegerField(null=True)
    marks = models.JSONField(default=list)
    engine = models.CharField(max_length=64, blank=True)
    engine_version = models.CharField(max_length=64, blank=True)
    error_code = models.CharField(max_length=64, blank=True)
    error_message = models.CharField(max_length=500, blank=True)

    class Meta(TenantScopedModel.Meta):
        db_table = "synthesis_job"
        ordering: ClassVar = ["-created_at", "-id"]
        constraints: ClassVar = [
            tenant_and_id_unique("job"),
            models.CheckConstraint(name="job_kind_known", condition=Q(kind__in=JobKind.values)),
            models.CheckConstraint(name="job_status_known", condition=Q(status__in=JobStatus.values)),
            models.CheckConstraint(
                name="job_running_iff_leased",
                condition=Q(status=JobStatus.RUNNING, lease_until__isnull=False)
                | (~Q(status=JobStatus.RUNNING) & Q(lease_until=None)),
            ),
            models.CheckConstraint(
                name="job_finished_iff_terminal",
                condition=Q(status__in=TERMINAL_STATUSES, finished_at__isnull=False)
                | (~Q(status__in=TERMINAL_STATUSES) & Q(finished_at=None)),
            ),
            models.CheckConstraint(
                name="job_succeeded_has_artifact",
                condition=~Q(status=JobStatus.SUCCEEDED)
                | Q(kind=JobKind.PREPARE)
                | (~Q(artifact_key="") & ~Q(artifact_sha256="") & Q(audio_frames__isnull=False)),
            ),
            models.CheckConstraint(
                name="job_failed_iff_error",
                condition=(Q(status__in=[JobStatus.FAILED, JobStatus.EXPIRED]) & ~Q(error_code=""))
                | (~Q(status__in=[JobStatus.FAILED, JobStatus.EXPIRED]) & Q(error_code="")),
            ),
            models.CheckConstraint(
                name="job_speech_is_billable", condition=Q(kind=JobKind.PREPARE) | Q(billable_chars__gt=0)
            ),
            models.CheckConstraint(
                name="job_delivered_within_quote", condition=Q(delivered_chars__lte=F("billable_chars"))
            ),
        ]
        indexes: ClassVar = [
            models.Index(F("tenant"), F("created_at").desc(), F("id").desc(), name="job_newest_first"),
            models.Index(
                name="job_queued", fields=["tenant", "queue", "created_at"], condition=Q(status=JobStatus.QUEUED)
            ),
            models.Index(name="job_running", fields=["tenant", "lease_until"], condition=Q(status=JobStatus.RUNNING)),
            models.Index(name="job_recently_started", fields=["started_at"]),  # who was served lately: fairness
            models.Index(name="job_by_voice", fields=["tenant", "voice"]),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class JobAttempt(TenantScopedModel):
    """One claim of a job and how it ended: our own cost, never billed."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    job = models.ForeignKey(SynthesisJob, on_delete=models.CASCADE, related_name="attempts", db_constraint=False)
    attempt = models.PositiveSmallIntegerField()
    fence = models.PositiveIntegerField()
    worker_id = models.CharField(max_length=100)
    started_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=64, blank=True)  # the job's status, an error code, or lease_lost
    engine_seconds = models.FloatField(null=True)

    class Meta(TenantScopedModel.Meta):
        db_table = "synthesis_job_attempt"
        ordering: ClassVar = ["job", "fence"]
        constraints: ClassVar = [
            models.UniqueConstraint(name="one_attempt_per_fence", fields=["tenant", "job", "fence"])
        ]

    def __str__(self) -> str:
        return f"attempt {self.attempt} of {self.job_id}"
