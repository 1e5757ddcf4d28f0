"""The storage wrapper: nothing outside the tenant's prefix, nothing overwritten."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenants.errors import StorageKeyRefusedError
from tenants.ids import new_id
from tenants.storage import TenantStorage

TENANT = uuid.UUID("0198c0de-0000-7000-8000-000000000001")
OTHER = uuid.UUID("0198c0de-0000-7000-8000-000000000002")


@pytest.fixture
def root(tmp_path: Path, settings: Any) -> Path:
    settings.STORAGE_URL = tmp_path.as_uri()
    return tmp_path


def test_what_is_saved_is_read_back_from_the_tenants_folder(root: Path) -> None:
    storage = TenantStorage(TENANT)
    key = storage.make_key("artifacts", new_id(), "wav", attempt="1-3")
    storage.save(key, b"sound")
    assert storage.read(key) == b"sound"
    assert (root / key).read_bytes() == b"sound"
    assert (root / key).stat().st_mode & 0o077 == 0
    assert list(storage.list_keys("artifacts")) == [key]
    assert list(storage.list_keys("clips")) == []
    storage.delete(key)
    storage.delete(key)
    assert not storage.exists(key)


def test_nothing_is_overwritten(root: Path) -> None:
    storage = TenantStorage(TENANT)
    key = storage.make_key("clips", new_id(), "wav")
    storage.save(key, b"first")
    with pytest.raises(FileExistsError):
        storage.save(key, b"second")
    assert storage.read(key) == b"first"


def test_another_tenants_key_is_refused(root: Path) -> None:
    key = TenantStorage(OTHER).make_key("clips", new_id(), "wav")
    TenantStorage(OTHER).save(key, b"secret")
    for act in (TenantStorage(TENANT).read, TenantStorage(TENANT).delete, TenantStorage(TENANT).exists):
        with pytest.raises(StorageKeyRefusedError):
            act(key)


@pytest.mark.parametrize(
    "inside",
    ["", ".", "..", "../x", "clips/../../x", "clips//x", "/etc/passwd", "clips/.hidden", "clips/a\0b", "clips/a\nb",
     "clips/%2e%2e/x/..", "clips/\u2215x", "clips\\x", "clips/" + "a" * 600, "clips/x/", "clips/\ud800"],
)  # fmt: skip
def test_malformed_keys_are_refused(root: Path, inside: str) -> None:
    with pytest.raises(StorageKeyRefusedError):
        TenantStorage(TENANT).save(f"tenants/{TENANT}/{inside}", b"x")


ALPHABET = st.sampled_from(
    [*"ab.", "..", "/", "//", "%2e", "%2f", "\0", "\u2215", "\\", "~", " ", str(TENANT), str(OTHER)]
)


@settings(max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(ALPHABET, max_size=8), prefixed=st.booleans())
def test_every_accepted_key_lies_in_the_tenants_folder(root: Path, parts: list[str], prefixed: bool) -> None:
    key = (f"tenants/{TENANT}/" if prefixed else "") + "".join(parts)
    try:
        TenantStorage(TENANT).exists(key)
    except StorageKeyRefusedError:
        return
    assert (root / key).resolve().is_relative_to(root / "tenants" / str(TENANT))
