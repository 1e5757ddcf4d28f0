"""The dispatcher: rings again for what nobody claimed, and takes jobs away from workers that have gone silent.

With it, losing every doorbell loses nothing. Any number of them may run; none holds anything in memory that matters.
"""

from __future__ import annotations

import signal
import threading
import time
from typing import Any, Final

import structlog
from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError, InterfaceError, close_old_connections, connections

from synthesis import dispatch, metrics, selectors, services
from tenants.api import idempotency

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 1.0
WAIT_BEFORE_RING_SECONDS: Final = 1.0  # a job this young still has its own doorbell
RING_AGAIN_SECONDS: Final = 5.0
RINGS_A_ROUND: Final = 16  # wakes that many threads; each works until nothing is due
REAP_SECONDS: Final = 5.0
PURGE_SECONDS: Final = 3600.0
MEASURE_SECONDS: Final = 5.0


class Dispatcher:
    """What is done at which pace. The first round does all of it."""

    def __init__(self) -> None:
        self._rang_at: dict[str, float] = {}
        self._reaped_at = self._purged_at = self._measured_at = float("-inf")

    def run_round(self) -> None:
        now = time.monotonic()
        if now - self._reaped_at >= REAP_SECONDS:
            self._reaped_at = now
            if reaped := services.reap_jobs():
                log.info("jobs_reaped", jobs=reaped)
        self._ring(now)
        if now - self._purged_at >= PURGE_SECONDS:
            self._purged_at = now
            for tenant_id in selectors.list_tenants_with_jobs():
                idempotency.purge_old(tenant_id=tenant_id)
        if now - self._measured_at >= MEASURE_SECONDS:
            self._measured_at = now
            metrics.show_queues(selectors.measure_queues())
        metrics.note_dispatcher_round()

    def _ring(self, now: float) -> None:
        for queue, due in selectors.count_due_jobs(waiting_seconds=WAIT_BEFORE_RING_SECONDS).items():
            if now - self._rang_at.get(queue, float("-inf")) < RING_AGAIN_SECONDS:
                continue
            self._rang_at[queue] = now
            for _ in range(min(due, RINGS_A_ROUND)):
                if not dispatch.ring(queue=queue):
                    break


class Command(BaseCommand):
    help = "Rings for waiting jobs, takes jobs from lost workers and ends overdue ones, until it is stopped."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="one round, then end")

    def handle(self, *args: Any, **options: Any) -> None:
        dispatcher = Dispatcher()
        if options["once"]:
            dispatcher.run_round()
            return
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        while not stopped.is_set():
            try:
                close_old_connections()
                dispatcher.run_round()
            except (
                DatabaseError,
                InterfaceError,
            ) as error:  # PostgreSQL is restarting: try again, with new connections
                log.warning("dispatch_round_failed", reason=type(error).__name__)
                connections.close_all()
            stopped.wait(ROUND_SECONDS)
