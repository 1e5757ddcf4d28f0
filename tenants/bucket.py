"""Objects in a bucket of Amazon S3, of OSS through its S3 interface, or of any server that speaks the same.

django-storages makes the client and uploads; what it would hold whole in memory (a download) or ask once a thread (a
session) is asked of that client here.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Final, cast

import structlog
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files.base import File
from storages.backends.s3 import S3Storage

from tenants.errors import StorageUnavailableError
from tenants.object_stores import PresignedUpload, StoredObject, UnfinishedUpload
from tenants.storage_url import BucketLocation

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = structlog.get_logger(__name__)

PART_BYTES: Final = 8 << 20  # of a multipart upload: one lies in memory at a time; 10,000 of them are the most
_CONNECTIONS: Final = 64  # kept open by a process: each stream that is read holds one
_MISSING: Final = frozenset({"404", "NoSuchKey", "NoSuchUpload", "NotFound"})

# At DEBUG they print whole requests, with the signatures of presigned URLs.
for _name in ("boto3", "botocore", "s3transfer", "urllib3"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class BucketStore:
    """An `ObjectStore`. One client serves all threads."""

    def __init__(self, location: BucketLocation) -> None:
        self._name = location.bucket
        self._attempts = location.attempts
        self._storage = S3Storage(
            bucket_name=location.bucket,
            endpoint_url=location.endpoint,
            region_name=location.region,
            client_config=Config(
                signature_version="s3v4",
                s3={"addressing_style": location.addressing},
                request_checksum_calculation=location.checksums,
                response_checksum_validation=location.checksums,
                connect_timeout=location.connect_timeout_seconds,
                read_timeout=location.read_timeout_seconds,
                retries={"mode": "standard", "total_max_attempts": location.attempts},
                max_pool_connections=_CONNECTIONS,
                tcp_keepalive=True,
            ),
            transfer_config=TransferConfig(
                multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, use_threads=False
            ),
            # Whether a key is taken is asked in `put`; the storage's own answer would be another name.
            file_overwrite=True,
            default_acl=None,
            location="",
            custom_domain=None,
            gzip=False,
            object_parameters={"ContentType": "application/octet-stream"},
        )
        self._client = self._storage.connection.meta.client
        assert self._storage.bucket is not None  # made now: from here on, all threads share the client behind it

    def put(self, key: str, body: IO[bytes]) -> None:
        if self.exists(key):
            raise FileExistsError(key)
        with _translated(key):
            self._storage.save(key, File(body))

    def open(self, key: str) -> File[bytes]:
        reader = _ObjectReader(self._client, bucket=self._name, key=key, attempts=self._attempts)
        return File(cast(IO[bytes], reader))  # no buffer between: the caller's sizes are the sizes asked for

    def size(self, key: str) -> int:
        with _translated(key):
            size: int = self._client.head_object(Bucket=self._name, Key=key)["ContentLength"]
        return size

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def delete(self, key: str) -> None:
        with _translated(key):
            self._storage.delete(key)

    def list_objects(self, prefix: str) -> Iterator[StoredObject]:
        for entry in self._list("list_objects_v2", "Contents", prefix):
            yield StoredObject(entry["Key"], entry["Size"], entry["LastModified"])

    def list_uploads(self, prefix: str) -> Iterator[UnfinishedUpload]:
        with suppress(FileNotFoundError):  # rclone's answer for a bucket that never had one
            for entry in self._list("list_multipart_uploads", "Uploads", prefix):
                yield UnfinishedUpload(entry["Key"], entry["UploadId"], entry["Initiated"])

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        with suppress(FileNotFoundError), _translated(upload.key):
            self._client.abort_multipart_upload(Bucket=self._name, Key=upload.key, UploadId=upload.upload_id)

    def presign_download(
        self, key: str, *, expires_seconds: int, content_type: str, content_disposition: str
    ) -> str | None:
        return self._presign(
            "get_object",
            key,
            expires_seconds,
            ResponseContentType=content_type,
            ResponseContentDisposition=content_disposition,
        )

    def presign_upload(self, key: str, *, expires_seconds: int, content_type: str) -> PresignedUpload | None:
        url = self._presign("put_object", key, expires_seconds, ContentType=content_type)
        return PresignedUpload(url=url, headers={"Content-Type": content_type})

    def _list(self, operation: str, part: str, prefix: str) -> Iterator[Any]:
        pages = iter(self._client.get_paginator(operation).paginate(Bucket=self._name, Prefix=prefix))
        while True:
            with _translated(prefix):
                page = next(pages, None)
            if page is None:
                return
            yield from page.get(part) or ()

    def _presign(self, operation: str, key: str, expires_seconds: int, **parameters: str) -> str:
        with _translated(key):
            url: str = self._client.generate_presigned_url(
                operation,
                Params={"Bucket": self._name, "Key": key, **parameters},
                ExpiresIn=expires_seconds,
            )
        return url


class _ObjectReader(io.RawIOBase):
    """Reads an object through ranges: a seek costs nothing until the next read, which asks from there on.

    A connection that breaks is taken up at the byte reached; `attempts` breaks without a byte between them are the end.
    """

    def __init__(self, client: Any, *, bucket: str, key: str, attempts: int) -> None:
        super().__init__()
        self._client = client
        self._bucket = bucket
        self._key = key
        self._attempts = attempts
        self._position = 0
        with _translated(key):
            first = client.get_object(Bucket=bucket, Key=key)
        self._body: Any = first["Body"]
        self._size: int = first["ContentLength"]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("seek before the beginning")
        if start + offset != self._position:
            self._drop_body()
            self._position = start + offset
        return self._position

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(PART_BYTES), b""))  # not in the small steps of the base class

    def readinto(self, buffer: WriteableBuffer) -> int:
        if self.closed:
            raise ValueError("read of a closed object")
        view = memoryview(buffer)
        wanted = min(len(view), max(self._size - self._position, 0))
        if wanted == 0:
            return 0
        data = self._read(wanted)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._drop_body()
        super().close()

    def _read(self, wanted: int) -> bytes:
        with _translated(self._key):
            for attempt in range(1, self._attempts + 1):
                try:
                    if self._body is None:
                        self._body = self._open_rest()
                    data: bytes = self._body.read(wanted)
                    if data:
                        return data
                except BotoCoreError:
                    if attempt == self._attempts:
                        raise
                self._drop_body()
        log.error("storage_unavailable", reason="object shorter than announced")
        raise StorageUnavailableError

    def _open_rest(self) -> Any:
        rest = self._client.get_object(Bucket=self._bucket, Key=self._key, Range=f"bytes={self._position}-")
        if rest["ContentLength"] != self._size - self._position:  # a server without ranges gives the whole
            rest["Body"].close()
            log.error("storage_unavailable", reason="range ignored")
            raise StorageUnavailableError
        return rest["Body"]

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """What the SDK raises, in our own words: its messages hold URLs."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _MISSING:
            raise FileNotFoundError(key) from None
        reason = code or type(error).__name__
    except (Boto3Error, BotoCoreError) as error:
        reason = type(error).__name__
    else:
        return
    log.error("storage_unavailable", reason=reason)
    raise StorageUnavailableError
