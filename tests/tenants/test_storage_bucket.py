"""What only a bucket has: keys with a root of their own, presigned URLs, a network that fails, servers with habits."""

from __future__ import annotations

import logging
import socket
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tenants.errors import StorageKeyRefusedError, StorageUnavailableError
from tenants.ids import new_id
from tenants.storage import TenantStorage, open_store
from tests.object_server import BUCKET, Account, ObjectServer

TENANT = uuid.UUID("0198c0de-0000-7000-8000-000000000001")
OTHER = uuid.UUID("0198c0de-0000-7000-8000-000000000002")
OSS = "https://s3.oss-cn-hangzhou-internal.aliyuncs.com"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    server = ObjectServer(tmp_path_factory.mktemp("objects"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def connect(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, dict[str, str]], None]]:
    """Make the application one that was started with this STORAGE_URL and these credentials."""

    def connect(url: str, credentials: dict[str, str]) -> None:
        for name, value in credentials.items():
            monkeypatch.setenv(name, value)
        settings.STORAGE_URL = url
        open_store.cache_clear()

    yield connect
    open_store.cache_clear()


@pytest.fixture
def account(server: ObjectServer, connect: Callable[..., None]) -> Account:
    account = server.add_account(uuid.uuid4().hex)
    connect(server.url(), account.environment())
    return account


def new_key(storage: TenantStorage) -> str:
    return storage.make_key("artifacts", new_id(), "wav", attempt="1-1")


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def fetch(url: str, **changes: Any) -> tuple[int, bytes, dict[str, str]]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **changes), timeout=10) as response:
            return response.status, response.read(), dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, b"", dict(error.headers)


# --- one key and root for each tenant -----------------------------------------------------------------------------


def test_nothing_leaves_the_prefix_of_its_tenant(server: ObjectServer, connect: Callable[..., None]) -> None:
    """Each tenant's process holds a key that opens its own root only: whatever went astray would be missing there."""
    accounts = {tenant: server.add_account(f"{tenant.hex}") for tenant in (TENANT, OTHER)}
    keys: dict[uuid.UUID, list[str]] = {}
    for tenant, account in accounts.items():
        connect(server.url(), account.environment())
        storage = TenantStorage(tenant)
        keys[tenant] = [storage.make_key(kind, new_id(), "x") for kind in ("clips", "prepared", "artifacts", "exports")]
        for key in keys[tenant]:
            storage.save(key, str(tenant).encode())
        upload = storage.presign_upload(extra := new_key(storage), content_type="audio/wav")
        assert upload is not None
        assert fetch(upload.url, data=str(tenant).encode(), method="PUT", headers=upload.headers)[0] == 200
        keys[tenant].append(extra)
        assert sorted(stored.key for stored in storage.list_objects()) == sorted(keys[tenant])
    for tenant, account in accounts.items():
        assert tree(account.bucket_folder) == dict.fromkeys(keys[tenant], str(tenant).encode())
        assert all(key.startswith(f"tenants/{tenant}/") for key in keys[tenant])

    connect(server.url(), accounts[TENANT].environment())
    before = tree(accounts[OTHER].root)
    for key in keys[OTHER]:
        with pytest.raises(StorageKeyRefusedError):
            TenantStorage(TENANT).read(key)
        theirs = TenantStorage(OTHER)  # even a mistake of ours in the tenant's id finds nothing under this key
        with pytest.raises(FileNotFoundError):
            theirs.read(key)
        theirs.delete(key)
    assert list(TenantStorage(OTHER).list_objects()) == []
    assert tree(accounts[OTHER].root) == before


@pytest.mark.parametrize("changes", [{"AWS_SECRET_ACCESS_KEY": "forged"}, {"AWS_ACCESS_KEY_ID": "KEYNOBODY"}])
def test_a_wrong_credential_stores_and_reads_nothing(
    server: ObjectServer, connect: Callable[..., None], changes: dict[str, str]
) -> None:
    account = server.add_account(uuid.uuid4().hex)
    connect(server.url(attempts="1"), {**account.environment(), **changes})
    storage = TenantStorage(TENANT)
    key = new_key(storage)
    for act in (lambda: storage.save(key, b"x"), lambda: storage.read(key), lambda: storage.delete(key),
                lambda: list(storage.list_objects())):  # fmt: skip
        with pytest.raises(StorageUnavailableError):
            act()
    assert tree(account.root) == {}


