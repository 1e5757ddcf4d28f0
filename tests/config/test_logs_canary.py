"""Canaries: what a customer sends goes through API, worker and every kind of failure, and no sink repeats a word of it.

Sinks are the log at its most talkative level, what Python prints by itself, and the metrics. Spans are none: nothing
here traces.
"""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
from django.db import connection
from prometheus_client import generate_latest
from pytest_django import Settings

from config.logging import configuration
from config.metrics import exposition
from synthesis import services, worker
from synthesis.engines.base import AudioChunk
from synthesis.engines.errors import EngineError
from synthesis.engines.fake import FakeEngine
from synthesis.models import SynthesisJob
from tenants.scoping import tenant_scope
from tenants.storage import TenantStorage
from tests.conftest import Servers
from tests.synthesis.jobs import Customer
from tests.synthesis.serving import serving, working
from tests.voices.uploads import encode, speech

pytestmark = pytest.mark.usefixtures("database")

TEXT = "Zugvogelmond sings at daybreak."
VOICE_NAME = "Quarzlibelle"
TRANSCRIPT = "Nebelkraniche were seen."
FILE_NAME = "Wolkenfisch.wav"
SPOKEN = "zukfohkelmohnt"
URL = "https://bucket.example/tenants/Sternkarpfen/clip.wav?X-Amz-Signature=Moorglanz"
CANARIES = ("zugvogelmond", "quarzlibelle", "nebelkranich", "wolkenfisch", SPOKEN, "sternkarpfen", "moorglanz")


@dataclass
class Sinks:
    """What has come out so far, all of it."""

    log: io.StringIO
    printed: pytest.CaptureFixture[str]
    secrets: tuple[str, ...]

    def check(self, *, events: set[str]) -> None:
        """No sink repeats anything, and the log did speak of what went wrong."""
        log = self.log.getvalue()
        printed = self.printed.readouterr()
        numbers = generate_latest(exposition()).decode()
        for name, said in {"log": log, "stdout": printed.out, "stderr": printed.err, "metrics": numbers}.items():
            for canary in (*CANARIES, *self.secrets):
                found = said.lower().find(canary.lower())
                assert found < 0, f"the {name} repeats it: {said[max(0, found - 300) : found + 100]}"
        assert events <= {json.loads(line)["event"] for line in log.splitlines()}


@pytest.fixture
def sinks(customer: Customer, capfd: pytest.CaptureFixture[str]) -> Iterator[Sinks]:
    options = dict(configuration(level="DEBUG")["formatters"]["json"])
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(options.pop("()")(**options))
    root = logging.getLogger()
    level, others = root.level, root.handlers[:]
    root.handlers = [handler]  # pytest's and the test settings' would print lines of the test's own client
    root.setLevel(logging.DEBUG)
    capfd.readouterr()
    _, _, secret = customer.secret.rpartition("_")
    yield Sinks(output, capfd, (customer.secret, secret))
    root.handlers = others
    root.setLevel(level)


@pytest.fixture
def server(settings: Settings, sinks: Sinks) -> Iterator[str]:
    with serving(settings) as address:
        # This server was told to be silent, and sets its loggers up after Django; in production it is the other way.
        logger = logging.getLogger("uvicorn")
        logger.handlers, logger.propagate = [], True
        logging.getLogger("uvicorn.error").setLevel(logging.DEBUG)
        yield address
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


def speak(server: str, customer: Customer, text: str = TEXT, **changes: Any) -> httpx.Response:
    body = customer.body(text, pronunciations=[{"written": "daybreak", "spoken": SPOKEN}], **changes)
    return httpx.post(f"{server}/v1/speech?note={URL}", json=body, headers=customer.headers, timeout=30)


class Quoting(FakeEngine):
    """An engine whose errors repeat what they were given, as libraries do: in message, notes, cause and locals."""

    def __init__(self, error: type[Exception], *, after_sound: bool = False) -> None:
        super().__init__()
        self._error = error
        self._after_sound = after_sound

    def synthesize(self, text: str, **options: Any) -> Iterator[AudioChunk]:
        chunks = super().synthesize(text, **options)
        if self._after_sound and self.segments_started == 0:
            yield from chunks
            return
        if self._after_sound:
            time.sleep(0.5)  # the listener begins
        words = [text, SPOKEN, URL]
        logging.getLogger("phonemizer").error(f"cannot say {words}")
        logging.getLogger("phonemizer").error("cannot say %s", words)
        logging.getLogger("phonemizer").exception("cannot say %(text)s", {"text": text})
        try:
            raise KeyError(*words)
        except KeyError as error:
            found = self._error(f"cannot say {words}")
            found.add_note(text)
            raise found from error


