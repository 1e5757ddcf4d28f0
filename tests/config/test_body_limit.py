"""A body that is too large is refused in front of Django, which would spool it to disk first."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from config.body_limit import MAX_BODY_BYTES, limit_bodies
from voices.api.uploads import MAX_FORM_BYTES

BLOCK = bytes(1 << 20)


def ask(path: str, blocks: list[bytes], **headers: str) -> tuple[int, dict[str, Any], int]:
    """Status, problem, and how many body bytes the application was given."""
    sent: list[Any] = []
    given = 0
    waiting = iter(
        [*[{"type": "http.request", "body": b, "more_body": True} for b in blocks], {"type": "http.request"}]
    )

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal given
        while True:
            message = await receive()
            given += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def receive() -> Any:
        return next(waiting)

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": raw}
    asyncio.run(limit_bodies(application)(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"]), given


def test_an_announced_excess_is_refused_before_a_byte_is_read() -> None:
    status, answer, given = ask("/v1/speech", [BLOCK], content_length=str(MAX_BODY_BYTES + 1))
    assert (status, answer["code"], given) == (413, "request_too_large", 0)
    assert len(answer["request_id"]) >= 8


def test_an_unannounced_excess_is_refused_while_it_comes() -> None:
    status, answer, given = ask("/v1/speech", [BLOCK] * 9)
    assert (status, answer["code"]) == (413, "request_too_large")
    assert given <= MAX_BODY_BYTES


def test_an_upload_may_be_larger_and_has_its_own_code() -> None:
    assert ask("/v1/voices", [BLOCK] * 20)[0] == 200
    status, answer, given = ask("/v1/voices", [BLOCK] * 30)
    assert (status, answer["code"]) == (413, "audio_too_large")
    assert given <= MAX_FORM_BYTES


def test_what_fits_passes_untouched() -> None:
    assert ask("/v1/speech", [BLOCK] * 3) == (200, {}, 3 << 20)
