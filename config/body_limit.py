"""Stop a request body that is too large before anything of it is kept.

Django's ASGI handler spools a whole body to disk before a view or authentication sees the request; this counts the
bytes as they come, in front of it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, Final

from tenants import context
from tenants.api.errors import PROBLEM_TYPE, RequestTooLargeError, problem
from tenants.api.request_ids import HEADER, choose_request_id
from tenants.errors import ApplicationError
from voices.api.uploads import MAX_FORM_BYTES, audio_too_large

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

# A text of 100,000 characters is at most 1.2 MB of escaped JSON.
MAX_BODY_BYTES: Final = 4 << 20
UPLOAD_PATH: Final = "/v1/voices"


class _TooLargeError(Exception):
    """Raised out of `receive`, through Django, to `limit_bodies`."""


def _is_upload(scope: Scope) -> bool:
    return bool(scope["method"] == "POST" and scope["path"] == UPLOAD_PATH)


def _announced_bytes(scope: Scope) -> int:
    """The Content-Length; 0 when there is none or it is no number (the server has checked it then)."""
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


def limit_bodies(application: Application) -> Application:
    """Answer 413 instead of passing on more than the route takes."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        limit = MAX_FORM_BYTES if _is_upload(scope) else MAX_BODY_BYTES
        received = 0
        has_started = False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _TooLargeError
            return message

        async def watched(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        if _announced_bytes(scope) > limit:
            await _refuse(scope, send)
            return
        try:
            await application(scope, counted, watched)
        except _TooLargeError:
            if has_started:
                raise
            await _refuse(scope, send)

    return limited


async def _refuse(scope: Scope, send: Send) -> None:
    error: ApplicationError = (
        audio_too_large()
        if _is_upload(scope)
        else RequestTooLargeError("The request body is too large.", limit_bytes=MAX_BODY_BYTES)
    )
    given = dict(scope["headers"]).get(HEADER.lower().encode(), b"").decode("latin-1")
    context.request_id.set(choose_request_id(given))
    body = json.dumps(problem(error)).encode()
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (HEADER.lower().encode(), context.current_request_id().encode()),
        (b"connection", b"close"),  # what is still coming is not read
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
