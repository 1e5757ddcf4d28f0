"""Everything at once: mixed requests of several tenants while workers are killed and Redis is restarted.

However it goes, every job ends once, the ledger is the charging table applied to the rows, `reconcile` finds nothing.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest
from django.db import connections
from pytest_django import Settings

from synthesis import worker
from synthesis.engines.fake import FakeEngine
from synthesis.models import TERMINAL_STATUSES, JobKind, JobStatus, SynthesisJob
from tenants.redis import redis_client
from tenants.scoping import tenant_scope
from tenants.storage import TenantStorage
from tests.conftest import Servers
from tests.faults.processes import start_dispatcher, start_worker
from tests.synthesis.jobs import Customer, findings
from tests.synthesis.serving import serving
from tests.voices.uploads import encode, speech
from voices.intake import inspect_upload

SEED = 20_261_124
TENANTS = 5
CLIENTS = 8
WORKERS = 2
END_SECONDS = 180.0


@pytest.fixture
def customers(database: None) -> list[Customer]:
    clip = inspect_upload(io.BytesIO(encode(speech(4.0))), declared_filename=None, declared_content_type=None)
    worker.use_engine(FakeEngine())
    try:
        return [Customer.make(clip) for _ in range(TENANTS)]
    finally:
        worker.use_engine(None)


@pytest.fixture
def server(customers: list[Customer], settings: Settings) -> Iterator[str]:
    with serving(settings) as address:
        yield address


class Clients:
    """Callers of every kind. What they are told is counted; what is true is in the rows."""

    def __init__(self, server: str, customers: list[Customer]) -> None:
        self._server = server
        self._customers = customers
        self.answers: Counter[str] = Counter()
        self.twins: list[set[str]] = []  # job ids that one Idempotency-Key was answered with
        self._lock = threading.Lock()

    def call(self, number: int) -> None:
        dice = random.Random(SEED + number)
        customer = dice.choice(self._customers)
        text = " ".join(f"Request {number} says sentence {part}." for part in range(dice.randrange(1, 7)))
        act = dice.choice([self._listen, self._leave, self._batch, self._cancel, self._repeat, self._fail])
        try:
            outcome = act(customer, text, dice)
        except (httpx.HTTPError, http.client.HTTPException, OSError) as error:
            outcome = type(error).__name__
        with self._lock:
            self.answers[f"{act.__name__.strip('_')}: {outcome}"] += 1

    def _post(self, customer: Customer, path: str, text: str, **headers: str) -> httpx.Response:
        return httpx.post(
            self._server + path, json=customer.body(text), headers={**customer.headers, **headers}, timeout=120
        )

    def _listen(self, customer: Customer, text: str, dice: random.Random) -> object:
        return self._post(customer, "/v1/speech", text).status_code

    def _leave(self, customer: Customer, text: str, dice: random.Random) -> object:
        connection = http.client.HTTPConnection(urlsplit(self._server).netloc, timeout=120)
        headers = {**customer.headers, "Content-Type": "application/json"}
        connection.request("POST", "/v1/speech", json.dumps(customer.body(text)), headers)
        response = connection.getresponse()
        response.read(dice.randrange(1, 200_000))
        response.close()
        connection.close()
        return response.status

    def _batch(self, customer: Customer, text: str, dice: random.Random) -> object:
        return self._post(customer, "/v1/jobs", text).status_code

    def _cancel(self, customer: Customer, text: str, dice: random.Random) -> object:
        accepted = self._post(customer, "/v1/jobs", text)
        if accepted.status_code != 202:
            return accepted.status_code
        time.sleep(dice.uniform(0, 1.0))
        address = f"{self._server}/v1/jobs/{accepted.json()['id']}"
        return httpx.delete(address, headers=customer.headers, timeout=60).status_code

    def _repeat(self, customer: Customer, text: str, dice: random.Random) -> object:
        path = dice.choice(["/v1/jobs", "/v1/speech"])
        with ThreadPoolExecutor(3) as pool:
            key = {"Idempotency-Key": hashlib.sha256(text.encode()).hexdigest()}
            answers = list(pool.map(lambda _: self._post(customer, path, text, **key), range(3)))
        job_ids = {answer.headers["x-job-id"] for answer in answers if "x-job-id" in answer.headers}
        with self._lock:
            self.twins.append(job_ids)
        return sorted(answer.status_code for answer in answers)

    def _fail(self, customer: Customer, text: str, dice: random.Random) -> object:
        return self._post(customer, dice.choice(["/v1/jobs", "/v1/speech"]), f"{text} This is broken.").status_code


def _run(server: str, customers: list[Customer], servers: Servers, log: Path, *, requests: int, kills: int) -> Clients:
    """All requests from eight threads; spread over their time, the kills and two restarts of Redis.

    Redis is the run's own server: no other test may run beside this one, so `make test-faults` has one process.
    """
    workers = [start_worker(servers, log=log) for _ in range(WORKERS)]
    dispatcher = start_dispatcher(servers, log=log)
    clients = Clients(server, customers)
    done = threading.Event()
    dice = random.Random(SEED)

    def torment() -> None:
        for number in range(kills):
            if done.wait(dice.uniform(1.0, 2.5)):
                return
            victim = workers[number % WORKERS]
            victim.kill()
            victim.restart()
            if number in (kills // 3, 2 * kills // 3):
                redis = servers.embedded.redis
                redis.stop()
                time.sleep(dice.uniform(0.2, 1.5))
                redis.start(port=servers.embedded.redis_port)

    tormentor = threading.Thread(target=torment)
    tormentor.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(clients.call, range(requests)))
        tormentor.join()
        _await_end(customers)
    finally:
        done.set()
        tormentor.join()
        redis_client().ping()  # the next test needs it
        for process in (*workers, dispatcher):
            process.stop()
        connections.close_all()
    return clients


def _jobs(customer: Customer) -> list[SynthesisJob]:
    with tenant_scope(customer.tenant.id):
        return list(SynthesisJob.objects.exclude(kind=JobKind.PREPARE))


def _await_end(customers: list[Customer]) -> None:
    give_up_at = time.monotonic() + END_SECONDS
    while any(job.status not in TERMINAL_STATUSES for customer in customers for job in _jobs(customer)):
        assert time.monotonic() < give_up_at, "some jobs do not end"
        time.sleep(0.5)


def _charging_table(job: SynthesisJob) -> int:
    return {JobStatus.SUCCEEDED: job.billable_chars, JobStatus.CANCELLED: job.delivered_chars}.get(
        JobStatus(job.status), 0
    )


def _check(customers: list[Customer], clients: Clients) -> None:
    statuses: Counter[str] = Counter()
    for customer in customers:
        jobs = _jobs(customer)
        statuses.update(job.status for job in jobs)
        owed: dict[UUID, int] = {job.id: units for job in jobs if (units := _charging_table(job))}
        assert customer.charges() == owed
        assert (customer.held(), customer.settled()) == (0, sum(owed.values()))
        storage = TenantStorage(customer.tenant.id)
        for job in jobs:
            if job.status == JobStatus.SUCCEEDED:
                assert hashlib.sha256(storage.read(job.artifact_key)).hexdigest() == job.artifact_sha256
                assert f"/{job.attempt}-{job.fence}." in job.artifact_key
    print(dict(statuses), dict(clients.answers))
    assert findings() == []
    assert all(len(job_ids) <= 1 for job_ids in clients.twins)
    assert not any("500" in answer for answer in clients.answers if not answer.startswith("fail:")), clients.answers
    assert statuses[JobStatus.SUCCEEDED] > 0
    assert statuses[JobStatus.CANCELLED] > 0
    assert statuses[JobStatus.FAILED] > 0


@pytest.mark.faults
def test_chaos(server: str, customers: list[Customer], servers: Servers, tmp_path: Path) -> None:
    clients = _run(server, customers, servers, tmp_path / "processes.log", requests=200, kills=10)
    _check(customers, clients)
