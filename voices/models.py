"""Voices and the proof that they may be used. Audio itself is in object storage, encrypted with the voice's own key."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from tenants.ids import new_id
from tenants.scoping import TenantScopedModel, tenant_and_id_unique


class VoiceStatus(models.TextChoices):
    PREPARING = "preparing"
    READY = "ready"
    FAILED = "failed"
    ERASED = "erased"  # the row stays for jobs and consent; clips, embeddings and the key are gone


class Voice(TenantScopedModel):
    """A voice that a tenant may speak in."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    name = models.CharField(max_length=200)
    description = models.CharField(max_length=2000, blank=True)
    language = models.CharField(max_length=16, blank=True)  # of the reference; blank when unknown
    labels = models.JSONField(default=dict)  # text -> text, the tenant's own
    # An installed model by name; blank: the tenant's, or else the installation's.
    model = models.CharField(max_length=64, blank=True, db_default="", default="")
    status = models.CharField(max_length=16, choices=VoiceStatus.choices, default=VoiceStatus.PREPARING)
    failure_code = models.CharField(max_length=64, blank=True)
    failure_message = models.CharField(max_length=500, blank=True)
    # Raised when the voice's clips change or it is erased: caches name it, so they cannot serve what is gone.
    key_epoch = models.PositiveIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    erased_at = models.DateTimeField(null=True, editable=False)

    class Meta(TenantScopedModel.Meta):
        ordering: ClassVar = ["-created_at", "-id"]
        constraints: ClassVar = [
            tenant_and_id_unique("voice"),
            models.CheckConstraint(name="voice_status_known", condition=Q(status__in=VoiceStatus.values)),
            models.CheckConstraint(
                name="voice_failed_iff_code",
                condition=(Q(status=VoiceStatus.FAILED) & ~Q(failure_code=""))
                | (~Q(status=VoiceStatus.FAILED) & Q(failure_code="")),
            ),
            models.CheckConstraint(
                name="voice_erased_iff_time",
                condition=Q(status=VoiceStatus.ERASED, erased_at__isnull=False)
                | (~Q(status=VoiceStatus.ERASED) & Q(erased_at=None)),
            ),
        ]
        indexes: ClassVar = [
            models.Index(F("tenant"), F("created_at").desc(), F("id").desc(), name="voice_newest_first"),
        ]

    def __str__(self) -> str:
        return self.name


class VoiceKey(TenantScopedModel):
    """The data key of one voice, wrapped by the master key. Deleting the row erases everything sealed with it."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    voice = models.OneToOneField(Voice, on_delete=models.CASCADE, related_name="key", db_constraint=False)
    wrapped_key = models.BinaryField(max_length=128)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantScopedModel.Meta):
        ordering: ClassVar = ["created_at"]

    def __str__(self) -> str:
        return f"key of {self.voice_id}"


class ReferenceClip(TenantScopedModel):
    """The seconds of speech a voice is learned from: our own re-encoded PCM, sealed."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    voice = models.ForeignKey(Voice, on_delete=models.CASCADE, related_name="clips", db_constraint=False)
    storage_key = models.CharField(max_length=512, unique=True)
    key_epoch = models.PositiveIntegerField(default=1, editable=False)  # of the voice when this was sealed
    audio_digest = models.CharField(max_length=64)  # SHA-256 of the stored WAV before sealing, hex
    reference_seconds = models.FloatField()
    sample_rate_hz = models.PositiveIntegerField()
    original_filename = models.CharField(max_length=255, blank=True)
    transcript = models.CharField(max_length=2000, blank=True)
    quality = models.JSONField()  # the quality report of the upload
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantScopedModel.Meta):
        ordering: ClassVar = ["created_at"]
        constraints: ClassVar = [
            tenant_and_id_unique("reference_clip"),
            models.CheckConstraint(
                name="clip_reference_3_to_10_seconds",
                condition=Q(reference_seconds__gte=3, reference_seconds__lte=10),
            ),
        ]
        indexes: ClassVar = [models.Index(name="clip_by_voice", fields=["tenant", "voice"])]

    def __str__(self) -> str:
        return f"{self.reference_seconds:.1f} s of {self.voice_id}"


class ConsentKind(models.TextChoices):
    GIVEN = "given"
    WITHDRAWN = "withdrawn"


class Consent(TenantScopedModel):
    """The speaker's consent. Rows are added, never changed, and outlive the voice: they prove it was allowed."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    voice = models.ForeignKey(Voice, on_delete=models.PROTECT, related_name="consents", db_constraint=False)
    kind = models.CharField(max_length=16, choices=ConsentKind.choices)
    statement = models.CharField(max_length=2000)
    statement_version = models.CharField(max_length=32, blank=True)  # of our own texts; blank for the caller's words
    statement_sha256 = models.CharField(max_length=64)
    speaker = models.CharField(max_length=200, blank=True)
    actor = models.CharField(max_length=200)
    remote_address = models.GenericIPAddressField(null=True)
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta(TenantScopedModel.Meta):
        ordering: ClassVar = ["-recorded_at"]
        constraints: ClassVar = [
            models.CheckConstraint(name="consent_kind_known", condition=Q(kind__in=ConsentKind.values)),
        ]
        indexes: ClassVar = [models.Index(name="consent_by_voice", fields=["tenant", "voice", "recorded_at"])]

    def __str__(self) -> str:
        return f"{self.kind} {self.recorded_at:%Y-%m-%d}"


class PreparedVoice(TenantScopedModel):
    """What one engine version learned from a voice's clips, sealed in object storage."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    voice = models.ForeignKey(Voice, on_delete=models.CASCADE, related_name="prepared", db_constraint=False)
    engine = models.CharField(max_length=64)
    engine_version = models.CharField(max_length=64)
    key_epoch = models.PositiveIntegerField()
    audio_digest = models.CharField(max_length=64)  # of all that it was learned from: clips, transcripts, language
    storage_key = models.CharField(max_length=512, unique=True)
    size_bytes = models.PositiveIntegerField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantScopedModel.Meta):
        ordering: ClassVar = ["-created_at"]
        constraints: ClassVar = [
            tenant_and_id_unique("prepared_voice"),
            models.UniqueConstraint(
                name="prepared_once_per_engine",
                fields=["tenant", "voice", "engine", "engine_version", "key_epoch", "audio_digest"],
            ),
        ]

    def __str__(self) -> str:
        return f"{self.engine} {self.engine_version}"
