"""The storage wrapper, over a folder and a real S3 server: nothing outside the tenant's prefix, nothing overwritten."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenants import storage as storage_module
from tenants.errors import StorageKeyRefusedError
from tenants.ids import new_id
from tenants.storage import Kind, TenantStorage, open_store
from tests.object_server import ObjectServer

TENANT = uuid.UUID("0198c0de-0000-7000-8000-000000000001")
OTHER = uuid.UUID("0198c0de-0000-7000-8000-000000000002")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    server = ObjectServer(tmp_path_factory.mktemp("objects"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["file", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds the objects, whichever way they get there."""
    if request.param == "file":
        settings.STORAGE_URL = tmp_path.as_uri()
        return tmp_path
    server: ObjectServer = request.getfixturevalue("server")
    account = server.add_account(uuid.uuid4().hex)
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)
    settings.STORAGE_URL = server.url()
    open_store.cache_clear()  # its client holds the credentials of the test before
    return account.bucket_folder


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.STORAGE_URL = tmp_path.as_uri()
    return tmp_path


def test_what_is_saved_is_read_back_from_the_tenants_folder(root: Path) -> None:
    storage = TenantStorage(TENANT)
    key = storage.make_key("artifacts", new_id(), "wav", attempt="1-3")
    storage.save(key, b"sound")
    assert (storage.read(key), storage.size(key), storage.exists(key)) == (b"sound", 5, True)
    assert (root / key).read_bytes() == b"sound"
    assert list(storage.list_keys("artifacts")) == [key]
    assert list(storage.list_keys("clips")) == []
    assert list(storage.list_uploads()) == []
    storage.delete(key)
    storage.delete(key)
    assert not storage.exists(key)
    assert not (root / key).exists()


def test_files_are_closed_to_other_accounts(folder: Path) -> None:
    storage = TenantStorage(TENANT)
    key = storage.make_key("clips", new_id(), "sealed")
    storage.save(key, b"sound")
    assert (folder / key).stat().st_mode & 0o077 == 0


def test_nothing_is_overwritten(root: Path) -> None:
    storage = TenantStorage(TENANT)
    key = storage.make_key("clips", new_id(), "wav")
    storage.save(key, b"first")
    with pytest.raises(FileExistsError):
        storage.save(key, b"second")
    assert storage.read(key) == b"first"


def test_a_missing_object_is_said_to_be_missing(root: Path) -> None:
    storage = TenantStorage(TENANT)
    there = storage.make_key("clips", new_id(), "wav")
    storage.save(there, b"x")
    beside, elsewhere, folder = (
        storage.make_key("clips", new_id(), "wav"),
        f"{storage.prefix}exports/x",
        Path(there).parent,
    )
    for key in (beside, elsewhere, folder.as_posix()):
        for act in (storage.open, storage.read, storage.size):
            with pytest.raises(FileNotFoundError):
                act(key)
        assert not storage.exists(key)
    for key in (beside, elsewhere):
        storage.delete(key)
    assert storage.read(there) == b"x"


def test_an_empty_object_is_an_object(root: Path) -> None:
    storage = TenantStorage(TENANT)
    key = storage.make_key("clips", new_id(), "wav")
    storage.save(key, b"")
    assert (storage.read(key), storage.size(key), storage.exists(key)) == (b"", 0, True)


@pytest.mark.parametrize(("start", "length"), [(0, 10), (1, 999), (99_990, 50), (100_000, 1), (100_007, 1)])
def test_a_part_is_read_from_where_it_begins(root: Path, start: int, length: int) -> None:
    content = bytes(range(250)) * 400
    storage = TenantStorage(TENANT)
    key = storage.make_key("artifacts", new_id(), "wav")
    storage.save(key, content)
    with storage.open(key) as stored:
        assert stored.seek(start) == start
        assert stored.read(length) == content[start : start + length]
        assert stored.tell() == start + len(content[start : start + length])
        assert stored.seek(0, os.SEEK_END) == len(content)
        assert stored.read(1) == b""
        assert stored.seek(-10, os.SEEK_CUR) == len(content) - 10
        assert stored.read() == content[-10:]
        with pytest.raises((ValueError, OSError)):
            stored.seek(-1)


def test_a_file_is_stored_and_read_in_pieces(root: Path) -> None:
    """48 MiB: six parts of a multipart upload. Neither way may take it whole into memory."""
    size = 48 << 20
    storage = TenantStorage(TENANT)
    key = storage.make_key("artifacts", new_id(), "wav")
    storage.save(storage.make_key("artifacts", new_id(), "wav"), b"imports and clients are paid for before we measure")
    with tempfile.TemporaryFile() as body:
        body.truncate(size)
        body.seek(size - 4)
        body.write(b"tail")  # and left there: a body is stored from its beginning
        tracemalloc.start()
        try:
            storage.save(key, body)
            saving_peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            read, last = 0, b""
            with storage.open(key) as stored:
                while block := stored.read(256 * 1024):
                    read, last = read + len(block), block
            reading_peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (read, last[-4:], storage.size(key)) == (size, b"tail", size)
    assert saving_peak < size * 0.7
    assert reading_peak < 4 << 20


