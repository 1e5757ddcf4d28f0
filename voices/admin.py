"""Voices: what was uploaded, how good it is, that it is allowed; listen, withdraw consent, erase."""

from __future__ import annotations

import io
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.db.models import OuterRef, Prefetch, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import display

from tenants.admin import TENANT_FILTER, ReadOnlyAdmin, audio_response, staff_actor, table_of
from tenants.services import record_audit_event
from voices import services
from voices.models import Consent, ConsentKind, PreparedVoice, ReferenceClip, Voice, VoiceStatus

# What was measured, in the order a person asks: the name on the page, the report's field, how its value is written.
_MEASURED = (
    ("score", "score", "{} of 100"),
    ("speech", "speech_seconds", "{:.1f} s"),
    ("used from", "start_seconds", "{:.1f} s"),
    ("used until", "end_seconds", "{:.1f} s"),
    ("recording", "original_seconds", "{:.1f} s"),
    ("silence", "silence_share", "{:.0%}"),
    ("voiced speech", "voiced_share", "{:.0%}"),
    ("clipped samples", "clipping_share", "{:.2%}"),
    ("speech above noise", "snr_db", "{:.1f} dB"),
    ("noise floor", "noise_floor_dbfs", "{:.1f} dBFS"),
    ("level of speech", "active_level_dbfs", "{:.1f} dBFS"),
    ("peak", "peak_dbfs", "{:.1f} dBFS"),
    ("loudness", "loudness_lufs", "{:.1f} LUFS"),
    ("bandwidth", "bandwidth_hz", "{:,} Hz"),
    ("sample rate", "sample_rate_hz", "{:,} Hz"),
    ("channels", "channels", "{}"),
    ("container", "container", "{}"),
    ("codec", "codec", "{}"),
)
_STATUS_LABELS = {"ready": "success", "preparing": "info", "failed": "danger"}
_CONSENT_LABELS = {"given": "success", "withdrawn": "danger", "none": "warning"}


