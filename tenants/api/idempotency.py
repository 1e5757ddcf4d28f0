"""`Idempotency-Key`: a repeated POST does its work once (draft-ietf-httpapi-idempotency-key-header).

The record is inserted inside the transaction that does the work. A concurrent twin waits on the unique index until the
first commits, then finds its record; when the first rolls back, the twin does the work. A refused request leaves none.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from django.utils import timezone
from rest_framework.response import Response

from tenants.errors import InvalidRequestError, KeyReusedError
from tenants.models import IdempotencyRecord
from tenants.scoping import tenant_scope

HEADER: Final = "Idempotency-Key"
REPLAYED_HEADER: Final = "Idempotency-Replayed"
LIFETIME: Final = dt.timedelta(hours=24)
_MAX_KEY_CHARS: Final = 255


def read_key(headers: Mapping[str, str]) -> str | None:
    """The request's key, or None. Raises InvalidRequestError for one that is empty, too long or not printable ASCII."""
    key = headers.get(HEADER)
    if key is None:
        return None
    if not key or len(key) > _MAX_KEY_CHARS or not key.isascii() or not key.isprintable():
        raise InvalidRequestError("An Idempotency-Key has 1-255 printable ASCII characters.")
    return key


def fingerprint(*parts: bytes) -> bytes:
    """SHA-256 over the parts of a request, each with its length, so that no two requests run together."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def claim(*, tenant_id: UUID, route: str, key: str, fingerprint: bytes) -> tuple[IdempotencyRecord, bool]:
    """The record of this key, and whether this request is the first. Call it first in the accepting transaction.

    Raises KeyReusedError when the key came with another request before.
    """
    IdempotencyRecord.objects.filter(route=route, key=key, created_at__lt=timezone.now() - LIFETIME).delete()
    record, is_first = IdempotencyRecord.objects.get_or_create(
        route=route, key=key, defaults={"tenant_id": tenant_id, "fingerprint": fingerprint}
    )
    if not is_first:
        _check_same_request(record, fingerprint)
    return record, is_first


def find(*, route: str, key: str, fingerprint: bytes) -> IdempotencyRecord | None:
    """The record of a finished request, asked for before costly work ahead of the claim. Raises KeyReusedError."""
    record: IdempotencyRecord | None = IdempotencyRecord.objects.filter(
        route=route, key=key, created_at__gte=timezone.now() - LIFETIME
    ).first()
    if record is not None:
        _check_same_request(record, fingerprint)
    return record


def _check_same_request(record: IdempotencyRecord, fingerprint: bytes) -> None:
    if not hmac.compare_digest(bytes(record.fingerprint), fingerprint):
        raise KeyReusedError


def finish(
    record: IdempotencyRecord,
    *,
    status: int,
    body: Any,
    headers: Mapping[str, str] | None = None,
    resource_id: UUID | None = None,
) -> None:
    """Keep the answer, in the same transaction as `claim`."""
    record.response_status = status
    record.response_body = body
    record.response_headers = dict(headers or {})
    record.resource_id = resource_id
    record.save(update_fields=["response_status", "response_body", "response_headers", "resource_id"])


def forget(*, tenant_id: UUID, resource_id: UUID) -> None:
    """Drop the records of a job that failed, in the transaction that ends it: a retry starts afresh."""
    IdempotencyRecord.objects.filter(tenant_id=tenant_id, resource_id=resource_id).delete()


def purge_old(*, tenant_id: UUID) -> int:
    """Delete the tenant's records that are past their life; how many there were."""
    with tenant_scope(tenant_id):
        deleted, _ = IdempotencyRecord.objects.filter(created_at__lt=timezone.now() - LIFETIME).delete()
    return deleted


def replay(record: IdempotencyRecord) -> Response:
    """The first answer again."""
    return Response(
        record.response_body,
        status=record.response_status,
        headers={**record.response_headers, REPLAYED_HEADER: "true"},
    )
