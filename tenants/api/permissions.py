"""Scopes of API keys, per method of a view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from tenants.api.caller import require_scope

if TYPE_CHECKING:
    from rest_framework.views import APIView


class HasScope(BasePermission):
    """The view names what each method needs: `required_scopes = {"GET": Scope.VOICES_READ}`."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        scopes: dict[str, Any] = view.required_scopes  # type: ignore[attr-defined]
        if request.method in scopes:  # other methods are answered 405 by the view
            require_scope(request.user, scopes[request.method])  # type: ignore[arg-type]
        return True
