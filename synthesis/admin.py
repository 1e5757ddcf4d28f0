"""Jobs: where each stands, what it made, why it failed; listen and cancel."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase
from django.urls import URLPattern, path, reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from synthesis import services
from synthesis.contracts import CONTENT_TYPES, AudioFormat
from synthesis.models import JobAttempt, JobStatus, SynthesisJob
from tenants.admin import TENANT_FILTER, ReadOnlyAdmin, audio_response, staff_actor, table_of
from tenants.services import record_audit_event
from tenants.storage import TenantStorage

_STATUS_LABELS = {"succeeded": "success", "running": "info", "failed": "danger", "expired": "danger"}


@admin.register(SynthesisJob)
class JobAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "tenant",
        "voice",
        "kind",
        "state",
        "language",
        "characters",
        "created_at",
        "took",
    )
    list_select_related = ("tenant", "voice")
    list_filter = ("status", "kind", "language", TENANT_FILTER)
    search_fields = ("id", "tenant__slug", "voice__name", "error_code")
    date_hierarchy = "created_at"
    actions = ("cancel",)
    fields = (
        "id", "tenant", "voice", "kind", "status", "error_code", "error_message", "player", "text", "language",
        "asked_for", "counted", "made", "timeline", "attempts_made",
    )  # fmt: skip
    readonly_fields: ClassVar = fields

    # --- columns

    @display(description="status", ordering="status", label=_STATUS_LABELS)  # type: ignore[untyped-decorator]
    def state(self, job: SynthesisJob) -> str:
        return job.status

    @admin.display(description="characters", ordering="billable_chars")
    def characters(self, job: SynthesisJob) -> str:
        return f"{job.billable_chars:,}"

    @admin.display(description="took")
    def took(self, job: SynthesisJob) -> str | None:
        return f"{(job.finished_at - job.created_at).total_seconds():.1f} s" if job.finished_at else None

    # --- the page of one job

    @admin.display(description="asked for")
    def asked_for(self, job: SynthesisJob) -> SafeString:
        if not job.audio_format:
            return format_html("{}", "a voice to be learned")
        return table_of(
            [
                ("format", job.audio_format),
                ("sample rate", f"{job.sample_rate_hz:,} Hz"),
                ("speed", f"{job.speed:g} × normal"),
                ("pitch", f"{job.pitch_semitones:+g} semitones"),
                ("seed", job.seed),
            ]
        )

    @admin.display(description="characters")
    def counted(self, job: SynthesisJob) -> str:
        return f"{job.billable_chars:,} billable, {job.delivered_chars:,} heard while streaming"

    @admin.display(description="made")
    def made(self, job: SynthesisJob) -> SafeString:
        rows: list[tuple[str, object]] = [("engine", f"{job.engine} {job.engine_version}")] if job.engine else []
        if job.audio_frames is not None and job.sample_rate_hz:
            rows.append(("segments", job.segments))
            rows.append(("length", f"{job.audio_frames / job.sample_rate_hz:.2f} s"))
        if job.artifact_bytes is not None:
            rows.append(("size", f"{job.artifact_bytes / 1000:,.0f} kB"))
        return table_of(rows)

    @admin.display(description="audio")
    def player(self, job: SynthesisJob) -> SafeString:
        if not job.artifact_key:
            return format_html("{}", "none")
        return format_html(
            '<audio controls preload="none" src="{}"></audio>', reverse("admin:synthesis_job_audio", args=[job.id])
        )

    @admin.display(description="timeline")
    def timeline(self, job: SynthesisJob) -> SafeString:
        steps: list[tuple[str, Any]] = [
            ("last claimed", job.started_at),
            ("first audio", job.first_audio_at),
            ("cancel asked", job.cancel_requested_at),
            ("finished", job.finished_at),
        ]
        later = ((name, f"{(at - job.created_at).total_seconds():.2f} s later") for name, at in steps if at is not None)
        return table_of([("accepted", date_format(job.created_at, "DATETIME_FORMAT")), *later])

    @admin.display(description="attempts")
    def attempts_made(self, job: SynthesisJob) -> SafeString:
        rows = JobAttempt.all_tenants.using("staff").filter(job=job)
        return table_of(
            (
                f"{row.attempt}. on {row.worker_id}",
                (row.outcome or "running")
                + (f", {row.engine_seconds:.2f} s of the engine" if row.engine_seconds is not None else ""),
            )
            for row in rows
        )

    @admin.action(description="Cancel the chosen jobs", permissions=["cancel"])
    def cancel(self, request: HttpRequest, rows: QuerySet[SynthesisJob]) -> None:
        def act(job: SynthesisJob) -> None:
            services.cancel_job(tenant_id=job.tenant_id, job_id=job.id)

        unfinished = rows.filter(status__in=[JobStatus.QUEUED, JobStatus.RUNNING])
        self.apply(request, unfinished, act, done="Cancelled")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("synthesis.change_synthesisjob")

    def get_urls(self) -> list[URLPattern]:
        audio = path("<uuid:job_id>/audio", self.admin_site.admin_view(self.audio_view), name="synthesis_job_audio")
        return [audio, *super().get_urls()]

    def audio_view(self, request: HttpRequest, job_id: UUID) -> HttpResponseBase:
        """What the job made. Listening is audited."""
        job = self.get_queryset(request).filter(id=job_id).exclude(artifact_key="").first()
        if job is None or not self.has_view_permission(request, job):
            raise Http404
        record_audit_event(
            tenant_id=job.tenant_id,
            actor=staff_actor(request),
            action="job.listen",
            object_type="job",
            object_id=job.id,
        )
        audio = TenantStorage(job.tenant_id).open(job.artifact_key)
        return audio_response(request, audio, content_type=CONTENT_TYPES[AudioFormat(job.audio_format)])
