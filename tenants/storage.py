"""Object storage of one tenant: no key outside its prefix is ever read, written or deleted.

Keys: `tenants/{tenant}/{kind}/{yyyy}/{mm}/{object}[/{attempt}-{fence}].{ext}`; no part of them is made by a user.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Final, Literal
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, Storage
from django.utils import timezone

from tenants.errors import StorageKeyRefusedError

Kind = Literal["clips", "prepared", "artifacts", "exports"]

_MAX_KEY_BYTES: Final = 512
_PART: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*")


@lru_cache(maxsize=4)
def _backend(url: str) -> Storage:
    """The django-storages or file-system backend that STORAGE_URL names."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        # 0600: clips and artifacts are nobody else's business on a shared host.
        return FileSystemStorage(location=Path(unquote(parts.path)), file_permissions_mode=0o600)
    if parts.scheme == "s3":
        from storages.backends.s3 import S3Storage

        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        backend: Storage = S3Storage(
            bucket_name=parts.netloc,
            endpoint_url=query.get("endpoint"),
            region_name=query.get("region"),
            file_overwrite=False,
            default_acl=None,
        )
        return backend
    raise ImproperlyConfigured("STORAGE_URL must begin with file:// or s3://")


class TenantStorage:
    """The only way to the object store. Every key is checked against the tenant's prefix first."""

    def __init__(self, tenant_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.prefix = f"tenants/{tenant_id}/"
        self._storage = _backend(settings.STORAGE_URL)

    def make_key(self, kind: Kind, object_id: UUID, extension: str, *, attempt: str | None = None) -> str:
        """A key for a new object. `attempt` is `{attempt}-{fence}` of a job, so that no attempt overwrites another."""
        now = timezone.now()
        name = f"{object_id}/{attempt}.{extension}" if attempt else f"{object_id}.{extension}"
        return self._checked(f"{self.prefix}{kind}/{now:%Y}/{now:%m}/{name}")

    def save(self, key: str, content: bytes | IO[bytes]) -> None:
        """Store a new object. Raises FileExistsError when the key is taken: nothing is ever overwritten."""
        key = self._checked(key)
        if self._storage.exists(key):
            raise FileExistsError(key)
        body = ContentFile(content) if isinstance(content, bytes) else File(content)
        stored = self._storage.save(key, body)
        if stored != key:  # lost a race: the backend chose another name
            self._storage.delete(stored)
            raise FileExistsError(key)

    def open(self, key: str) -> File[bytes]:
        """A binary file. Raises FileNotFoundError."""
        return self._storage.open(self._checked(key), "rb")

    def read(self, key: str) -> bytes:
        """The whole object. Raises FileNotFoundError."""
        with self.open(key) as stored:
            content: bytes = stored.read()
        return content

    def size(self, key: str) -> int:
        return self._storage.size(self._checked(key))

    def exists(self, key: str) -> bool:
        return self._storage.exists(self._checked(key))

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        self._storage.delete(self._checked(key))

    def list_keys(self, kind: Kind) -> Iterator[str]:
        """Every key of one kind, in order of folders."""
        folders = [f"{self.prefix}{kind}"]
        while folders:
            folder = folders.pop(0)
            try:
                names, files = self._storage.listdir(folder)
            except FileNotFoundError:
                continue
            yield from (f"{folder}/{name}" for name in sorted(files))
            folders.extend(f"{folder}/{name}" for name in sorted(names))

    def _checked(self, key: str) -> str:
        inside = key.removeprefix(self.prefix)
        if inside == key or len(key.encode("utf-8", "surrogatepass")) > _MAX_KEY_BYTES:
            raise StorageKeyRefusedError("storage key outside the tenant's prefix")
        # Every part begins with a letter or digit: no "..", no empty part, no control character, no odd slash.
        if not all(_PART.fullmatch(part) for part in inside.split("/")):
            raise StorageKeyRefusedError("malformed storage key")
        return key