# --- presigned URLs -----------------------------------------------------------------------------------------------


def test_a_presigned_download_gives_one_object_under_our_name_and_type(account: Account) -> None:
    storage = TenantStorage(TENANT)
    key, other = new_key(storage), new_key(storage)
    storage.save(key, b"sound")
    storage.save(other, b"other")
    url = storage.presign_download(key, content_type="audio/wav", filename='Grüße "1"\r\nX-Evil: 1.wav')
    assert url is not None
    status, body, headers = fetch(url)
    assert (status, body, headers["Content-Type"]) == (200, b"sound", "audio/wav")
    assert headers["Content-Disposition"].startswith("attachment; filename*=utf-8''Gr%C3%BC%C3%9Fe")
    assert "X-Evil" not in headers
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["300"]
    assert fetch(url, headers={"Range": "bytes=1-2"})[1] == b"ou"
    assert fetch(url.replace(key, other))[0] == 403
    assert fetch(url.replace("audio%2Fwav", "text%2Fhtml"))[0] == 403
    assert fetch(url.replace("X-Amz-Expires=300", "X-Amz-Expires=3000"))[0] == 403
    assert fetch(url, method="DELETE")[0] == 403
    assert storage.read(key) == b"sound"


def test_a_presigned_url_ends(account: Account) -> None:
    storage = TenantStorage(TENANT)
    key = new_key(storage)
    storage.save(key, b"sound")
    url = storage.presign_download(key, content_type="audio/wav", filename="a.wav", expires_seconds=1)
    assert url is not None
    assert fetch(url)[0] == 200
    time.sleep(2.1)
    assert fetch(url)[0] in (400, 403)
    for seconds in (0, 3_601):
        with pytest.raises(AssertionError):
            storage.presign_download(key, content_type="audio/wav", filename="a.wav", expires_seconds=seconds)


def test_a_presigned_upload_stores_one_object_of_one_type(account: Account) -> None:
    storage = TenantStorage(TENANT)
    key = new_key(storage)
    upload = storage.presign_upload(key, content_type="audio/wav")
    assert upload is not None
    as_page = {"Content-Type": "text/html"}
    assert fetch(upload.url, data=b"x", method="PUT", headers=as_page)[0] == 403
    elsewhere = upload.url.replace(str(TENANT), str(OTHER))
    assert fetch(elsewhere, data=b"x", method="PUT", headers=upload.headers)[0] == 403
    assert tree(account.root) == {}
    assert fetch(upload.url, data=b"sound", method="PUT", headers=upload.headers)[0] == 200
    assert storage.read(key) == b"sound"
    assert fetch(upload.url)[0] == 403  # it uploads, and reads nothing
    with pytest.raises(FileExistsError):
        storage.presign_upload(key, content_type="audio/wav")


def test_no_url_leads_out_of_the_prefix(account: Account) -> None:
    storage = TenantStorage(TENANT)
    for key in (new_key(TenantStorage(OTHER)), f"tenants/{TENANT}/../{OTHER}/clips/x", "", f"{storage.prefix}a?b=c"):
        with pytest.raises(StorageKeyRefusedError):
            storage.presign_download(key, content_type="audio/wav", filename="a.wav")
        with pytest.raises(StorageKeyRefusedError):
            storage.presign_upload(key, content_type="audio/wav")
    url = storage.presign_download(new_key(storage), content_type="audio/wav", filename="a.wav")
    assert url is not None
    assert urlsplit(url).path.startswith(f"/{BUCKET}/tenants/{TENANT}/artifacts/")


