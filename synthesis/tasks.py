"""Thin Celery entry points."""

from __future__ import annotations

from celery import shared_task
from celery.signals import worker_init, worker_shutting_down
from django.core.exceptions import ImproperlyConfigured

from synthesis import worker
from synthesis.contracts import WORK_TASK
from synthesis.engines.errors import EngineError


@shared_task(name=WORK_TASK, acks_late=True, ignore_result=True)  # type: ignore[untyped-decorator]
def work(*, queue: str) -> None:
    """Claim and do jobs of `queue` until none is due. Safe to receive twice, late or never."""
    worker.work(queues=[queue])


@worker_init.connect  # type: ignore[untyped-decorator]
def _load_engine(**_: object) -> None:
    """Before the first job, not with it. A worker without its engine ends at once: Celery would go on without."""
    try:
        worker.get_engine()
    except (EngineError, ImproperlyConfigured) as error:
        raise SystemExit(f"cantoria: the engine cannot be loaded: {error}") from error


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop_claiming(**_: object) -> None:
    worker.stop_claiming()
