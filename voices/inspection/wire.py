"""How `voices.intake` and the inspection program talk.

Question: one message on a SOCK_SEQPACKET pair, JSON, with two descriptors: the upload (read-only) and the pipe for the
answer. Answer, on that pipe: a 4-byte length, JSON of that length, then the chosen window as little-endian 16-bit PCM.
A child that died leaves no answer but a death note: the length 0 and the signal as 4 bytes, written by its parent.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from voices.inspection.limits import ProcessLimits

MAX_QUESTION_BYTES = 4096
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Question:
    """`declared_extension` with its dot, lower case; both declarations empty when the client said nothing."""

    declared_extension: str
    declared_content_type: str
    limits: ProcessLimits

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, message: bytes) -> Question:
        data = json.loads(message)
        return cls(**{**data, "limits": ProcessLimits(**data["limits"])})


@dataclass(frozen=True, slots=True)
class Answer:
    """`facts` is the JSON of the answer, None for a child that died; `pcm` is empty unless the clip was accepted."""

    facts: dict[str, Any] | None
    pcm: bytes = b""
    death_signal: int = 0


def pack_answer(facts: Mapping[str, Any], pcm: bytes = b"") -> bytes:
    header = json.dumps(facts, allow_nan=False).encode()
    return _LENGTH.pack(len(header)) + header + pcm


def pack_death_note(signal_number: int) -> bytes:
    return _LENGTH.pack(0) + _LENGTH.pack(signal_number)


def unpack_answer(message: bytes) -> Answer:
    """Raises ValueError for what neither a child nor its parent would write."""
    try:
        (length,) = _LENGTH.unpack_from(message)
        if length == 0:
            return Answer(facts=None, death_signal=_LENGTH.unpack_from(message, _LENGTH.size)[0])
        facts = json.loads(message[_LENGTH.size : _LENGTH.size + length])
    except struct.error as error:
        raise ValueError("short answer") from error
    if not isinstance(facts, dict):
        raise ValueError("an answer is an object")
    return Answer(facts=facts, pcm=message[_LENGTH.size + length :])
