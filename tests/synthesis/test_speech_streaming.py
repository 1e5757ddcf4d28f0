"""`POST /v1/speech` through a real server and a real worker: what is heard, when, and what it costs."""

from __future__ import annotations

import http.client
import io
import json
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest
import soundfile
from pytest_django import Settings

from synthesis import services
from synthesis.engines.errors import EngineCrashedError, EngineError
from synthesis.engines.fake import FakeEngine
from synthesis.models import JobStatus, SynthesisJob
from tenants.redis import redis_client
from tenants.scoping import tenant_scope
from tenants.storage import TenantStorage
from tests.synthesis.jobs import TEXT, Customer, findings
from tests.synthesis.serving import serving, working

SENTENCES = [f"This is sentence number {number} of the text." for number in range(8)]
LONG = " ".join(SENTENCES)


@pytest.fixture
def server(settings: Settings) -> Iterator[str]:
    with serving(settings) as address:
        yield address


def eventually(is_true: Callable[[], bool], *, seconds: float = 10.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < give_up_at, "it did not come true"
        time.sleep(0.05)


def last_job(customer: Customer) -> SynthesisJob:
    with tenant_scope(customer.tenant.id):
        job: SynthesisJob = SynthesisJob.objects.order_by("-created_at")[0]
    return job


def speak(server: str, customer: Customer, text: str = TEXT, **changes: object) -> httpx.Response:
    headers = {**customer.headers, **changes.pop("headers", {})}  # type: ignore[dict-item]
    return httpx.post(f"{server}/v1/speech", json=customer.body(text, **changes), headers=headers, timeout=30)


def test_the_stream_is_the_artifact(server: str, customer: Customer) -> None:
    with working():
        response = speak(server, customer)
    job = last_job(customer)
    assert response.status_code == 200
    assert response.content == TenantStorage(customer.tenant.id).read(job.artifact_key)
    assert response.headers["content-type"] == "audio/pcm"
    assert response.headers["x-job-id"] == str(job.id)
    assert response.headers["x-characters"] == str(len(TEXT))
    assert response.headers["x-sample-rate"] == "24000"
    assert response.headers["x-engine"] == "parametric"
    assert response.headers["cache-control"] == "no-store"
    assert len(response.headers["x-request-id"]) >= 8
    assert (job.status, customer.charges()) == (JobStatus.SUCCEEDED, {job.id: len(TEXT)})


@pytest.mark.parametrize("audio_format", ["wav", "flac", "mp3", "opus"])
def test_every_format_can_be_streamed(server: str, customer: Customer, audio_format: str) -> None:
    with working():
        response = speak(server, customer, format=audio_format)
    artifact = TenantStorage(customer.tenant.id).read(last_job(customer).artifact_key)
    assert response.status_code == 200
    assert response.content[-20_000:] == artifact[-20_000:]  # heads differ: a stream's says "length unknown"


def test_flac_is_sent_when_it_is_whole(server: str, customer: Customer) -> None:
    """Its header holds the length: readers built on libFLAC refuse a file without."""
    with working():
        response = speak(server, customer, format="flac")
    job = last_job(customer)
    samples, _ = soundfile.read(io.BytesIO(response.content))
    assert len(samples) == job.audio_frames
    assert (job.status, customer.charges()) == (JobStatus.SUCCEEDED, {job.id: len(TEXT)})


def test_audio_comes_while_it_is_made(server: str, customer: Customer, engine: FakeEngine) -> None:
    engine._segment_seconds = 0.6
    with working():
        started = time.monotonic()
        body = customer.body(" ".join(SENTENCES[:4]))
        with httpx.stream("POST", f"{server}/v1/speech", json=body, headers=customer.headers) as response:
            times = [time.monotonic() - started for _ in response.iter_raw()]
    assert times[-1] - times[0] > 2.5 * 0.6


def test_a_failure_before_the_first_sound_has_a_status(server: str, customer: Customer, engine: FakeEngine) -> None:
    engine._failure = lambda _: EngineError("no")
    with working():
        response = speak(server, customer)
    job = last_job(customer)
    assert (response.status_code, response.json()["code"]) == (500, "engine_failed")
    assert response.json()["job_id"] == str(job.id)
    assert (customer.charges(), customer.held(), findings()) == ({}, 0, [])


def test_a_crash_before_the_first_sound_is_tried_again(server: str, customer: Customer, engine: FakeEngine) -> None:
    engine._failure = lambda number: EngineCrashedError("gone") if number == 0 else None
    with working():
        response = speak(server, customer)
    job = last_job(customer)
    assert response.content == TenantStorage(customer.tenant.id).read(job.artifact_key)
    assert (job.attempt, customer.charges()) == (2, {job.id: len(TEXT)})


def test_a_failure_after_the_first_sound_cuts_the_connection(
    server: str, customer: Customer, engine: FakeEngine
) -> None:
    engine._segment_seconds = 0.2
    engine._failure = lambda number: EngineCrashedError("gone") if number == 3 else None
    with working(), pytest.raises(httpx.RemoteProtocolError):
        speak(server, customer, LONG)
    job = last_job(customer)
    assert (job.status, job.error_code, job.attempt) == (JobStatus.FAILED, "engine_crashed", 1)
    assert (customer.charges(), customer.held(), findings()) == ({}, 0, [])


def cut_after(server: str, customer: Customer, text: str, bytes_wanted: int) -> int:
    """Read that many bytes of the body, then hang up; how many were read."""
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=20)
    headers = {**customer.headers, "Content-Type": "application/json"}
    connection.request("POST", "/v1/speech", json.dumps(customer.body(text)), headers)
    response = connection.getresponse()
    assert response.status == 200
    read = 0
    while read < bytes_wanted:
        piece = response.read1(min(4096, bytes_wanted - read))
        assert piece
        read += len(piece)
    connection.close()
    response.close()
    return read


