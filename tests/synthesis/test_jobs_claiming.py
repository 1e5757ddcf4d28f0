"""Who gets which job when: fairness, limits, leases, fences, poison, and races between all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from django.db import connections, transaction
from django.db.utils import DatabaseError

from billing.models import Plan
from billing.selectors import get_plan
from synthesis import services, worker
from synthesis.contracts import BATCH_QUEUE, SPEECH_QUEUE
from synthesis.engines.fake import FakeEngine
from synthesis.errors import DEADLINE_EXCEEDED, WORKER_LOST, JobNotFoundError
from synthesis.models import JobKind, JobStatus, SynthesisJob
from synthesis.services import LeaseState
from tenants.scoping import tenant_scope
from tenants.storage import TenantStorage
from tests.factories import make_tenant
from tests.synthesis.jobs import QUEUES, TEXT, Customer, claim, findings, must_claim, work

PAST = "2020-01-01T00:00:00Z"


def on_threads(count: int, act: Callable[[int], object]) -> list[object]:
    """All at once, each with its own connections."""
    barrier = threading.Barrier(count)

    def run(number: int) -> object:
        try:
            barrier.wait()
            return act(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def set_max_running(customer: Customer, limit: int) -> None:
    plan = get_plan(tenant_id=customer.tenant.id)
    Plan.objects.using("staff").filter(id=plan.id).update(max_running_jobs=limit)


# --- claiming -----------------------------------------------------------------------------------


def test_each_job_is_claimed_once_by_racing_workers(customer: Customer) -> None:
    set_max_running(customer, 100)
    jobs = {customer.submit(f"Text {number}.").id for number in range(8)}
    claims = on_threads(8, lambda number: claim(worker_id=f"worker-{number}"))
    assert {found.job_id for found in claims if found} == jobs  # type: ignore[attr-defined]
    assert claim() is None


def test_a_tenant_never_runs_more_than_its_plan_allows(customer: Customer) -> None:
    set_max_running(customer, 2)
    for number in range(8):
        customer.submit(f"Text {number}.")
    claims = on_threads(8, lambda number: claim(worker_id=f"worker-{number}"))
    assert sum(found is not None for found in claims) == 2


def test_a_queue_gives_only_its_own_jobs(customer: Customer) -> None:
    customer.submit()
    assert services.claim_job(queues=[SPEECH_QUEUE], worker_id="worker-1") is None
    assert services.claim_job(queues=[BATCH_QUEUE], worker_id="worker-1") is not None


@pytest.mark.parametrize("workers", [1, 4])
def test_a_busy_tenant_does_not_hold_another_up(customer: Customer, other_customer: Customer, workers: int) -> None:
    """J7, scaled: A has 60 jobs waiting and some behind it, then B brings 10."""
    for number in range(60):
        customer.submit(f"Text {number}.")
    running = [must_claim() for _ in range(workers)]
    for _ in range(12):  # A was served alone for a while
        worker.process(running.pop(0))
        running.append(must_claim())
    wanted = {other_customer.submit(f"Text {number}.").id for number in range(10)}
    slots = 0
    while wanted:
        done = running.pop(0)
        worker.process(done)
        wanted.discard(done.job_id)
        running.append(must_claim())
        slots += 1
    # Each slot is one job's time on one worker; with four workers B has at most half of them.
    assert slots / workers <= 12


# --- leases and fences --------------------------------------------------------------------------


def test_an_old_worker_cannot_finish_after_its_job_was_claimed_again(customer: Customer) -> None:
    job = customer.submit()
    old = must_claim(worker_id="old")
    customer.change(job.id, lease_until=PAST)
    assert services.reap_jobs() == 1
    customer.change(job.id, run_after=PAST)
    new = must_claim(worker_id="new")
    assert (old.fence, new.fence, new.attempt) == (1, 2, 2)

    assert worker.process(old) is None  # renders, stores, and is refused

    assert customer.job(job.id).status == JobStatus.RUNNING
    assert services.heartbeat(old) is LeaseState.LOST
    assert services.heartbeat(new) is LeaseState.HELD
    assert worker.process(new) == JobStatus.SUCCEEDED
    assert customer.job(job.id).artifact_key.endswith("/2-2.pcm")
    assert list(TenantStorage(customer.tenant.id).list_keys("artifacts")) == [customer.job(job.id).artifact_key]
    assert worker.process(old) is None
    assert (customer.charges(), customer.held(), findings()) == ({job.id: len(TEXT)}, 0, [])


def test_a_heartbeat_keeps_a_job_from_the_reaper(customer: Customer) -> None:
    job = customer.submit()
    running = must_claim()
    customer.change(job.id, lease_until=PAST)
    assert services.heartbeat(running) is LeaseState.HELD
    assert services.reap_jobs() == 0


def test_the_lease_beats_while_the_engine_works(
    customer: Customer, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synthesis.worker.HEARTBEAT_SECONDS", 0.05)
    job = customer.submit("One.")
    running = must_claim()
    before = customer.job(job.id).lease_until
    engine._segment_seconds = 0.4
    seen: list[object] = []
    engine._failure = lambda _: seen.append(customer.job(job.id).lease_until)
    worker.process(running)
    assert seen[0] > before  # type: ignore[operator]


def test_a_job_that_kills_its_workers_ends_and_others_go_on(customer: Customer) -> None:
    poison = customer.submit("poison")
    good = [customer.submit(f"Text {number}.") for number in range(5)]
    for attempt in range(1, 4):
        customer.change(poison.id, run_after=PAST)
        killed = must_claim()
        assert (killed.job_id, killed.attempt) == (poison.id, attempt)
        customer.change(poison.id, lease_until=PAST)
        assert services.reap_jobs() == 1
    work()
    assert (customer.job(poison.id).status, customer.job(poison.id).error_code) == (JobStatus.FAILED, WORKER_LOST)
    assert {customer.job(job.id).status for job in good} == {JobStatus.SUCCEEDED}
    assert set(customer.charges()) == {job.id for job in good}
    assert (customer.held(), findings()) == (0, [])


def test_a_lost_job_that_was_cancelled_is_not_tried_again(customer: Customer) -> None:
    job = customer.submit()
    must_claim()
    services.cancel_job(tenant_id=customer.tenant.id, job_id=job.id)
    customer.change(job.id, lease_until=PAST)
    services.reap_jobs()
    assert customer.job(job.id).status == JobStatus.CANCELLED
    assert (customer.charges(), customer.held()) == ({}, 0)


@pytest.mark.parametrize("is_running", [False, True])
def test_a_job_expires_at_its_deadline(customer: Customer, is_running: bool) -> None:
    job = customer.submit()
    running = must_claim() if is_running else None
    customer.change(job.id, deadline_at=PAST)
    assert claim() is None
    assert services.reap_jobs() == 1
    job = customer.job(job.id)
    assert (job.status, job.error_code) == (JobStatus.EXPIRED, DEADLINE_EXCEEDED)
    if running is not None:
        assert worker.process(running) is None
    assert (customer.charges(), customer.held(), findings()) == ({}, 0, [])


# --- races --------------------------------------------------------------------------------------


def test_cancel_and_finish_race_and_exactly_one_wins(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    """J5, scaled: charged exactly when it succeeded."""
    for number in range(25):
        job = customer.submit(f"Text {number}.")
        running = must_claim()
        _, finished = on_threads(
            2,
            lambda who, job=job, running=running: (  # type: ignore[misc]
                worker.process(running) if who else services.cancel_job(tenant_id=customer.tenant.id, job_id=job.id)
            ),
        )
        job = customer.job(job.id)
        assert job.status == finished
        assert job.status in (JobStatus.SUCCEEDED, JobStatus.CANCELLED)
        assert (job.id in customer.charges()) == (job.status == JobStatus.SUCCEEDED)
    assert (customer.held(), findings()) == (0, [])


def test_reap_and_finish_race_and_exactly_one_wins(customer: Customer) -> None:
    for number in range(15):
        job = customer.submit(f"Text {number}.")
        running = must_claim()
        customer.change(job.id, lease_until=PAST)
        on_threads(2, lambda who, running=running: worker.process(running) if who else services.reap_jobs())  # type: ignore[misc]
        if customer.job(job.id).status == JobStatus.QUEUED:
            customer.change(job.id, run_after=PAST)
        work()
        assert customer.job(job.id).status == JobStatus.SUCCEEDED
    assert len(customer.charges()) == 15
    assert (customer.held(), findings()) == (0, [])


# --- the database's own walls -------------------------------------------------------------------


def test_the_database_refuses_to_change_an_ended_job(customer: Customer) -> None:
    job = customer.submit()
    work()
    for change in ({"status": JobStatus.QUEUED, "finished_at": None}, {"artifact_key": "x"}, {"fence": 9}):
        with pytest.raises(DatabaseError):
            customer.change(job.id, **change)


def test_the_database_refuses_a_job_in_another_tenants_voice(customer: Customer, other_customer: Customer) -> None:
    job = customer.submit()
    with pytest.raises(DatabaseError), transaction.atomic():
        customer.change(job.id, voice_id=other_customer.voice_id)


def test_the_dispatch_role_may_pick_and_nothing_else(
    customer: Customer, role_connection: Callable[[str], psycopg.Connection[tuple[object, ...]]]
) -> None:
    job = customer.submit()
    dispatch = role_connection("dispatch")
    assert dispatch.execute("SELECT tenant_id, id FROM synthesis_job WHERE id = %s", [job.id]).fetchone() == (
        customer.tenant.id,
        job.id,
    )
    for statement in (
        "SELECT text FROM synthesis_job",
        "UPDATE synthesis_job SET attempt = 1",
        "DELETE FROM synthesis_job",
        "SELECT * FROM voices_voice",
    ):
        dispatch.rollback()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            dispatch.execute(statement)


def test_another_tenants_job_is_not_there(customer: Customer) -> None:
    job = customer.submit()
    with pytest.raises(JobNotFoundError):
        services.cancel_job(tenant_id=make_tenant().id, job_id=job.id)
    with tenant_scope(customer.tenant.id):
        assert SynthesisJob.objects.get(id=job.id).status == JobStatus.QUEUED


def test_a_speech_with_a_listener_is_not_rendered_for_nobody(customer: Customer) -> None:
    job = customer.submit(kind=JobKind.SPEECH)
    running = must_claim()
    services.begin_delivery(tenant_id=customer.tenant.id, job_id=job.id, fence=running.fence)
    customer.change(job.id, lease_until=PAST)
    services.reap_jobs()
    assert (customer.job(job.id).status, customer.job(job.id).error_code) == (JobStatus.FAILED, WORKER_LOST)
    assert services.claim_job(queues=QUEUES, worker_id="worker-2") is None
    assert (customer.charges(), customer.held()) == ({}, 0)
