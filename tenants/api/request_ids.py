"""A request id for every answer: taken from the caller when well formed, else minted; in headers, problems and logs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase

from tenants import context
from tenants.ids import new_id

HEADER: Final = "X-Request-Id"
_WELL_FORMED: Final = re.compile(r"[0-9A-Za-z._-]{8,64}")


def choose_request_id(given: str) -> str:
    """The caller's own id when it is well formed, else a new one."""
    return given if _WELL_FORMED.fullmatch(given) else str(new_id())


class RequestIdMiddleware:
    """Sync and async: streaming views must not be wrapped in a thread."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        request_id = choose_request_id(request.headers.get(HEADER, ""))
        if self._is_async:
            return self._answer_async(request, request_id)
        token = context.request_id.set(request_id)
        try:
            response = self.get_response(request)
        finally:
            context.request_id.reset(token)
        assert isinstance(response, HttpResponseBase)
        response[HEADER] = request_id
        return response

    async def _answer_async(self, request: HttpRequest, request_id: str) -> HttpResponseBase:
        context.request_id.set(request_id)  # each request is its own asyncio task: nothing to reset
        response: HttpResponseBase = await self.get_response(request)  # type: ignore[misc]
        response[HEADER] = request_id
        return response