@admin.register(Voice)
class VoiceAdmin(ReadOnlyAdmin):
    list_display = ("name", "tenant", "state", "language", "quality_score", "seconds", "consent", "created_at")
    list_select_related = ("tenant",)
    list_filter = ("status", "language", TENANT_FILTER)
    search_fields = ("name", "id", "tenant__slug")
    date_hierarchy = "created_at"
    actions = ("withdraw_consent", "erase")
    fields = (
        "id", "name", "tenant", "status", "failure_message", "player", "advice", "quality_report", "consents_given",
        "language", "description", "own_labels", "prepared_for", "created_at", "erased_at",
    )  # fmt: skip
    readonly_fields: ClassVar = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Voice]:
        last_consent = Consent.all_tenants.using("staff").filter(voice=OuterRef("pk")).order_by("-recorded_at", "-id")
        clips = ReferenceClip.all_tenants.using("staff").all()
        rows: QuerySet[Voice] = super().get_queryset(request)
        return rows.annotate(last_consent=Subquery(last_consent.values("kind")[:1])).prefetch_related(
            Prefetch("clips", queryset=clips)
        )

    # --- columns

    @display(description="status", ordering="status", label=_STATUS_LABELS)  # type: ignore[untyped-decorator]
    def state(self, voice: Voice) -> str:
        return voice.status

    @admin.display(description="quality, of 100")
    def quality_score(self, voice: Voice) -> str:
        return ", ".join(str(clip.quality.get("score", "")) for clip in voice.clips.all())

    @admin.display(description="reference")
    def seconds(self, voice: Voice) -> str:
        return ", ".join(f"{clip.reference_seconds:.1f} s" for clip in voice.clips.all())

    @display(description="consent", label=_CONSENT_LABELS)  # type: ignore[untyped-decorator]
    def consent(self, voice: Any) -> str:
        return {ConsentKind.GIVEN: "given", ConsentKind.WITHDRAWN: "withdrawn"}.get(voice.last_consent, "none")

    # --- the page of one voice

    @admin.display(description="reference")
    def player(self, voice: Voice) -> SafeString:
        if voice.status == VoiceStatus.ERASED:
            return format_html("{}", "erased")
        return format_html_join(
            "",
            '<audio controls preload="none" src="{}"></audio>',
            (
                (reverse("admin:voices_voice_clip", args=[voice.id, number]),)
                for number, _ in enumerate(voice.clips.all())
            ),
        )

    @admin.display(description="advice")
    def advice(self, voice: Voice) -> SafeString | str:
        messages = [(advice["message"],) for clip in voice.clips.all() for advice in clip.quality.get("advice", [])]
        return format_html_join("", "<p>{}</p>", messages) or "nothing to improve"

    @admin.display(description="quality report")
    def quality_report(self, voice: Voice) -> SafeString:
        return table_of(
            (label, how.format(clip.quality[name]))
            for clip in voice.clips.all()
            for label, name, how in _MEASURED
            if clip.quality.get(name) is not None
        )

    @admin.display(description="labels")
    def own_labels(self, voice: Voice) -> SafeString:
        return table_of(sorted(voice.labels.items()))

    @admin.display(description="consent")
    def consents_given(self, voice: Voice) -> SafeString:
        rows = Consent.all_tenants.using("staff").filter(voice=voice)
        return table_of(
            (
                f"{row.get_kind_display()} {date_format(row.recorded_at, 'DATETIME_FORMAT')}",
                format_html(
                    "<p>{}</p><p>{}</p>",
                    row.statement,
                    f"Speaker: {row.speaker or 'not named'}. Recorded by {row.actor}.",
                ),
            )
            for row in rows
        )

    @admin.display(description="prepared for")
    def prepared_for(self, voice: Voice) -> SafeString:
        rows = PreparedVoice.all_tenants.using("staff").filter(voice=voice)
        return format_html_join(
            "", "<p>{} {}, {} kB</p>", ((r.engine, r.engine_version, f"{r.size_bytes / 1000:.0f}") for r in rows)
        )

    # --- what can be done

    @admin.action(description="Withdraw the consent of the chosen voices", permissions=["erase"])
    def withdraw_consent(self, request: HttpRequest, rows: QuerySet[Voice]) -> None:
        def act(voice: Voice) -> None:
            services.withdraw_consent(tenant_id=voice.tenant_id, voice_id=voice.id, actor=staff_actor(request))

        self.apply(request, rows, act, done="Consent withdrawn")

    @admin.action(description="Erase the chosen voices", permissions=["erase"])
    def erase(self, request: HttpRequest, rows: QuerySet[Voice]) -> HttpResponse | None:
        """Asks first: an erased voice cannot come back."""
        if "confirmed" not in request.POST:
            context = {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": "Erase voices",
                "voices": rows,
                "action_name": "erase",
            }
            return TemplateResponse(request, "voices/admin/confirm_erase.html", context)

        def act(voice: Voice) -> None:
            services.erase_voice(tenant_id=voice.tenant_id, voice_id=voice.id, actor=staff_actor(request))

        self.apply(request, rows, act, done="Erased")
        return None

    def has_erase_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("voices.change_voice")

    def get_urls(self) -> list[URLPattern]:
        clip = path(
            "<uuid:voice_id>/clips/<int:number>.wav",
            self.admin_site.admin_view(self.clip_view),
            name="voices_voice_clip",
        )
        return [clip, *super().get_urls()]

    def clip_view(self, request: HttpRequest, voice_id: UUID, number: int) -> HttpResponseBase:
        """The reference as it was stored. Listening is audited: a voice is personal data."""
        voice = self.get_queryset(request).filter(id=voice_id).exclude(status=VoiceStatus.ERASED).first()
        if voice is None or not self.has_view_permission(request, voice):
            raise Http404
        clips = services.read_reference_clips(tenant_id=voice.tenant_id, voice_id=voice.id)
        if number >= len(clips):
            raise Http404
        record_audit_event(
            tenant_id=voice.tenant_id,
            actor=staff_actor(request),
            action="voice.listen",
            object_type="voice",
            object_id=voice.id,
        )
        return audio_response(request, io.BytesIO(clips[number].wav), content_type="audio/wav")
