"""Speech with its objects in a real bucket: voice, job, audio over HTTP, and what is said when it is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from synthesis.models import JobStatus
from tenants.storage import TenantStorage, open_store
from tests.object_server import Account, ObjectServer
from tests.synthesis.jobs import Customer, code_of, work
from tests.synthesis.serving import serving


@pytest.fixture
def bucket_server(tmp_path: Path) -> Iterator[ObjectServer]:
    server = ObjectServer(tmp_path / "objects")
    yield server
    server.stop()


@pytest.fixture
def account(bucket_server: ObjectServer, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    account = bucket_server.add_account("cantoria")
    bucket_server.start()
    for name, value in account.environment().items():
        monkeypatch.setenv(name, value)
    settings.STORAGE_URL = bucket_server.url(attempts="1", connect_timeout_seconds="0.5")
    open_store.cache_clear()
    yield account
    open_store.cache_clear()


@pytest.fixture
def web(settings: Any) -> Iterator[str]:
    with serving(settings) as address:
        yield address


def test_a_jobs_audio_comes_out_of_the_bucket_through_the_application(
    account: Account, customer: Customer, web: str
) -> None:
    job = customer.submit()
    work()
    done = customer.job(job.id)
    response = httpx.get(f"{web}/v1/jobs/{job.id}/audio", headers=customer.headers)
    assert (response.status_code, response.history) == (200, [])
    assert response.content == (account.bucket_folder / done.artifact_key).read_bytes()
    assert len(response.content) == done.artifact_bytes
    prefix = f"tenants/{customer.tenant.id}/"
    stored = [path.relative_to(account.bucket_folder).as_posix() for path in account.root.rglob("*") if path.is_file()]
    assert len(stored) == 3
    assert all(key.startswith(prefix) for key in stored)


def test_a_bucket_that_is_away_has_a_status_of_its_own(
    account: Account, bucket_server: ObjectServer, customer: Customer, web: str
) -> None:
    job = customer.submit()
    work()
    address = f"{web}/v1/jobs/{job.id}/audio"
    bucket_server.stop()
    away = httpx.get(address, headers=customer.headers)
    assert (away.status_code, away.json()["code"]) == (503, "storage_unavailable")
    assert away.headers["retry-after"] == "5"
    assert str(bucket_server.port) not in away.text
    bucket_server.start()
    assert httpx.get(address, headers=customer.headers).status_code == 200
    TenantStorage(customer.tenant.id).delete(customer.job(job.id).artifact_key)
    assert httpx.get(address, headers=customer.headers).status_code == 500


def test_a_job_waits_for_a_bucket_that_is_away(
    account: Account, bucket_server: ObjectServer, customer: Customer
) -> None:
    job = customer.submit()
    bucket_server.stop()
    work()
    waiting = customer.job(job.id)
    assert (waiting.status, waiting.attempt, customer.settled()) == (JobStatus.QUEUED, 1, 0)
    assert code_of(customer.get(f"/v1/jobs/{job.id}/audio")) == (409, "job_not_finished")
    bucket_server.start()
    customer.change(job.id, run_after=waiting.created_at)
    work()
    assert customer.job(job.id).status == JobStatus.SUCCEEDED
    assert customer.settled() == job.billable_chars
