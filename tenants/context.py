"""The current tenant and request of this thread or asyncio task."""

from __future__ import annotations

from contextvars import ContextVar
from uuid import UUID

from tenants.errors import OutsideTenantScopeError

_current: ContextVar[UUID | None] = ContextVar("cantoria_tenant", default=None)
request_id: ContextVar[str] = ContextVar("cantoria_request_id", default="")  # set by tenants.api.request_ids


def current_tenant_id() -> UUID | None:
    """The tenant whose scope is open here, or None."""
    return _current.get()


def require_tenant_id() -> UUID:
    """The tenant whose scope is open here. Raises OutsideTenantScopeError."""
    tenant_id = _current.get()
    if tenant_id is None:
        raise OutsideTenantScopeError("no tenant_scope is open here")
    return tenant_id


def current_request_id() -> str:
    """The id of the request being answered, or an empty string outside one."""
    return request_id.get()
