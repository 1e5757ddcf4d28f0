"""Log lines: JSON with ids, exceptions as facts, other people's messages without what they were told."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import structlog
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from pytest_django import Settings

from config.logging import configuration, describe_exception, log_uncaught
from synthesis import services, worker
from synthesis.engines.errors import EngineError
from synthesis.engines.fake import FakeEngine
from tests.synthesis.jobs import Customer, must_claim, work
from tests.synthesis.serving import serving, working

SECRET = "Whispered words"


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What is logged from here on at any level, through the service's own formatter."""
    options = dict(configuration(level="DEBUG")["formatters"]["json"])
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(options.pop("()")(**options))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lambda: [json.loads(line) for line in output.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(level)


def test_an_exception_is_what_it_was_and_where(lines: Callable[[], list[dict[str, Any]]]) -> None:
    def speak(text: str) -> None:
        try:
            raise KeyError(text)
        except KeyError as error:
            raise EngineError(f"Cannot say {text}") from error

    try:
        speak(SECRET)
    except EngineError as error:
        structlog.get_logger("synthesis").error("failed", exc_info=error)
    (line,) = lines()
    assert (line["event"], line["level"]) == ("failed", "error")
    assert line["exception"]["type"] == "synthesis.engines.errors.EngineError"
    assert line["exception"]["code"] == EngineError.code
    assert line["exception"]["at"][-1].startswith("tests/config/test_logs.py:")
    assert line["exception"]["at"][-1].endswith(" speak")
    assert line["exception"]["cause"]["type"] == "builtins.KeyError"
    assert SECRET not in json.dumps(line)


@pytest.mark.usefixtures("database")
def test_a_database_error_names_its_constraint_and_not_the_row() -> None:
    with pytest.raises(psycopg.Error) as caught, connections["default"].cursor() as cursor:
        try:
            cursor.execute("SELECT %s::integer", [SECRET])
        except Exception as error:
            raise error.__cause__ from None  # type: ignore[misc]
    assert SECRET in str(caught.value)
    described = describe_exception(caught.value)
    assert described["sqlstate"] == "22P02"
    assert SECRET not in json.dumps(described)


def test_messages_about_the_installation_are_kept() -> None:
    assert describe_exception(ImproperlyConfigured("ENGINE must be one of"))["message"] == "ENGINE must be one of"
    try:
        psycopg.connect("postgresql://nobody:geheim@127.0.0.1:1/none", connect_timeout=2)
    except psycopg.OperationalError as error:
        described = describe_exception(error)
    assert "port 1" in described["message"]
    with pytest.raises(OSError, match="customer") as caught:
        Path("/no/such/file of a customer").read_bytes()
    described = describe_exception(caught.value)
    assert described["errno"] == "ENOENT"
    assert "file of a customer" not in json.dumps(described)


def test_foreign_lines_are_templates(lines: Callable[[], list[dict[str, Any]]]) -> None:
    foreign = logging.getLogger("somebody.elses")
    foreign.warning("speaking %s took %d ms", SECRET, 12)
    foreign.warning("speaking %(text)s", {"text": SECRET})
    foreign.warning(f"speaking {SECRET}")
    logging.getLogger("celery.worker.consumer").warning("Trying again in %s seconds", "2.00")
    logging.getLogger("kombu.transport").debug("< TEXT %s", SECRET)
    logging.getLogger("uvicorn.access").warning("GET %s", SECRET)
    assert [line["event"] for line in lines()] == [
        "speaking [withheld] took 12 ms",
        "speaking %(text)s",
        "[withheld]",
        "Trying again in 2.00 seconds",
        "< TEXT [withheld]",
        "GET [withheld]",
    ]
    assert lines()[0]["at"].startswith("test_logs.py:")


def test_of_urls_only_the_server_remains(lines: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger("synthesis").info(
        "stored", where="https://b.example/t/clip.wav?X-Amz-Signature=1", nested=[{"to": "s3://key:secret@b.example/t"}]
    )
    (line,) = lines()
    assert line["where"] == "https://b.example/[redacted]"
    assert line["nested"] == [{"to": "s3://b.example/[redacted]"}]


def test_what_nobody_catches_becomes_a_line(
    lines: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for module, name in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(module, name, getattr(module, name))  # put back afterwards
    monkeypatch.setattr(logging, "captureWarnings", lambda capture: None)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    log_uncaught()

    def fail() -> None:
        raise ValueError(SECRET)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    assert [line["event"] for line in lines()] == ["uncaught_exception"] * 2
    assert lines()[0]["exception"]["at"][-1].endswith(" fail")
    assert SECRET not in capfd.readouterr().err


# --- ids -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("database")
def test_every_line_of_a_request_and_of_a_job_names_its_ids(
    customer: Customer, settings: Settings, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    with serving(settings) as server, working():
        answer = httpx.post(
            f"{server}/v1/speech",
            json=customer.body(),
            headers={**customer.headers, "X-Request-Id": "request-of-the-test"},
        )
        job_id = answer.headers["x-job-id"]
        httpx.get(f"{server}/v1/jobs/{job_id}", headers=customer.headers)
        httpx.get(f"{server}/v1/voices", headers=customer.headers)
    tenant_id = str(customer.tenant.id)
    requests = [line for line in lines() if line["event"] == "request"]
    assert [(line["route"], line.get("tenant_id"), line.get("job_id")) for line in requests] == [
        ("/v1/speech", tenant_id, job_id),
        ("/v1/jobs/<str:job_id>", tenant_id, job_id),
        ("/v1/voices", tenant_id, None),
    ]
    assert requests[0]["request_id"] == "request-of-the-test"
    (ended,) = [line for line in lines() if line["event"] == "attempt_ended"]
    assert (ended["tenant_id"], ended["job_id"], ended["status"]) == (tenant_id, job_id, "succeeded")


@pytest.mark.usefixtures("database")
def test_a_thread_of_a_job_names_it_too(
    customer: Customer, lines: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(claim: services.Claim) -> services.LeaseState:
        raise ConnectionError(SECRET)

    job = customer.submit()
    claim = must_claim()
    monkeypatch.setattr(worker, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(services, "heartbeat", fail)
    worker.use_engine(FakeEngine(segment_seconds=0.1))
    worker.process(claim)
    failed = [line for line in lines() if line["event"] == "heartbeat_failed"]
    assert failed
    assert {(line["job_id"], line["attempt"]) for line in failed} == {(str(job.id), 1)}


@pytest.mark.usefixtures("database")
def test_ids_of_one_job_are_not_on_the_next_lines(
    customer: Customer, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    customer.submit()
    work()
    structlog.get_logger("synthesis").info("afterwards")
    assert "job_id" not in lines()[-1]
