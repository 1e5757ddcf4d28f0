"""Prometheus metrics of this process. Routes are labels, tenants are not: numbers per tenant live in SQL."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

REQUESTS = Counter("http_requests_total", "Answered requests.", ("method", "route", "status"))
REQUEST_SECONDS = Histogram(
    "http_request_seconds",
    "Seconds from the request to the head of its answer.",
    ("method", "route"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def count_request(*, method: str, route: str, status: int, seconds: float) -> None:
    known = method if method in _METHODS else "OTHER"  # made-up methods would make a label each
    REQUESTS.labels(known, route, str(status)).inc()
    REQUEST_SECONDS.labels(known, route).observe(seconds)


def metrics(request: HttpRequest) -> HttpResponse:
    """The text format that Prometheus scrapes."""
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)