# --- addressing and checksums -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"s3://voices?endpoint={OSS}&region=oss-cn-hangzhou", "https://voices.s3.oss-cn-hangzhou-internal.aliyuncs.com/"),
        ("s3://voices?region=eu-central-1", "https://voices.s3.eu-central-1.amazonaws.com/"),
        ("s3://voices?region=eu-central-1&addressing=path", "https://s3.eu-central-1.amazonaws.com/voices/"),
        ("s3://voices?endpoint=https://s3.example&region=eu-1", "https://s3.example/voices/"),
        ("s3://voices?endpoint=https://s3.example&region=eu-1&addressing=virtual", "https://voices.s3.example/"),
        ("s3://voices?endpoint=https://s3.example", "https://s3.example/voices/"),
    ],
)  # fmt: skip
def test_the_bucket_is_in_the_host_or_in_the_path(connect: Callable[..., None], url: str, expected: str) -> None:
    connect(url, {"AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "secret"})
    storage = TenantStorage(TENANT)
    presigned = storage.presign_download(key := new_key(storage), content_type="audio/wav", filename="a.wav")
    assert presigned is not None
    assert presigned.startswith(f"{expected}{key}?")
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in presigned


def test_a_server_with_the_bucket_in_the_host(
    tmp_path: Path, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OSS: signed for, and found under, `cantoria.objects.test`."""
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: resolve("127.0.0.1" if host == f"{BUCKET}.objects.test" else host, *rest, **more),
    )
    server = ObjectServer(tmp_path, has_bucket_in_host=True)
    account = server.add_account("oss")
    server.start()
    try:
        connect(server.url(host="objects.test", addressing="virtual"), account.environment())
        storage = TenantStorage(TENANT)
        storage.save(key := new_key(storage), b"sound")
        assert storage.read(key) == b"sound"
        assert [stored.key for stored in storage.list_objects()] == [key]
        assert tree(account.bucket_folder) == {key: b"sound"}
    finally:
        server.stop()


class Scripted(BaseHTTPRequestHandler):
    """Keeps the headers of each request, and answers as the test's script says."""

    protocol_version = "HTTP/1.1"
    requests: list[tuple[str, dict[str, str]]]
    content = b""
    knows_ranges = True
    breaks = 0  # downloads that are still to be cut, each after `grace` bytes
    grace = 0

    def log_message(self, *args: Any) -> None: ...

    def keep(self) -> None:
        self.requests.append((self.command, {name.lower(): value for name, value in self.headers.items()}))

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "ETag": '"1"', **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.keep()
        self.answer(404)

    def do_PUT(self) -> None:
        self.keep()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200)

    def do_GET(self) -> None:
        self.keep()
        start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if self.knows_ranges else 0
        body = self.content[start:]
        script = type(self)
        if script.breaks:
            script.breaks -= 1
            self.answer(206 if start else 200, body[: self.grace], **{"Content-Length": str(len(body))})
            self.close_connection = True
        else:
            self.answer(206 if start else 200, body)


@pytest.fixture
def scripted(connect: Callable[..., None]) -> Iterator[type[Scripted]]:
    script = type("Script", (Scripted,), {"requests": []})
    with _served(script) as port:
        connect(
            f"s3://voices?endpoint=http://127.0.0.1:{port}&region=eu-1&attempts=3&read_timeout_seconds=2",
            {"AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "secret"},
        )
        yield script


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *args: Any) -> None:
        """A reader that hangs up is part of the test."""


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    with QuietServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_what_oss_refuses_is_not_sent(scripted: type[Scripted]) -> None:
    storage = TenantStorage(TENANT)
    storage.save(new_key(storage), b"sound" * 1_000)
    (put,) = [headers for method, headers in scripted.requests if method == "PUT"]
    assert put["content-length"] == "5000"
    assert put["content-type"] == "application/octet-stream"
    assert not {"x-amz-trailer", "x-amz-sdk-checksum-algorithm", "transfer-encoding"} & set(put)
    assert not [name for name in put if name.startswith("x-amz-checksum")]
    assert "aws-chunked" not in put.get("content-encoding", "")


# --- a network that fails -----------------------------------------------------------------------------------------


def test_a_download_goes_on_where_the_connection_broke(scripted: type[Scripted]) -> None:
    scripted.content, scripted.breaks, scripted.grace = bytes(range(256)) * 64, 5, 1_000
    storage = TenantStorage(TENANT)
    assert storage.read(new_key(storage)) == scripted.content
    starts = [headers.get("range") for method, headers in scripted.requests if method == "GET"]
    assert starts == [None, *(f"bytes={1_000 * done}-" for done in range(1, 6))]


def test_a_download_that_gets_nowhere_ends(scripted: type[Scripted]) -> None:
    scripted.content, scripted.breaks, scripted.grace = bytes(1_000), 1_000, 0
    storage = TenantStorage(TENANT)
    with pytest.raises(StorageUnavailableError):
        storage.read(new_key(storage))
    assert len(scripted.requests) == 3


def test_a_server_without_ranges_is_not_believed(scripted: type[Scripted]) -> None:
    scripted.content, scripted.knows_ranges = bytes(1_000), False
    storage = TenantStorage(TENANT)
    with storage.open(new_key(storage)) as stored:
        assert stored.read(10) == bytes(10)
        stored.seek(500)
        with pytest.raises(StorageUnavailableError):
            stored.read(10)


def test_an_outage_is_said_to_be_one_and_passes(tmp_path: Path, connect: Callable[..., None]) -> None:
    server = ObjectServer(tmp_path)
    account = server.add_account("outage")
    server.start()
    try:
        connect(server.url(attempts="2", connect_timeout_seconds="0.5"), account.environment())
        storage = TenantStorage(TENANT)
        storage.save(key := new_key(storage), b"sound")
        server.stop()
        started = time.monotonic()
        for act in (storage.open, storage.size, storage.exists, storage.delete):
            with pytest.raises(StorageUnavailableError) as caught:
                act(key)
            assert (caught.value.retryable, caught.value.status) == (True, 503)
        with pytest.raises(StorageUnavailableError):
            storage.save(new_key(storage), b"x")
        with pytest.raises(StorageUnavailableError):
            list(storage.list_objects())
        assert time.monotonic() - started < 20
        server.start()
        assert storage.read(key) == b"sound"
    finally:
        server.stop()


def test_a_silent_server_is_not_waited_for(connect: Callable[..., None]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        connect(
            f"s3://voices?endpoint=http://127.0.0.1:{silent.getsockname()[1]}&attempts=2&read_timeout_seconds=0.3",
            {"AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "secret"},
        )
        started = time.monotonic()
        with pytest.raises(StorageUnavailableError):
            TenantStorage(TENANT).exists(f"tenants/{TENANT}/clips/x")
        assert 0.6 <= time.monotonic() - started < 5


def test_no_log_holds_a_url_or_a_secret(
    account: Account, server: ObjectServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even with every logger at DEBUG, where the SDK prints whole requests."""
    caplog.set_level(logging.DEBUG)
    storage = TenantStorage(TENANT)
    storage.save(key := new_key(storage), b"sound")
    storage.read(key)
    url = storage.presign_download(key, content_type="audio/wav", filename="a.wav")
    assert url is not None
    with pytest.raises(FileNotFoundError):
        storage.read(new_key(storage))
    for canary in ("Signature", "X-Amz-", account.secret_key, account.access_key, str(server.port), "http://"):
        assert canary not in caplog.text


def test_threads_share_one_client(account: Account) -> None:
    """Eight at once, as the threads of a worker: each gets back what it stored."""
    results: dict[int, bytes] = {}

    def store_and_read(number: int) -> None:
        storage = TenantStorage(TENANT)
        key = new_key(storage)
        storage.save(key, bytes([number]) * 100_000)
        results[number] = storage.read(key)

    threads = [threading.Thread(target=store_and_read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: bytes([number]) * 100_000 for number in range(8)}
