"""DRF's side of `tenants.api.caller`."""

from __future__ import annotations

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from tenants.api import caller, throttling
from tenants.api.caller import Caller


class ApiKeyAuthentication(BaseAuthentication):
    """`request.user` is the Caller. Errors are ApplicationErrors, rendered like every other."""

    def authenticate(self, request: Request) -> tuple[Caller, None]:
        found = caller.authenticate(
            request.headers.get("Authorization"), address=caller.remote_address(request._request)
        )
        throttling.take(found)
        return found, None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
