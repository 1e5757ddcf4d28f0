"""What Prometheus scrapes: this process's numbers, and where they are served.

Each process shows its own: web and admin on `/metrics`, worker and dispatcher on a small server of their own
(METRICS_HOST, METRICS_PORT). Celery's thread pool is one process, so its counters are plain memory; only web processes
that share one port need the shared folder PROMETHEUS_MULTIPROC_DIR, because any of them may answer the scrape.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    start_http_server,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

# They define their numbers when they are imported: here, so that every process shows all of them.
import billing.metrics  # noqa: F401
import synthesis.metrics  # noqa: F401
import tenants.metrics  # noqa: F401
from config.gpu_metrics import GpuCollector
from config.heartbeat import count_live_workers
from tenants.redis import RedisError

log = structlog.get_logger(__name__)

MULTIPROCESS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own

REQUESTS = Counter("http_requests_total", "Answered requests.", ("method", "route", "status"))
REQUEST_SECONDS = Histogram(
    "http_request_seconds",
    "Seconds from the request to the head of its answer.",
    ("method", "route"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LIVE_GAUGE_FILE: Final = re.compile(r"gauge_live[a-z]+_(\d+)\.db")


def count_request(*, method: str, route: str, status: int, seconds: float) -> None:
    known = method if method in _METHODS else "OTHER"  # made-up methods would make a label each
    REQUESTS.labels(known, route, str(status)).inc()
    REQUEST_SECONDS.labels(known, route).observe(seconds)


def metrics(request: HttpRequest) -> HttpResponse:
    """The text format that Prometheus scrapes."""
    return HttpResponse(generate_latest(exposition()), content_type=CONTENT_TYPE_LATEST)


@cache
def exposition() -> CollectorRegistry:
    """All that this process shows: its own counters, or those of its siblings too, and what is asked at the scrape."""
    registry = CollectorRegistry()
    shared = os.environ.get(MULTIPROCESS_VARIABLE)
    registry.register(_Siblings(Path(shared)) if shared else _Own())
    registry.register(_AskedAtScrape())
    if settings.CANTORIA_PROCESS == "worker":
        registry.register(GpuCollector())
    return registry


def serve_metrics() -> None:
    """For a process without an HTTP server of its own; nothing listens unless METRICS_PORT is set.

    A port that cannot be had is an error in the log and no reason to stop: speech matters more than its numbers, and
    Prometheus reports the target as down.
    """
    if not settings.METRICS_PORT:
        return
    try:
        start_http_server(settings.METRICS_PORT, addr=settings.METRICS_HOST, registry=exposition())
    except OSError as error:
        log.error("metrics_not_served", port=settings.METRICS_PORT, reason=error.strerror or type(error).__name__)
    else:
        log.info("metrics_served", port=settings.METRICS_PORT)


class _Own(Collector):
    """The numbers of this process, with Python's and the operating system's about it."""

    def collect(self) -> Iterable[Metric]:
        return REGISTRY.collect()


class _Siblings(Collector):
    """The numbers of all processes that write to one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        self._forget_the_dead()
        merged: Iterable[Metric] = MultiProcessCollector(CollectorRegistry(), str(self._folder)).collect()  # type: ignore[no-untyped-call]
        return merged

    def _forget_the_dead(self) -> None:
        """A killed process takes its listeners along; its counters stay, so that sums never fall."""
        for path in self._folder.glob("gauge_live*.db"):
            found = _LIVE_GAUGE_FILE.fullmatch(path.name)
            if found and not Path(f"/proc/{found[1]}").exists():
                path.unlink(missing_ok=True)


class _AskedAtScrape(Collector):
    """What no counter holds. Nothing here may fail or wait: Redis is given a tenth of a second."""

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "cantoria_build_info",
            "What runs here; always 1.",
            labels=("version", "revision", "process", "engine", "python"),
        )
        version = str(settings.SPECTACULAR_SETTINGS["VERSION"])
        revision = settings.BUILD_REVISION
        labels = (version, revision, settings.CANTORIA_PROCESS, settings.ENGINE, platform.python_version())
        build.add_metric(labels, 1)
        yield build
        try:
            workers = count_live_workers()
        except RedisError:
            return
        yield GaugeMetricFamily("cantoria_live_workers", "Workers that beat in the last 20 seconds.", value=workers)
