"""The base of the native API's views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

from rest_framework.views import APIView

from tenants.api import schema  # noqa: F401  (registers itself)
from tenants.api.authentication import ApiKeyAuthentication
from tenants.api.caller import Caller
from tenants.api.permissions import HasScope
from tenants.models import Scope


class TenantAPIView(APIView):
    """Authenticated by API key; each method names the scope it needs."""

    authentication_classes = (ApiKeyAuthentication,)
    permission_classes = (HasScope,)
    required_scopes: ClassVar[Mapping[str, Scope]]

    @property
    def caller(self) -> Caller:
        return cast(Caller, self.request.user)