def test_what_goes_well_is_not_repeated(server: str, customer: Customer, sinks: Sinks) -> None:
    with working():
        made = httpx.post(
            f"{server}/v1/voices",
            data={"name": VOICE_NAME, "transcript": TRANSCRIPT, "language": "en", "consent": "true"},
            files={"audio": (FILE_NAME, encode(speech(4.0)), "audio/wav")},
            headers=customer.headers,
            timeout=30,
        )
        assert made.status_code in (201, 202), made.text
        answer = speak(server, customer)
        assert answer.status_code == 200, answer.text
        for method, path in (("GET", "voices"), ("GET", "jobs"), ("GET", f"jobs/{answer.headers['x-job-id']}/audio")):
            httpx.request(method, f"{server}/v1/{path}", headers=customer.headers)
        batch = httpx.post(f"{server}/v1/jobs", json=customer.body(TEXT), headers=customer.headers)
        assert batch.status_code == 202
    sinks.check(events={"request", "attempt_ended", "voice_learned"})


def test_what_is_refused_is_not_repeated(server: str, customer: Customer, sinks: Sinks) -> None:
    post = {"url": f"{server}/v1/speech", "headers": customer.headers}
    httpx.post(**post, content=f'{{"text": "{TEXT}')  # type: ignore[arg-type]
    httpx.post(**post, json=customer.body(TEXT, language=VOICE_NAME, format=FILE_NAME))  # type: ignore[arg-type]
    httpx.post(**post, json=customer.body(TEXT) | {VOICE_NAME: TRANSCRIPT})  # type: ignore[arg-type]
    httpx.post(f"{server}/v1/speech", json=customer.body(TEXT), headers={"Authorization": f"Bearer {customer.secret}x"})
    httpx.post(
        f"{server}/v1/voices",
        data={"name": VOICE_NAME, "transcript": TRANSCRIPT},
        headers=customer.headers,
        files={"audio": (FILE_NAME, TEXT.encode(), "audio/wav")},
    )
    httpx.get(
        f"{server}/v1/jobs/{FILE_NAME}", params={"cursor": TEXT, "key": customer.secret}, headers=customer.headers
    )
    httpx.get(f"{server}/{VOICE_NAME}/{customer.secret}")
    httpx.get(f"{server}/v1/voices", headers={**customer.headers, "Host": f"{VOICE_NAME}.example"})
    httpx.get(f"{server}/v1/voices", headers={**customer.headers, "X-Request-Id": f"{TEXT} {URL}"})
    sinks.check(events={"request"})


@pytest.mark.parametrize("error", [EngineError, ValueError, OSError, RuntimeError])
def test_an_engine_that_quotes_is_not_repeated(
    server: str, customer: Customer, sinks: Sinks, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "MAX_ATTEMPTS", 1)
    worker.use_engine(Quoting(error))
    with working():
        assert speak(server, customer).status_code == 500
    sinks.check(events={"attempt_failed", "[withheld]", "cannot say [withheld]"})


def test_a_stream_that_breaks_is_not_repeated(server: str, customer: Customer, sinks: Sinks) -> None:
    worker.use_engine(Quoting(ValueError, after_sound=True))
    with working(), pytest.raises(httpx.HTTPError):
        speak(server, customer, " ".join([TEXT] * 8), format="pcm")
    sinks.check(events={"attempt_failed"})


def test_a_storage_that_quotes_is_not_repeated(
    server: str, customer: Customer, sinks: Sinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: TenantStorage, key: str, content: Any) -> None:
        raise ConnectionError(f"PUT {URL}: 403 {key}")

    monkeypatch.setattr(services, "MAX_ATTEMPTS", 1)
    monkeypatch.setattr(TenantStorage, "save", refuse)
    with working():
        speak(server, customer, format="flac")
    sinks.check(events={"attempt_failed"})


def test_a_view_that_quotes_is_not_repeated(
    server: str, customer: Customer, sinks: Sinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*, request: Any, **_: Any) -> SynthesisJob:
        words = (request.text, request.pronunciations, VOICE_NAME, TRANSCRIPT)
        raise RuntimeError(words, customer.secret, URL)

    monkeypatch.setattr(services, "submit_job", fail)
    assert speak(server, customer).status_code == 500
    assert httpx.post(f"{server}/v1/jobs", json=customer.body(TEXT), headers=customer.headers).status_code == 500
    sinks.check(events={"unforeseen_error", "request"})


def test_a_database_that_quotes_is_not_repeated(
    server: str, customer: Customer, sinks: Sinks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL's errors hold the failing row: text, pronunciations and all."""

    def insert(*, tenant_id: Any, request: Any, **_: Any) -> SynthesisJob:
        with tenant_scope(tenant_id), connection.cursor() as cursor:
            cursor.execute("SELECT %s::uuid", [request.text])
        raise AssertionError

    monkeypatch.setattr(services, "submit_job", insert)
    assert speak(server, customer).status_code == 500
    sinks.check(events={"unforeseen_error"})


def test_a_failing_row_is_quoted_by_postgresql(servers: Servers, customer: Customer) -> None:
    """Why the test before this one is about something."""
    job = customer.submit(TEXT)
    with pytest.raises(psycopg.errors.CheckViolation) as caught, psycopg.connect(servers.url("superuser")) as raw:
        raw.execute("UPDATE synthesis_job SET delivered_chars = 1000000 WHERE id = %s", [job.id])
    assert TEXT in str(caught.value)
