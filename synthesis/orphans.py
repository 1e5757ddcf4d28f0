"""Objects that no row names: left by a process that was killed between storing one and committing its row."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final
from uuid import UUID

from django.utils import timezone

from synthesis import selectors
from tenants.object_stores import StoredObject, UnfinishedUpload
from tenants.scoping import tenant_scope
from tenants.services import record_audit_event
from tenants.storage import TenantStorage
from voices import selectors as voices

BATCH: Final = 500  # objects that are looked up by one query, and deleted under one audit event


def find_orphans(*, tenant_id: UUID, grace: dt.timedelta) -> Iterator[list[StoredObject]]:
    """A tenant's orphans older than `grace`, in batches. Raises StorageUnavailableError.

    The grace is for objects whose row is still to come: it has to be longer than an attempt's last steps may take.
    """
    written_before = timezone.now() - grace
    listed = TenantStorage(tenant_id).list_objects()
    settled = (stored for stored in listed if stored.modified_at < written_before)
    while batch := list(islice(settled, BATCH)):
        keys = {stored.key for stored in batch}
        with tenant_scope(tenant_id):
            keys -= selectors.find_artifact_keys(keys=keys)
            keys -= voices.find_object_keys(keys=keys)
        if orphans := [stored for stored in batch if stored.key in keys]:
            yield orphans


def find_stale_uploads(*, tenant_id: UUID, grace: dt.timedelta) -> list[UnfinishedUpload]:
    """A tenant's uploads that were begun longer than `grace` ago and never completed."""
    begun_before = timezone.now() - grace
    return [upload for upload in TenantStorage(tenant_id).list_uploads() if upload.begun_at < begun_before]


def abort_uploads(*, tenant_id: UUID, uploads: Sequence[UnfinishedUpload], actor: str) -> None:
    """Note it, then delete the parts."""
    _audit(tenant_id, actor, unfinished_uploads=[upload.key for upload in uploads])
    storage = TenantStorage(tenant_id)
    for upload in uploads:
        storage.abort_upload(upload)


def delete_orphans(*, tenant_id: UUID, orphans: Sequence[StoredObject], actor: str) -> None:
    """Note what will be deleted, then delete it: cut short, the note says too much rather than too little."""
    size_bytes = sum(orphan.size_bytes for orphan in orphans)
    _audit(tenant_id, actor, size_bytes=size_bytes, keys=[orphan.key for orphan in orphans])
    storage = TenantStorage(tenant_id)
    for orphan in orphans:
        storage.delete(orphan.key)


def _audit(tenant_id: UUID, actor: str, **details: Any) -> None:
    record_audit_event(
        tenant_id=tenant_id,
        actor=actor,
        action="storage.sweep",
        object_type="tenant",
        object_id=tenant_id,
        **details,
    )