def test_a_listener_who_leaves_pays_for_whole_segments_received(
    server: str, customer: Customer, engine: FakeEngine
) -> None:
    engine._segment_seconds = 0.15
    ends = [0]
    for sentence in SENTENCES:
        ends.append(ends[-1] + len(sentence) + 1)
    with working():
        for seed in range(6):
            text = f"{LONG} {seed}."
            whole_bytes = 2 * int(24_000 * 0.05 * len(text))
            read = cut_after(server, customer, text, random.Random(seed).randrange(1, whole_bytes // 2))
            eventually(lambda: last_job(customer).status not in (JobStatus.QUEUED, JobStatus.RUNNING))
            job = last_job(customer)
            assert job.status == JobStatus.CANCELLED
            charged = customer.charges().get(job.id, 0)
            assert charged == job.delivered_chars < job.billable_chars
            assert charged in ends
            # Not less than what the client has surely read, not more than was made when it left, about.
            read_chars = read / (2 * 24_000 * 0.05)
            assert charged <= read_chars + 3 * len(SENTENCES[0])
    assert (customer.held(), findings()) == (0, [])


def test_a_listener_who_leaves_before_the_first_sound_pays_nothing(server: str, customer: Customer) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server}/v1/speech", json=customer.body(), headers=customer.headers, timeout=0.5)
    eventually(lambda: last_job(customer).status == JobStatus.CANCELLED)
    assert (customer.charges(), customer.held()) == ({}, 0)


def test_cancelling_a_stream_cuts_it(server: str, customer: Customer, engine: FakeEngine) -> None:
    engine._segment_seconds = 0.2
    body = customer.body(LONG)
    with working(), httpx.stream("POST", f"{server}/v1/speech", json=body, headers=customer.headers) as response:
        pieces = response.iter_raw()
        next(pieces)
        services.cancel_job(tenant_id=customer.tenant.id, job_id=last_job(customer).id)
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)
    job = last_job(customer)
    assert job.status == JobStatus.CANCELLED
    assert customer.charges().get(job.id, 0) == job.delivered_chars < job.billable_chars


@pytest.mark.parametrize("audio_format", ["pcm", "mp3"])
def test_redis_forgets_the_stream_midway_and_the_rest_comes_from_the_artifact(
    server: str, customer: Customer, engine: FakeEngine, audio_format: str
) -> None:
    with working():
        undisturbed = speak(server, customer, LONG, format=audio_format).content
    engine._segment_seconds = 0.2
    body = customer.body(LONG, format=audio_format)
    with working(), httpx.stream("POST", f"{server}/v1/speech", json=body, headers=customer.headers) as response:
        pieces = response.iter_raw()
        heard = next(pieces)
        redis_client().flushdb()
        heard += b"".join(pieces)
    assert heard == undisturbed
    assert list(customer.charges().values()) == [len(LONG), len(LONG)]


def test_a_lost_worker_cuts_the_stream_and_costs_nothing(
    server: str, customer: Customer, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = customer.body(LONG)
    engine._segment_seconds = 0.2
    with working(), httpx.stream("POST", f"{server}/v1/speech", json=body, headers=customer.headers) as response:
        pieces = response.iter_raw()
        next(pieces)
        customer.change(last_job(customer).id, lease_until="2020-01-01T00:00:00Z")
        assert services.reap_jobs() == 1
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)
    job = last_job(customer)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "worker_lost")
    assert (customer.charges(), customer.held(), findings()) == ({}, 0, [])


