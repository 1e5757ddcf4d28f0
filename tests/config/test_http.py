"""What surrounds every request: health, metrics, documentation, logs."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import redis
from django.db import connections
from django.test import Client
from django.utils.module_loading import import_string
from pytest_django import Settings

from config import heartbeat
from config.logging import configuration, redact
from config.settings import base
from tenants.redis import redis_client as shared_redis_client
from tests.conftest import Servers


@pytest.fixture
def client(database: None, settings: Settings) -> Client:
    settings.MIDDLEWARE = base.WEB_MIDDLEWARE
    return Client(raise_request_exception=False)


@pytest.fixture
def dead_redis(settings: Settings) -> Iterator[None]:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    shared_redis_client.cache_clear()
    yield
    shared_redis_client.cache_clear()


def test_ready_says_what_is_missing(client: Client) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "degraded", "checks": {"database": "ok", "redis": "ok", "workers": "none"}},
    )


def test_ready_with_a_worker(client: Client, redis_client: redis.Redis) -> None:
    heartbeat.start_beating()
    try:
        while not redis_client.exists("workers"):
            pass
        assert client.get("/readyz").json()["status"] == "ok"
    finally:
        heartbeat.stop_beating()
    assert client.get("/readyz").json()["checks"]["workers"] == "none"


def test_without_redis_the_service_is_degraded_not_down(client: Client, dead_redis: None) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]) == (
        200,
        {"database": "ok", "redis": "unavailable", "workers": "unknown"},
    )


def test_without_a_database_it_is_unavailable_but_alive(client: Client, servers: Servers) -> None:
    port = connections["default"].settings_dict["PORT"]
    connections["default"].close()
    connections["default"].settings_dict["PORT"] = "1"
    try:
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200
    finally:
        connections["default"].close()
        connections["default"].settings_dict["PORT"] = port


def test_metrics_count_routes_not_paths(client: Client) -> None:
    client.get("/no/such/place/ct_live_secret")
    client.generic("BREW", "/livez")
    text = client.get("/metrics").content.decode()
    assert 'http_requests_total{method="GET",route="unmatched",status="404"}' in text
    assert 'method="OTHER"' in text
    assert "ct_live_secret" not in text


def test_the_documentation_brings_its_own_files(client: Client) -> None:
    page = client.get("/docs").content.decode()
    for path in [part.split('"')[0] for part in page.split('src="')[1:]]:
        answer = client.get(path)
        assert (answer.status_code, answer["Content-Type"]) == (200, "text/javascript")
    assert "//cdn" not in page
    assert client.get("/static/drf_spectacular_sidecar/../../../manage.py").status_code == 404


def test_the_web_process_has_no_synchronous_middleware() -> None:
    """One synchronous link would put a thread between a streaming view and its listener."""
    for path in base.WEB_MIDDLEWARE:
        assert import_string(path).async_capable, path


@pytest.mark.parametrize(
    ("line", "cleaned"),
    [
        ("key ct_live_AbC123_secretSECRET", "key ct_[redacted]"),
        ("/gpt-sovits/tok3n/tts", "/gpt-sovits/[redacted]/tts"),
        ("redis://:hunter2@127.0.0.1:6379/0", "redis://127.0.0.1:6379/[redacted]"),
        ("postgresql://cantoria_app:hunter2@db/x", "postgresql://db/[redacted]"),
        ("GET https://bucket.example/clip.wav?X-Amz-Signature=abc", "GET https://bucket.example/[redacted]"),
        ("tenant 42 spoke 7 characters", "tenant 42 spoke 7 characters"),
    ],
)
def test_secrets_are_taken_out_of_log_lines(line: str, cleaned: str) -> None:
    assert redact(line) == cleaned


def test_log_lines_are_json_and_hold_no_secret_even_in_tracebacks() -> None:
    formatter_options = dict(configuration(level="INFO")["formatters"]["json"])
    formatter: logging.Formatter = formatter_options.pop("()")(**formatter_options)
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(formatter)
    logger = logging.Logger("somebody.elses")
    logger.addHandler(handler)
    try:
        raise ValueError("bad key ct_live_AbC123_secretSECRET")
    except ValueError:
        logger.exception("calling with %s failed", "ct_test_AbC123_other")
    line = json.loads(output.getvalue())
    assert line["event"] == "calling with [withheld] failed"
    assert line["exception"]["type"] == "builtins.ValueError"
    assert "secretSECRET" not in output.getvalue()