def test_a_listing_is_of_one_tenant_and_whole(root: Path) -> None:
    """1,100 objects are more than one page."""
    mine, theirs = TenantStorage(TENANT), TenantStorage(OTHER)
    keys = {mine.make_key("artifacts", new_id(), "wav", attempt="1-1") for _ in range(1_100)}
    clip, other = mine.make_key("clips", new_id(), "sealed"), theirs.make_key("clips", new_id(), "sealed")
    written_at = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
    for key in {*keys, clip, other}:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(b"12345")
        os.utime(root / key, (written_at.timestamp(), written_at.timestamp()))
    assert sorted(mine.list_keys("artifacts")) == sorted(keys)
    everything = list(mine.list_objects())
    assert sorted(stored.key for stored in everything) == sorted({*keys, clip})
    assert {(stored.size_bytes, stored.modified_at) for stored in everything} == {(5, written_at)}
    assert list(theirs.list_keys("clips")) == [other]


def test_a_listing_passes_over_what_is_not_ours(root: Path) -> None:
    storage = TenantStorage(TENANT)
    key = storage.make_key("clips", new_id(), "sealed")
    (root / key).parent.mkdir(parents=True)
    (root / key).with_name(".DS_Store").write_bytes(b"")
    (root / key).with_name("two words").write_bytes(b"")
    storage.save(key, b"x")
    assert [stored.key for stored in storage.list_objects()] == [key]


def refused_acts(storage: TenantStorage) -> list[Any]:
    return [
        storage.read,
        storage.open,
        storage.size,
        storage.exists,
        storage.delete,
        lambda key: storage.save(key, b"x"),
        lambda key: storage.presign_download(key, content_type="audio/wav", filename="a.wav"),
        lambda key: storage.presign_upload(key, content_type="audio/wav"),
    ]


class Untouched:
    """A store that nobody may ask anything."""

    def __getattr__(self, name: str) -> Any:
        def refuse(*args: Any, **kwargs: Any) -> None:
            raise AssertionError(f"the store was asked to {name}")

        return refuse


OUTSIDE = [
    f"tenants/{OTHER}/clips/2026/01/x.wav",
    f"tenants/{TENANT}",
    f"/tenants/{TENANT}/clips/x",
    f"tenants/{TENANT}x/clips/x",
    f"TENANTS/{TENANT}/clips/x",
    f"tenants/../tenants/{TENANT}/clips/x",
    "clips/x",
    "",
]
MALFORMED = [
    "", ".", "..", "../x", "clips/../../x", "clips//x", "/etc/passwd", "clips/.hidden", "clips/a\0b", "clips/a\nb",
    "clips/%2e%2e/x/..", "clips/\u2215x", "clips\\x", "clips/" + "a" * 600, "clips/x/", "clips/\ud800",
]  # fmt: skip


@pytest.mark.parametrize("key", [*OUTSIDE, *(f"tenants/{TENANT}/{inside}" for inside in MALFORMED)])
def test_a_key_outside_the_prefix_is_refused_before_any_call(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "open_store", lambda url: Untouched())
    storage = TenantStorage(TENANT)
    for act in refused_acts(storage):
        with pytest.raises(StorageKeyRefusedError):
            act(key)
    with pytest.raises(AssertionError, match="asked to"):
        storage.exists(storage.make_key("clips", new_id(), "wav"))


def test_another_tenants_object_cannot_be_reached(root: Path) -> None:
    key = TenantStorage(OTHER).make_key("clips", new_id(), "wav")
    TenantStorage(OTHER).save(key, b"secret")
    for act in refused_acts(TenantStorage(TENANT)):
        with pytest.raises(StorageKeyRefusedError):
            act(key)
    assert TenantStorage(OTHER).read(key) == b"secret"


def test_a_folder_has_no_urls(folder: Path) -> None:
    storage = TenantStorage(TENANT)
    key = storage.make_key("artifacts", new_id(), "wav")
    assert storage.presign_upload(key, content_type="audio/wav") is None
    storage.save(key, b"x")
    assert storage.presign_download(key, content_type="audio/wav", filename="a.wav") is None


ALPHABET = st.sampled_from(
    [*"ab.", "..", "/", "//", "%2e", "%2f", "\0", "\u2215", "\\", "~", " ", str(TENANT), str(OTHER)]
)


@settings(max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(ALPHABET, max_size=8), prefixed=st.booleans())
def test_every_accepted_key_lies_in_the_tenants_folder(folder: Path, parts: list[str], prefixed: bool) -> None:
    key = (f"tenants/{TENANT}/" if prefixed else "") + "".join(parts)
    try:
        TenantStorage(TENANT).exists(key)
    except StorageKeyRefusedError:
        return
    assert (folder / key).resolve().is_relative_to(folder / "tenants" / str(TENANT))


@pytest.mark.parametrize("kind", ["clips", "prepared", "artifacts", "exports"])
def test_a_key_says_what_it_is_and_when_it_was_made(kind: Kind) -> None:
    object_id = new_id()
    key = TenantStorage(TENANT).make_key(kind, object_id, "wav")
    assert key == f"tenants/{TENANT}/{kind}/{dt.datetime.now(dt.UTC):%Y/%m}/{object_id}.wav"
