"""Who uses the service: tenants, their people, their API keys, and what was done in their name."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from tenants.ids import new_id
from tenants.scoping import TenantScopedModel, tenant_and_id_unique


class TenantStatus(models.TextChoices):
    ACTIVE = "active"
    SUSPENDED = "suspended"


class Scope(models.TextChoices):
    """What an API key may do."""

    SPEECH_WRITE = "speech:write"
    VOICES_READ = "voices:read"
    VOICES_WRITE = "voices:write"
    USAGE_READ = "usage:read"


class Tenant(models.Model):
    """A customer of this installation. Row security binds it by its own id."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    slug = models.CharField(
        max_length=63, unique=True, validators=[RegexValidator(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")]
    )
    name = models.CharField(max_length=200)
    status = models.CharField(max_length=16, choices=TenantStatus.choices, default=TenantStatus.ACTIVE)
    # Of the voices that name no model themselves; blank: the installation's.
    voice_model = models.CharField(max_length=64, blank=True, db_default="", default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering: ClassVar = ["slug"]
        constraints: ClassVar = [
            models.CheckConstraint(name="tenant_status_known", condition=Q(status__in=TenantStatus.values)),
        ]

    def __str__(self) -> str:
        return self.slug


class MembershipRole(models.TextChoices):
    ADMIN = "admin"
    MEMBER = "member"


class Membership(TenantScopedModel):
    """A person of the admin site who acts for a tenant."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=MembershipRole.choices)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta(TenantScopedModel.Meta):
        ordering: ClassVar = ["created_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(name="membership_once_per_tenant", fields=["tenant", "user"]),
            models.CheckConstraint(name="membership_role_known", condition=Q(role__in=MembershipRole.values)),
        ]

    def __str__(self) -> str:
        return f"{self.user} ({self.role})"


class ApiKey(TenantScopedModel):
    """A secret a program authenticates with. Only its HMAC is kept; the secret is shown once."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    prefix = models.CharField(max_length=12, unique=True, editable=False)  # the public part: ct_live_<prefix>_...
    digest = models.BinaryField(max_length=32, editable=False)  # HMAC-SHA256 of the whole key
    pepper_version = models.PositiveSmallIntegerField(default=1, editable=False)
    name = models.CharField(max_length=200, blank=True)
    scopes = ArrayField(models.CharField(max_length=32, choices=Scope.choices))
    created_by = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta(TenantScopedModel.Meta):
        verbose_name = "API key"
        ordering: ClassVar = ["-created_at"]
        constraints: ClassVar = [
            tenant_and_id_unique("api_key"),
            models.CheckConstraint(name="api_key_has_scopes", condition=~Q(scopes=[])),
        ]

    def __str__(self) -> str:
        return f"ct_live_{self.prefix}_..."


class IdempotencyRecord(TenantScopedModel):
    """The first answer to a POST with an Idempotency-Key, kept 24 h.

    It is inserted in the transaction that does the work, so a key exists exactly when the work does. `resource_id`
    names the job whose artifact a repeated speech request replays; other answers are stored whole.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    route = models.CharField(max_length=100)  # method and path template
    key = models.CharField(max_length=255)
    fingerprint = models.BinaryField(max_length=32)  # SHA-256 of the request
    resource_id = models.UUIDField(null=True)
    response_status = models.PositiveSmallIntegerField(null=True)
    response_headers = models.JSONField(default=dict)
    response_body = models.JSONField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta(TenantScopedModel.Meta):
        ordering: ClassVar = ["created_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(name="idempotency_key_once_per_route", fields=["tenant", "route", "key"]),
        ]
        indexes: ClassVar = [
            models.Index(name="idempotency_by_resource", fields=["tenant", "resource_id"]),
            models.Index(name="idempotency_by_age", fields=["created_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.route} {self.key}"


class AuditEvent(TenantScopedModel):
    """Who did what in a tenant's name. Rows are added, never changed."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    actor = models.CharField(max_length=200)  # "key:<id>", "staff:<username>", "command:<name>"
    action = models.CharField(max_length=100)  # "voice.create"
    object_type = models.CharField(max_length=50)
    object_id = models.CharField(max_length=64)
    request_id = models.CharField(max_length=64, blank=True)
    details = models.JSONField(default=dict)
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta(TenantScopedModel.Meta):
        ordering: ClassVar = ["-recorded_at"]
        indexes: ClassVar = [models.Index(F("tenant"), F("recorded_at").desc(), name="audit_by_time")]

    def __str__(self) -> str:
        return f"{self.action} {self.object_id}"
