"""The form of an API key: `ct_live_<12-char id>_<43-char base62 secret><6-char base62 CRC32>`. Pure functions.

The secret has 256 random bits, so one fast keyed hash is right: a slow one would be a denial of service on ourselves.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass
from typing import Final

_BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PATTERN: Final = re.compile(r"ct_live_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")


@dataclass(frozen=True, slots=True)
class GeneratedKey:
    prefix: str
    secret: str  # the whole key, shown once


def _base62(number: int, *, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), width=6)


def generate_key() -> GeneratedKey:
    prefix = _base62(secrets.randbelow(62**12), width=12)
    body = f"ct_live_{prefix}_{_base62(secrets.randbits(256), width=43)}"
    return GeneratedKey(prefix=prefix, secret=body + _checksum(body))


def parse_prefix(key: str) -> str | None:
    """The public id of a well-formed key, or None for typos and noise: no database is asked about those."""
    match = _PATTERN.fullmatch(key)
    if match is None or not hmac.compare_digest(_checksum(key[:-6]), key[-6:]):
        return None
    return match[1]


def digest_key(key: str, *, pepper: bytes) -> bytes:
    return hmac.new(pepper, key.encode(), hashlib.sha256).digest()
