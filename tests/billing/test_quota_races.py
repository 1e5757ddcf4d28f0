"""M1: 64 requests at once for a limit of 10."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from billing import selectors
from billing.errors import InsufficientCreditsError
from billing.models import Reservation
from tenants.scoping import tenant_scope
from tests.billing.factories import close_connections, make_customer
from tests.factories import make_job, make_voice

RACERS = 64
ROUNDS = 4
TEXT = "abc"


def test_a_limit_of_ten_accepts_exactly_ten() -> None:
    # 32 units: ten texts of three, and too few for an eleventh. The first racers also race for the balance row.
    tenants = [make_customer(included_units=30, overage_units=2) for _ in range(ROUNDS)]
    voices = [make_voice(tenant) for tenant in tenants]
    barrier = threading.Barrier(RACERS)

    def run() -> list[int]:
        statuses = []
        try:
            for tenant, voice in zip(tenants, voices, strict=True):
                barrier.wait(timeout=60)
                try:
                    make_job(tenant, voice=voice, text=TEXT)
                except InsufficientCreditsError as error:
                    statuses.append(error.status)
                else:
                    statuses.append(202)
        finally:
            close_connections()
        return statuses

    with ThreadPoolExecutor(RACERS) as pool:
        answers = [future.result() for future in [pool.submit(run) for _ in range(RACERS)]]

    for number, tenant in enumerate(tenants):
        statuses = sorted(answer[number] for answer in answers)
        assert statuses == [202] * 10 + [402] * (RACERS - 10)
        balance = selectors.get_balance(tenant_id=tenant.id)
        assert (balance.reserved, balance.settled, balance.available) == (30, 0, 2)
        with tenant_scope(tenant.id):
            assert Reservation.objects.count() == 10
        assert list(selectors.audit_tenant(tenant_id=tenant.id)) == []
