"""The first wall: `tenant_scope` and the manager that raises outside it."""

from __future__ import annotations

import asyncio
import threading
import uuid

import pytest
from asgiref.sync import sync_to_async

from tenants.context import current_tenant_id
from tenants.errors import OutsideTenantScopeError, TenantScopeConflictError
from tenants.scoping import tenant_scope
from tests.factories import make_tenant, make_voice
from voices.models import Voice

pytestmark = pytest.mark.usefixtures("database")


def test_outside_a_scope_the_manager_raises() -> None:
    with pytest.raises(OutsideTenantScopeError):
        Voice.objects.count()


def test_inside_a_scope_only_its_rows_are_seen() -> None:
    mine, other = make_tenant(), make_tenant()
    voice = make_voice(mine)
    theirs = make_voice(other)
    with tenant_scope(mine.id):
        assert list(Voice.objects.all()) == [voice]
        assert list(Voice.all_tenants.all()) == [voice]  # row security, not the manager
        assert not Voice.all_tenants.filter(id=theirs.id).exists()


def test_nesting_the_same_tenant_is_fine_and_another_raises() -> None:
    mine, other = make_tenant(), make_tenant()
    make_voice(mine)
    with tenant_scope(mine.id):
        with tenant_scope(mine.id):
            pass
        assert Voice.objects.count() == 1
        with pytest.raises(TenantScopeConflictError), tenant_scope(other.id):
            pass
        assert current_tenant_id() == mine.id
    assert current_tenant_id() is None


def test_a_rolled_back_savepoint_keeps_the_outer_scope() -> None:
    mine = make_tenant()
    make_voice(mine)
    with tenant_scope(mine.id):
        with pytest.raises(ZeroDivisionError), tenant_scope(mine.id):
            raise ZeroDivisionError
        assert Voice.objects.count() == 1


def test_a_lazy_queryset_read_after_its_scope_sees_nothing() -> None:
    mine = make_tenant()
    make_voice(mine)
    with tenant_scope(mine.id):
        later = Voice.objects.all()
    assert list(later) == []


def test_threads_and_tasks_have_their_own_scope() -> None:
    tenants = [make_tenant() for _ in range(4)]
    for tenant in tenants:
        make_voice(tenant)
    seen: dict[uuid.UUID, set[uuid.UUID]] = {}

    def look(tenant_id: uuid.UUID) -> None:
        for _ in range(25):
            with tenant_scope(tenant_id):
                seen.setdefault(tenant_id, set()).update(Voice.all_tenants.values_list("tenant_id", flat=True))
        from django.db import connection

        connection.close()

    threads = [threading.Thread(target=look, args=[tenant.id]) for tenant in tenants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {tenant.id: {tenant.id} for tenant in tenants}

    async def both() -> list[int]:
        return await asyncio.gather(*(sync_to_async(count)(tenant.id) for tenant in tenants))

    def count(tenant_id: uuid.UUID) -> int:
        with tenant_scope(tenant_id):
            return Voice.objects.count()

    assert asyncio.run(both()) == [1, 1, 1, 1]
