"""Object storage of one tenant: no key outside its prefix is ever read, written or deleted.

Keys: `tenants/{tenant}/{kind}/{yyyy}/{mm}/{object}[/{attempt}-{fence}].{ext}`; no part of them is made by a user.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import IO, Final, Literal
from uuid import UUID

import structlog
from django.conf import settings
from django.core.files.base import File
from django.utils import timezone
from django.utils.http import content_disposition_header

from tenants.errors import StorageKeyRefusedError
from tenants.object_stores import FolderStore, ObjectStore, PresignedUpload, StoredObject, UnfinishedUpload
from tenants.storage_url import FolderLocation, parse_storage_url

log = structlog.get_logger(__name__)

Kind = Literal["clips", "prepared", "artifacts", "exports"]

PRESIGNED_SECONDS: Final = 300
MAX_PRESIGNED_SECONDS: Final = 3_600
_MAX_KEY_BYTES: Final = 512
_PART: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*")


@lru_cache(maxsize=4)
def open_store(url: str) -> ObjectStore:
    """What STORAGE_URL names; one for all tenants and threads of this process."""
    location = parse_storage_url(url)
    if isinstance(location, FolderLocation):
        return FolderStore(location.root)
    from tenants.bucket import BucketStore  # boto3 is of the s3 extra

    return BucketStore(location)


class TenantStorage:
    """The only way to the object store. Every key is checked against the tenant's prefix first."""

    def __init__(self, tenant_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.prefix = f"tenants/{tenant_id}/"
        self._store = open_store(settings.STORAGE_URL)

    def make_key(self, kind: Kind, object_id: UUID, extension: str, *, attempt: str | None = None) -> str:
        """A key for a new object. `attempt` is `{attempt}-{fence}` of a job, so that no attempt overwrites another."""
        now = timezone.now()
        name = f"{object_id}/{attempt}.{extension}" if attempt else f"{object_id}.{extension}"
        return self._checked(f"{self.prefix}{kind}/{now:%Y}/{now:%m}/{name}")

    def save(self, key: str, content: bytes | IO[bytes]) -> None:
        """Store a new object; a file is read from its beginning, in pieces, and never held whole in memory.

        Raises FileExistsError when the key is taken: nothing is ever overwritten.
        """
        self._store.put(self._checked(key), io.BytesIO(content) if isinstance(content, bytes) else content)

    def open(self, key: str) -> File[bytes]:
        """A binary file, read in pieces; `seek` is cheap. Raises FileNotFoundError."""
        return self._store.open(self._checked(key))

    def read(self, key: str) -> bytes:
        """The whole object. Raises FileNotFoundError."""
        with self.open(key) as stored:
            content: bytes = stored.read()
        return content

    def size(self, key: str) -> int:
        """In bytes. Raises FileNotFoundError."""
        return self._store.size(self._checked(key))

    def exists(self, key: str) -> bool:
        return self._store.exists(self._checked(key))

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        self._store.delete(self._checked(key))

    def list_keys(self, kind: Kind) -> Iterator[str]:
        """Every key of one kind; in no promised order."""
        return (stored.key for stored in self.list_objects(kind))

    def list_objects(self, kind: Kind | None = None) -> Iterator[StoredObject]:
        """Every object of one kind, or of the tenant, also those that somebody else's program put under the prefix.

        A key that no other method here would take is passed over, and logged.
        """
        listed = self._store.list_objects(f"{self.prefix}{kind}/" if kind else self.prefix)
        return (stored for stored in listed if self._is_ours(stored.key))

    def list_uploads(self) -> Iterator[UnfinishedUpload]:
        """Every upload of the tenant that was begun and is not completed; none in a folder."""
        return (upload for upload in self._store.list_uploads(self.prefix) if self._is_ours(upload.key))

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Delete the parts of an unfinished upload; whoever is still at it will fail."""
        self._checked(upload.key)
        self._store.abort_upload(upload)

    def presign_download(
        self, key: str, *, content_type: str, filename: str, expires_seconds: int = PRESIGNED_SECONDS
    ) -> str | None:
        """A URL that gives this one object to whoever holds it: as a download, under a name and type of our choice.

        Does not ask whether the object exists. None with file://, which has no URLs: stream it through the application.
        """
        key = self._checked(key)
        _check_expiry(expires_seconds)
        disposition = content_disposition_header(True, "".join(filter(str.isprintable, filename)))
        assert disposition is not None
        return self._store.presign_download(
            key, expires_seconds=expires_seconds, content_type=content_type, content_disposition=disposition
        )

    def presign_upload(
        self, key: str, *, content_type: str, expires_seconds: int = PRESIGNED_SECONDS
    ) -> PresignedUpload | None:
        """A PUT that stores this one object. None with file://. Raises FileExistsError when the key is taken.

        It caps neither the size nor the number of uploads before it expires: measure and hash what came before a row
        names it. For the function, the key is that of one attempt, so nothing of another attempt can be replaced.
        """
        key = self._checked(key)
        _check_expiry(expires_seconds)
        if self._store.exists(key):
            raise FileExistsError(key)
        return self._store.presign_upload(key, expires_seconds=expires_seconds, content_type=content_type)

    def _is_ours(self, key: str) -> bool:
        try:
            self._checked(key)
        except StorageKeyRefusedError:
            log.warning("foreign_object", tenant_id=str(self.tenant_id), storage_key=repr(key))
            return False
        return True

    def _checked(self, key: str) -> str:
        inside = key.removeprefix(self.prefix)
        if inside == key or len(key.encode("utf-8", "surrogatepass")) > _MAX_KEY_BYTES:
            raise StorageKeyRefusedError("storage key outside the tenant's prefix")
        # Every part begins with a letter or digit: no "..", no empty part, no control character, no odd slash.
        if not all(_PART.fullmatch(part) for part in inside.split("/")):
            raise StorageKeyRefusedError("malformed storage key")
        return key


def _check_expiry(seconds: int) -> None:
    assert 1 <= seconds <= MAX_PRESIGNED_SECONDS, "a presigned URL is a key that cannot be revoked"
