"""The first wall between tenants: `tenant_scope` and a manager that raises outside it.

The second wall is PostgreSQL's row security (`tenants.rls`), which reads the setting that `tenant_scope` makes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

from django.db import connections, models, transaction

from tenants.context import _current, require_tenant_id
from tenants.errors import TenantScopeConflictError

Model_co = TypeVar("Model_co", bound=models.Model, covariant=True)


@contextmanager
def tenant_scope(tenant_id: UUID) -> Iterator[None]:
    """Open a transaction bound to one tenant.

    Nested: the same tenant is fine, another tenant raises. The setting is local to the transaction, so it never
    leaves through the connection pool; what runs later (`on_commit`, a lazy queryset, a generator) opens its own.
    """
    open_tenant = _current.get()
    if open_tenant is not None and open_tenant != tenant_id:
        raise TenantScopeConflictError("another tenant's scope is open here")
    token = _current.set(tenant_id)
    try:
        # durable=False: a nested scope is a savepoint, and the setting survives its release (measured).
        with transaction.atomic():
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant_id)])
            yield
    finally:
        _current.reset(token)


class TenantManager(models.Manager[Model_co]):
    """Only the rows of the tenant in scope. Outside a scope it raises: 0 rows would hide the bug."""

    def get_queryset(self) -> models.QuerySet[Model_co]:
        return super().get_queryset().filter(tenant_id=require_tenant_id())


class TenantScopedModel(models.Model):
    """A row that belongs to one tenant.

    `objects` sees the tenant in scope; `all_tenants` is for staff, dispatch and migration connections, and row
    security still binds it anywhere else.
    """

    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.PROTECT, related_name="+")

    objects: TenantManager[Any] = TenantManager()
    all_tenants: models.Manager[Any] = models.Manager()

    class Meta:
        abstract = True
        base_manager_name = "all_tenants"


def tenant_and_id_unique(model_name: str) -> models.UniqueConstraint:
    """The target of composite foreign keys: `(tenant_id, id)`. See `tenants.rls.add_tenant_foreign_key`."""
    return models.UniqueConstraint(name=f"{model_name}_tenant_and_id", fields=["tenant", "id"])
