"""Envelope encryption: data keys wrapped by the master key; AES-256-GCM; erasing a data key erases what it sealed.

Sealed form: one version byte, 12 bytes nonce, ciphertext with its 16-byte tag. `context` is authenticated, not stored:
what was sealed for one tenant, object and kind opens for nothing else.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
DATA_KEY_BYTES: Final = 32


class SealBrokenError(Exception):
    """Wrong key, wrong context or changed bytes."""


def _seal(key: bytes, data: bytes, context: str) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _VERSION + nonce + AESGCM(key).encrypt(nonce, data, context.encode())


def _open(key: bytes, sealed: bytes, context: str) -> bytes:
    if sealed[:1] != _VERSION:
        raise SealBrokenError("unknown version of sealed data")
    nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, context.encode())
    except InvalidTag as error:
        raise SealBrokenError("sealed data does not open with this key and context") from error


@lru_cache(maxsize=4)
def _decode_master_key(encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ImproperlyConfigured("MASTER_KEY is not base64") from error
    if len(key) != DATA_KEY_BYTES:
        raise ImproperlyConfigured("MASTER_KEY must be 32 bytes in base64")
    return key


def make_wrapped_key(*, context: str) -> bytes:
    """A fresh data key, wrapped by the master key."""
    return _seal(_decode_master_key(settings.MASTER_KEY), secrets.token_bytes(DATA_KEY_BYTES), context)


def seal(data: bytes, *, wrapped_key: bytes, key_context: str, context: str) -> bytes:
    """Encrypt `data` with a wrapped data key. `key_context` is the one the key was made with."""
    return _seal(_open(_decode_master_key(settings.MASTER_KEY), wrapped_key, key_context), data, context)


def unseal(sealed: bytes, *, wrapped_key: bytes, key_context: str, context: str) -> bytes:
    """Decrypt what `seal` made. Raises SealBrokenError."""
    return _open(_open(_decode_master_key(settings.MASTER_KEY), wrapped_key, key_context), sealed, context)
