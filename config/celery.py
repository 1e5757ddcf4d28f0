"""The Celery app. Start a worker with `CANTORIA_PROCESS=worker celery -A config.celery worker`; see the README."""

from __future__ import annotations

import os
import warnings

from celery import Celery
from celery.platforms import SecurityWarning
from celery.signals import setup_logging, worker_init, worker_ready, worker_shutting_down

from config import heartbeat, metrics

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.production")

# It warns root of pickled messages; we accept JSON only.
warnings.filterwarnings("ignore", category=SecurityWarning)

app = Celery("cantoria")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()
app.autodiscover_tasks(["synthesis", "voices", "billing"])


def _keep_our_logging(**_: object) -> None:
    """Being connected is the point: Celery then leaves Django's logging alone."""


def _serve_metrics(**_: object) -> None:
    metrics.serve_metrics()


def _announce(**_: object) -> None:
    heartbeat.start_beating()


def _withdraw(**_: object) -> None:
    heartbeat.stop_beating()


setup_logging.connect(_keep_our_logging)
worker_init.connect(_serve_metrics)
worker_ready.connect(_announce)
worker_shutting_down.connect(_withdraw)
