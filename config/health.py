"""Is this process alive, and can the service do its work?"""

from __future__ import annotations

from django.db import DatabaseError, connections
from django.http import HttpRequest, JsonResponse

from config.heartbeat import count_live_workers
from tenants.redis import RedisError


def livez(request: HttpRequest) -> JsonResponse:
    """200 while the process answers. Looks at nothing else: a restart would not cure a database."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> JsonResponse:
    """503 without the database. Without Redis or workers the service is degraded: it accepts jobs, which wait."""
    checks = {"database": _check_database(), **_check_redis_and_workers()}
    if checks["database"] != "ok":
        return JsonResponse({"status": "unavailable", "checks": checks}, status=503)
    status = "ok" if set(checks.values()) == {"ok"} else "degraded"
    return JsonResponse({"status": status, "checks": checks})


def _check_database() -> str:
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return "unavailable"
    return "ok"


def _check_redis_and_workers() -> dict[str, str]:
    try:
        workers = count_live_workers()
    except RedisError:
        return {"redis": "unavailable", "workers": "unknown"}
    return {"redis": "ok", "workers": "ok" if workers else "none"}