# --- Idempotency-Key ----------------------------------------------------------------------------


def test_a_repeated_request_replays_the_artifact(server: str, customer: Customer) -> None:
    with working():
        first = speak(server, customer, headers={"Idempotency-Key": "one"})
        second = speak(server, customer, headers={"Idempotency-Key": "one"})
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert (second.status_code, second.content) == (200, first.content)
    assert second.headers["x-job-id"] == first.headers["x-job-id"]
    assert len(customer.charges()) == 1


def test_a_running_twin_is_joined_then_refused(
    server: str, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synthesis.api.speech.JOIN_SECONDS", 0.3)
    headers = {**customer.headers, "Idempotency-Key": "one"}
    with httpx.Client(base_url=server, headers=headers) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/speech", json=customer.body(), timeout=0.3)
        monkeypatch.setattr(services, "cancel_for_listener", lambda **_: None)
        refused = client.post("/v1/speech", json=customer.body())
    assert refused.status_code == 409


def test_twins_at_once_make_one_job(server: str, customer: Customer, engine: FakeEngine) -> None:
    engine._segment_seconds = 0.05
    with working(), ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: speak(server, customer, headers={"Idempotency-Key": "one"}), range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["x-job-id"] for answer in answers}) == 1
    assert list(customer.charges().values()) == [len(TEXT)]


def test_another_body_under_the_same_key_is_refused(server: str, customer: Customer) -> None:
    with working():
        speak(server, customer, headers={"Idempotency-Key": "one"})
        refused = speak(server, customer, "Something else.", headers={"Idempotency-Key": "one"})
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert len(customer.charges()) == 1


def test_a_failed_request_can_be_repeated_afresh(server: str, customer: Customer, engine: FakeEngine) -> None:
    engine._failure = lambda number: EngineError("no") if number == 0 else None
    with working():
        failed = speak(server, customer, headers={"Idempotency-Key": "one"})
        good = speak(server, customer, headers={"Idempotency-Key": "one"})
    assert (failed.status_code, good.status_code) == (500, 200)
    assert list(customer.charges().values()) == [len(TEXT)]


def test_a_cancelled_request_stays_cancelled(server: str, customer: Customer) -> None:
    headers = {**customer.headers, "Idempotency-Key": "one"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server}/v1/speech", json=customer.body(), headers=headers, timeout=0.3)
    eventually(lambda: last_job(customer).status == JobStatus.CANCELLED)
    refused = speak(server, customer, headers={"Idempotency-Key": "one"})
    assert (refused.status_code, refused.json()["code"]) == (409, "job_cancelled")


def test_another_tenants_key_of_the_same_name_is_its_own(
    server: str, customer: Customer, other_customer: Customer
) -> None:
    with working():
        first = speak(server, customer, headers={"Idempotency-Key": "one"})
        second = speak(server, other_customer, headers={"Idempotency-Key": "one"})
    assert first.headers["x-job-id"] != second.headers["x-job-id"]
    assert (len(customer.charges()), len(other_customer.charges())) == (1, 1)


# --- following and fetching ---------------------------------------------------------------------


def test_events_follow_a_job_to_its_end(server: str, customer: Customer, engine: FakeEngine) -> None:
    engine._segment_seconds = 0.4
    job = customer.submit(LONG)
    address = f"{server}/v1/jobs/{job.id}/events"
    with working(), httpx.stream("GET", address, headers=customer.headers, timeout=20) as response:
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    statuses = [json.loads(line.removeprefix("data: "))["status"] for line in lines]
    assert response.headers["content-type"] == "text/event-stream"
    assert statuses[-1] == "succeeded"
    assert "running" in statuses


def test_the_audio_of_a_job_is_fetched(server: str, customer: Customer) -> None:
    job = customer.submit()
    address = f"{server}/v1/jobs/{job.id}/audio"
    early = httpx.get(address, headers=customer.headers)
    assert (early.status_code, early.json()["code"]) == (409, "job_not_finished")
    with working():
        eventually(lambda: customer.job(job.id).status == JobStatus.SUCCEEDED)
    response = httpx.get(address, headers=customer.headers)
    assert response.content == TenantStorage(customer.tenant.id).read(customer.job(job.id).artifact_key)
    assert response.headers["content-disposition"] == f'attachment; filename="{job.id}.pcm"'
