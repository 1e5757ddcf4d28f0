"""Redis carries hints, caches and streams; with all of it gone, everything is still right."""

from __future__ import annotations

import time
from collections.abc import Iterator
from io import StringIO

import pytest
from celery import current_app
from django.core.management import call_command
from pytest_django import Settings

from synthesis import dispatch, prompts, services, tasks, worker
from synthesis.contracts import BATCH_QUEUE, SPEECH_QUEUE
from synthesis.engines.fake import FakeEngine
from synthesis.management.commands.dispatch_jobs import Dispatcher
from synthesis.models import JobStatus
from tenants.models import IdempotencyRecord
from tenants.redis import redis_breaker, redis_client
from tenants.scoping import tenant_scope
from tests.synthesis.jobs import TEXT, Customer, findings, work
from voices import services as voices
from voices.errors import VoiceNotFoundError

CLOSED_PORT = "redis://127.0.0.1:1/0"


def _point_redis_at(settings: Settings, url: str) -> None:
    settings.REDIS_URL = current_app.conf.broker_url = url
    redis_client.cache_clear()
    current_app.amqp._producer_pool = None
    current_app._pool = None


@pytest.fixture
def no_redis(settings: Settings) -> Iterator[None]:
    """Every client of this process, the broker's too, talks to a port where nobody listens."""
    url = settings.REDIS_URL
    _point_redis_at(settings, CLOSED_PORT)
    yield
    _point_redis_at(settings, url)
    redis_breaker.succeeded()
    redis_breaker._open_until = 0.0


def rings() -> dict[str, int]:
    return {queue: int(redis_client().llen(queue)) for queue in (SPEECH_QUEUE, BATCH_QUEUE)}


def test_accepting_rings_once_for_its_queue_and_only_on_commit(customer: Customer) -> None:
    redis_client().flushdb()
    customer.submit()
    assert rings() == {SPEECH_QUEUE: 0, BATCH_QUEUE: 1}
    with pytest.raises(RuntimeError), tenant_scope(customer.tenant.id):
        customer.submit()
        raise RuntimeError
    assert rings() == {SPEECH_QUEUE: 0, BATCH_QUEUE: 1}


def test_the_task_does_what_is_due(customer: Customer) -> None:
    job = customer.submit()
    tasks.work(queue=BATCH_QUEUE)
    tasks.work(queue=BATCH_QUEUE)  # twice, and too late
    assert customer.job(job.id).status == JobStatus.SUCCEEDED
    assert customer.charges() == {job.id: len(TEXT)}


def test_the_dispatcher_rings_again_for_what_nobody_claimed(customer: Customer) -> None:
    jobs = [customer.submit(f"Text {number}.") for number in range(3)]
    redis_client().flushdb()  # every doorbell is lost
    for job in jobs:
        customer.change(job.id, run_after="2020-01-01T00:00:00Z")
    dispatcher = Dispatcher()
    dispatcher.run_round()
    dispatcher.run_round()  # not again within five seconds
    assert rings() == {SPEECH_QUEUE: 0, BATCH_QUEUE: 3}


def test_the_command_reaps_and_forgets_old_keys(customer: Customer) -> None:
    job = customer.submit()
    services.claim_job(queues=[BATCH_QUEUE], worker_id="gone")
    customer.change(job.id, lease_until="2020-01-01T00:00:00Z")
    with tenant_scope(customer.tenant.id):
        for age, key in (("2020-01-01T00:00:00Z", "old"), ("2999-01-01T00:00:00Z", "new")):
            IdempotencyRecord.objects.create(
                tenant_id=customer.tenant.id, route="POST /v1/jobs", key=key, fingerprint=bytes(32), created_at=age
            )
    call_command("dispatch_jobs", "--once", stdout=StringIO())
    assert customer.job(job.id).status == JobStatus.QUEUED
    with tenant_scope(customer.tenant.id):
        assert [record.key for record in IdempotencyRecord.objects.all()] == ["new"]


def test_without_redis_jobs_are_accepted_and_done(customer: Customer, no_redis: None) -> None:
    prompts.memory.clear()
    started = time.monotonic()
    jobs = [customer.submit(f"Text {number}.") for number in range(10)]
    assert time.monotonic() - started < 5.0
    assert not dispatch.ring(queue=BATCH_QUEUE)
    work()
    assert {customer.job(job.id).status for job in jobs} == {JobStatus.SUCCEEDED}
    assert (len(customer.charges()), findings()) == (10, [])


# --- prepared voices ----------------------------------------------------------------------------


def test_a_voice_is_analysed_once_whatever_is_forgotten(customer: Customer, engine: FakeEngine) -> None:
    for forget in (lambda: None, prompts.memory.clear, redis_client().flushdb, prompts.memory.clear):
        forget()
        job = customer.submit()
        work()
        assert customer.job(job.id).status == JobStatus.SUCCEEDED
    prompts.memory.clear()
    redis_client().flushdb()
    customer.submit()
    work()
    assert engine.voices_prepared == 1


def test_a_new_engine_version_learns_the_voice_again(customer: Customer, engine: FakeEngine) -> None:
    newer = FakeEngine(version="2")
    worker.use_engine(newer)
    for _ in range(2):
        job = customer.submit()
        work()
        prompts.memory.clear()
    assert customer.job(job.id).engine_version == "2"
    assert (engine.voices_prepared, newer.voices_prepared) == (1, 1)


def test_a_voice_whose_language_is_changed_is_learned_again(customer: Customer, engine: FakeEngine) -> None:
    voices.update_voice(tenant_id=customer.tenant.id, voice_id=customer.voice_id, actor="test", name="Nadia B.")
    customer.submit()
    work()
    assert engine.voices_prepared == 1
    voices.update_voice(tenant_id=customer.tenant.id, voice_id=customer.voice_id, actor="test", language="ja")
    for _ in range(2):
        customer.submit()
        work()
    assert engine.voices_prepared == 2


def test_what_redis_holds_of_a_voice_is_sealed(customer: Customer) -> None:
    prompts.memory.clear()
    customer.submit()
    work()
    held = redis_client().hgetall(prompts.redis_key(customer.tenant.id, customer.voice_id))
    assert len(held) == 1
    assert b"__metadata__" not in next(iter(held.values()))  # as an open safetensors object begins


def test_an_erased_voice_is_in_no_cache(customer: Customer, engine: FakeEngine) -> None:
    prompts.memory.clear()
    customer.submit()
    work()
    voices.erase_voice(tenant_id=customer.tenant.id, voice_id=customer.voice_id, actor="test")
    assert not redis_client().exists(prompts.redis_key(customer.tenant.id, customer.voice_id))
    assert prompts.memory._prompts == {}
    with pytest.raises(VoiceNotFoundError):
        prompts.load_prompt(tenant_id=customer.tenant.id, voice_id=customer.voice_id, engine=engine)
