"""Changes to tenants and keys."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models.functions import Now
from django.utils import timezone

from tenants import api_keys
from tenants.context import current_request_id
from tenants.errors import InvalidRequestError, NotFoundError
from tenants.models import ApiKey, AuditEvent, Scope, Tenant, TenantStatus
from tenants.scoping import tenant_scope

PEPPER_VERSION = 1


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key with its secret: the only moment the secret exists outside its owner's hands."""

    api_key: ApiKey
    secret: str


def record_audit_event(
    *,
    tenant_id: UUID,
    actor: str,
    action: str,
    object_type: str,
    object_id: object,
    **details: Any,
) -> None:
    """Note an act, in the transaction of the act."""
    with tenant_scope(tenant_id):
        AuditEvent.objects.create(
            tenant_id=tenant_id,
            actor=actor,
            action=action,
            object_type=object_type,
            object_id=str(object_id),
            request_id=current_request_id(),
            details=details,
        )


def create_tenant(*, slug: str, name: str, actor: str) -> Tenant:
    """A new tenant. Raises InvalidRequestError for a slug that is malformed; IntegrityError for one that is taken."""
    tenant = Tenant(slug=slug, name=name or slug)
    try:
        tenant.clean_fields()
    except ValidationError as error:
        raise InvalidRequestError("A slug has 1-63 lower-case letters, digits and inner hyphens.", slug=slug) from error
    with tenant_scope(tenant.id):
        tenant.save(force_insert=True)
        record_audit_event(
            tenant_id=tenant.id,
            actor=actor,
            action="tenant.create",
            object_type="tenant",
            object_id=tenant.id,
            slug=slug,
        )
    return tenant


def set_tenant_status(*, tenant_id: UUID, status: TenantStatus, actor: str, reason: str) -> None:
    """Suspend or reactivate. Authentication reads the status on every request, so it acts at once."""
    with tenant_scope(tenant_id):
        if not Tenant.objects.filter(id=tenant_id).update(status=status):
            raise NotFoundError("There is no such tenant.")
        record_audit_event(
            tenant_id=tenant_id,
            actor=actor,
            action=f"tenant.{'suspend' if status == TenantStatus.SUSPENDED else 'reactivate'}",
            object_type="tenant",
            object_id=tenant_id,
            reason=reason,
        )


def set_voice_model(*, tenant_id: UUID, model: str, actor: str) -> None:
    """Speak with this model in every voice that names none itself; blank: the installation's. Voices are prepared for
    it when they are next used."""
    with tenant_scope(tenant_id):
        if not Tenant.objects.filter(id=tenant_id).update(voice_model=model):
            raise NotFoundError("There is no such tenant.")
        record_audit_event(
            tenant_id=tenant_id,
            actor=actor,
            action="tenant.set_voice_model",
            object_type="tenant",
            object_id=tenant_id,
            model=model,
        )


def create_api_key(
    *, tenant_id: UUID, name: str, actor: str, scopes: Iterable[str] = Scope.values, expires_in_days: int | None = None
) -> IssuedKey:
    """Issue a key. Raises InvalidRequestError for an unknown scope or a life of less than a day."""
    wanted = list(dict.fromkeys(scopes))
    unknown = [scope for scope in wanted if scope not in Scope.values]
    if unknown or not wanted:
        raise InvalidRequestError("Unknown scope.", unknown_scopes=unknown, known_scopes=Scope.values)
    if expires_in_days is not None and expires_in_days < 1:
        raise InvalidRequestError("A key lives at least one day.", expires_in_days=expires_in_days)
    generated = api_keys.generate_key()
    with tenant_scope(tenant_id):
        key = ApiKey.objects.create(
            tenant_id=tenant_id,
            prefix=generated.prefix,
            digest=api_keys.digest_key(generated.secret, pepper=settings.KEY_PEPPER.encode()),
            pepper_version=PEPPER_VERSION,
            name=name,
            scopes=wanted,
            created_by=actor,
            expires_at=None if expires_in_days is None else timezone.now() + dt.timedelta(days=expires_in_days),
        )
        record_audit_event(
            tenant_id=tenant_id,
            actor=actor,
            action="api_key.create",
            object_type="api_key",
            object_id=key.id,
            scopes=wanted,
        )
    return IssuedKey(api_key=key, secret=generated.secret)


def revoke_api_key(*, tenant_id: UUID, key_id: UUID, actor: str) -> None:
    """Revoke at once: no cache stands before the lookup. Revoking twice keeps the first time."""
    with tenant_scope(tenant_id):
        key = ApiKey.objects.filter(id=key_id).first()
        if key is None:
            raise NotFoundError("There is no such API key.")
        if ApiKey.objects.filter(id=key_id, revoked_at=None).update(revoked_at=Now()):
            record_audit_event(
                tenant_id=tenant_id, actor=actor, action="api_key.revoke", object_type="api_key", object_id=key_id
            )


def note_key_use(*, tenant_id: UUID, key_id: UUID) -> None:
    """Stamp `last_used_at`, at most once a minute per key."""
    with tenant_scope(tenant_id):
        minute_ago = timezone.now() - dt.timedelta(minutes=1)
        stale = ApiKey.objects.filter(id=key_id).exclude(last_used_at__gt=minute_ago)
        stale.update(last_used_at=Now())
