"""What a place for objects can do, and the one that is a folder. The other, a bucket, is in `bucket.py`.

Keys come from `storage.TenantStorage`, already checked: nobody else holds a store.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One line of a listing."""

    key: str
    size_bytes: int
    modified_at: dt.datetime  # aware


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """Parts of an object that is not one yet, and never will be when its writer was killed. They are paid for."""

    key: str
    upload_id: str
    begun_at: dt.datetime  # aware


@dataclass(frozen=True, slots=True)
class PresignedUpload:
    """A PUT that anybody who holds it may make once or more before it expires. `headers` have to be sent with it."""

    url: str
    headers: dict[str, str]


class ObjectStore(Protocol):
    """Missing objects raise FileNotFoundError, a bucket out of reach raises StorageUnavailableError."""

    def put(self, key: str, body: IO[bytes]) -> None:
        """Store a new object, from the body's beginning, in pieces. Raises FileExistsError when the key is taken."""

    def open(self, key: str) -> File[bytes]:
        """A binary file that seeks without reading what lies between."""

    def size(self, key: str) -> int: ...

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """A missing object is no error."""

    def list_objects(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose key begins with `prefix`, which ends in a slash; in no promised order."""

    def list_uploads(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """What was begun below `prefix` and not completed. In a folder, such a torso is an object."""

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Delete its parts; an upload that has ended meanwhile is no error."""

    def presign_download(
        self, key: str, *, expires_seconds: int, content_type: str, content_disposition: str
    ) -> str | None:
        """None where nobody but us can reach the objects."""

    def presign_upload(self, key: str, *, expires_seconds: int, content_type: str) -> PresignedUpload | None:
        """None where nobody but us can reach the objects."""


class FolderStore:
    """Objects as files. It has no URLs: a file of this machine is served by the application."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # 0600: clips and artifacts are nobody else's business on a shared host.
        self._files = FileSystemStorage(location=root, file_permissions_mode=0o600)

    def put(self, key: str, body: IO[bytes]) -> None:
        if self._files.exists(key):
            raise FileExistsError(key)
        stored = self._files.save(key, File(body))
        if stored != key:  # lost a race: another name was chosen
            self._files.delete(stored)
            raise FileExistsError(key)

    def open(self, key: str) -> File[bytes]:
        if not self.exists(key):
            raise FileNotFoundError(key)
        return self._files.open(key, "rb")

    def size(self, key: str) -> int:
        if not self.exists(key):
            raise FileNotFoundError(key)
        return self._files.size(key)

    def exists(self, key: str) -> bool:
        return Path(self._files.path(key)).is_file()  # a folder is no object

    def delete(self, key: str) -> None:
        if self.exists(key):
            self._files.delete(key)

    def list_objects(self, prefix: str) -> Iterator[StoredObject]:
        for folder, _, names in os.walk(self._root / prefix):
            for name in names:
                path = Path(folder, name)
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue  # deleted since the folder was read
                modified_at = dt.datetime.fromtimestamp(status.st_mtime, dt.UTC)
                yield StoredObject(path.relative_to(self._root).as_posix(), status.st_size, modified_at)

    def list_uploads(self, prefix: str) -> Iterator[UnfinishedUpload]:
        return iter(())

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        raise AssertionError("a folder has no unfinished uploads")

    def presign_download(
        self, key: str, *, expires_seconds: int, content_type: str, content_disposition: str
    ) -> str | None:
        return None

    def presign_upload(self, key: str, *, expires_seconds: int, content_type: str) -> PresignedUpload | None:
        return None
