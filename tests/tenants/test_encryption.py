"""Envelope encryption: what was sealed for one place opens nowhere else, and not at all without its key."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from tenants import encryption
from tenants.encryption import SealBrokenError

KEY_CONTEXT = "tenant|voice"


@pytest.fixture
def wrapped_key() -> bytes:
    return encryption.make_wrapped_key(context=KEY_CONTEXT)


def seal(wrapped_key: bytes, data: bytes = b"a voice") -> bytes:
    return encryption.seal(data, wrapped_key=wrapped_key, key_context=KEY_CONTEXT, context="clip|1")


def test_sealed_data_opens_with_its_key_and_context(wrapped_key: bytes) -> None:
    sealed = seal(wrapped_key)
    assert b"a voice" not in sealed
    opened = encryption.unseal(sealed, wrapped_key=wrapped_key, key_context=KEY_CONTEXT, context="clip|1")
    assert opened == b"a voice"


def test_equal_data_seals_differently(wrapped_key: bytes) -> None:
    assert seal(wrapped_key) != seal(wrapped_key)


@pytest.mark.parametrize("change", ["context", "key_context", "another key", "bytes", "version", "short"])
def test_anything_else_stays_shut(wrapped_key: bytes, change: str) -> None:
    sealed, key_context, context = seal(wrapped_key), KEY_CONTEXT, "clip|1"
    match change:
        case "context":
            context = "clip|2"
        case "key_context":
            key_context = "other|voice"
        case "another key":
            wrapped_key = encryption.make_wrapped_key(context=KEY_CONTEXT)
        case "bytes":
            sealed = sealed[:-1] + bytes([sealed[-1] ^ 1])
        case "version":
            sealed = b"\x02" + sealed[1:]
        case "short":
            sealed = sealed[:20]
    with pytest.raises(SealBrokenError):
        encryption.unseal(sealed, wrapped_key=wrapped_key, key_context=key_context, context=context)


def test_another_master_key_opens_nothing(wrapped_key: bytes, settings: Any) -> None:
    sealed = seal(wrapped_key)
    settings.MASTER_KEY = base64.b64encode(bytes(32)).decode()
    with pytest.raises(SealBrokenError):
        encryption.unseal(sealed, wrapped_key=wrapped_key, key_context=KEY_CONTEXT, context="clip|1")


@pytest.mark.parametrize("master_key", ["not base64!", base64.b64encode(b"short").decode()])
def test_a_malformed_master_key_is_named(settings: Any, master_key: str) -> None:
    settings.MASTER_KEY = master_key
    with pytest.raises(ImproperlyConfigured, match="MASTER_KEY"):
        encryption.make_wrapped_key(context=KEY_CONTEXT)
