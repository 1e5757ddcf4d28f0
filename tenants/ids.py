"""Server-made ids: UUIDv7 (RFC 9562, section 5.7), so that rows of one time lie together and no one can guess them."""

from __future__ import annotations

import secrets
import time
from uuid import UUID


def new_id() -> UUID:
    """48 bits of milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | secrets.randbits(80)
    value = value & ~(0xF << 76) | (0x7 << 76)  # version 7
    value = value & ~(0x3 << 62) | (0x2 << 62)  # variant of RFC 9562
    return UUID(int=value)
