"""Who calls: plain functions used by DRF views and by async streaming views alike."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from uuid import UUID

import structlog
from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone

from tenants import api_keys, selectors
from tenants.api import throttling
from tenants.errors import (
    AuthenticationError,
    ExpiredKeyError,
    MissingKeyError,
    RevokedKeyError,
    ScopeMissingError,
    TenantSuspendedError,
)
from tenants.models import Scope, TenantStatus
from tenants.services import PEPPER_VERSION, note_key_use

_INVALID_KEY = "This API key is not valid."


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated program. DRF calls it `request.user`."""

    tenant_id: UUID
    key_id: UUID
    scopes: frozenset[str]

    is_authenticated = True  # what DRF asks of a user

    @property
    def actor(self) -> str:
        """How audit events and consents name the caller."""
        return f"key:{self.key_id}"


def remote_address(request: HttpRequest) -> str:
    """The peer's address. Forwarded headers are not believed: a proxy in front must rewrite the peer itself."""
    return str(request.META.get("REMOTE_ADDR") or "")


def authenticate(authorization: str | None, *, address: str) -> Caller:
    """Turn `Authorization: Bearer <key>` into a Caller.

    Raises MissingKeyError, AuthenticationError, RevokedKeyError, ExpiredKeyError (401), TenantSuspendedError (403),
    RateLimitedError after too many failures from one address. The database is asked on every call, so that a
    revocation acts at once; keys with a wrong checksum are refused before it.
    """
    scheme, _, key = (authorization or "").partition(" ")
    key = key.strip()
    if not key or scheme.lower() != "bearer":
        raise MissingKeyError("Send an API key: `Authorization: Bearer ct_live_...`.")
    throttling.refuse_after_failures(address)
    stored = None
    prefix = api_keys.parse_prefix(key)
    if prefix is not None:
        stored = selectors.find_api_key(prefix=prefix)
    digest = api_keys.digest_key(key, pepper=settings.KEY_PEPPER.encode())
    # Compare even when there is nothing to compare with: the answer takes the same time.
    expected = stored.digest if stored is not None and stored.pepper_version == PEPPER_VERSION else bytes(32)
    if not hmac.compare_digest(digest, expected) or stored is None:
        throttling.note_failure(address)
        raise AuthenticationError(_INVALID_KEY)
    now = timezone.now()
    if stored.revoked_at is not None and stored.revoked_at <= now:
        raise RevokedKeyError("This API key was revoked.")
    if stored.expires_at is not None and stored.expires_at <= now:
        raise ExpiredKeyError("This API key has expired.", expired_at=stored.expires_at.isoformat())
    if stored.tenant_status != TenantStatus.ACTIVE:
        raise TenantSuspendedError("This tenant is suspended.")
    if throttling.first_use_this_minute(stored.id):
        note_key_use(tenant_id=stored.tenant_id, key_id=stored.id)
    structlog.contextvars.bind_contextvars(tenant_id=str(stored.tenant_id))  # on every line of this request
    return Caller(tenant_id=stored.tenant_id, key_id=stored.id, scopes=frozenset(stored.scopes))


def require_scope(caller: Caller, scope: Scope) -> None:
    """Raises ScopeMissingError."""
    if scope not in caller.scopes:
        raise ScopeMissingError(needed=scope.value)
