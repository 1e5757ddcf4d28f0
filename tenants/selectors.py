"""Reads of tenants and keys."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from tenants.models import Tenant


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What authentication needs of one key, before any tenant is known."""

    id: UUID
    tenant_id: UUID
    tenant_status: str
    digest: bytes
    pepper_version: int
    scopes: tuple[str, ...]
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None


def find_api_key(*, prefix: str) -> StoredKey | None:
    """The one row behind a key's public id.

    `auth_key` is a SECURITY DEFINER function: the only hole in row security, one row wide.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, tenant_id, tenant_status, digest, pepper_version, scopes, expires_at, revoked_at"
            " FROM auth_key(%s)",
            [prefix],
        )
        row = cursor.fetchone()
    if row is None:
        return None
    return StoredKey(row[0], row[1], row[2], bytes(row[3]), row[4], tuple(row[5]), row[6], row[7])


def list_tenants() -> list[Tenant]:
    """For commands and the admin, which see all tenants; by slug."""
    return list(Tenant.objects.using("staff").order_by("slug"))


def get_tenant_by_slug(slug: str) -> Tenant:
    """For commands and the admin, which see all tenants. Raises Tenant.DoesNotExist."""
    return Tenant.objects.using("staff").get(slug=slug)
