"""What happens around every request of the web and the admin process."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import cast

import structlog
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase

from config.logging import log_request
from config.metrics import count_request
from tenants.api.caller import Caller


class ObserveRequestsMiddleware:
    """Log and count each request, with the time to the head of its answer. Async views stay on the event loop."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._answer_async(request)
        structlog.contextvars.clear_contextvars()  # of the thread's request before this one
        started = time.perf_counter()
        response = cast(HttpResponseBase, self.get_response(request))
        _observe(request, response, started)
        return response

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        structlog.contextvars.clear_contextvars()
        started = time.perf_counter()
        response = await cast(Awaitable[HttpResponseBase], self.get_response(request))
        _observe(request, response, started)
        return response


def _observe(request: HttpRequest, response: HttpResponseBase, started: float) -> None:
    match = request.resolver_match
    route = f"/{match.route}" if match else "unmatched"  # the pattern: a path may carry a token
    seconds = time.perf_counter() - started
    caller = vars(request).get("user")  # not `request.user`: in the admin that would ask the database
    log_request(
        method=request.method or "",
        route=route,
        status=response.status_code,
        seconds=seconds,
        tenant_id=caller.tenant_id if type(caller) is Caller else None,
    )
    count_request(method=request.method or "", route=route, status=response.status_code, seconds=seconds)
