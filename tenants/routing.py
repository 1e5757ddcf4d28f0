"""Which connection a query uses: the app role inside a tenant scope; in the admin process, staff outside one."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import Model

from tenants.context import current_tenant_id


class TenantRouter:
    """`default` is bound by row security. Only the admin process has `staff`; only migrations run as the owner."""

    def _alias(self, hints: dict[str, Any]) -> str:
        instance = hints.get("instance")
        if instance is not None and instance._state.db is not None:
            return str(instance._state.db)
        if settings.CANTORIA_PROCESS == "admin" and current_tenant_id() is None:
            return "staff"
        return "default"

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        return self._alias(hints)

    def db_for_write(self, model: type[Model], **hints: Any) -> str:
        return self._alias(hints)

    def allow_relation(self, first: Model, second: Model, **hints: Any) -> bool:
        return True  # the aliases are roles of one database

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == "migrate"
