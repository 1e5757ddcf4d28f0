"""The life of a job and the charging table, row by row."""

from __future__ import annotations

import hashlib
from uuid import UUID

import pytest

from billing.errors import InsufficientCreditsError
from billing.models import Balance, Reservation
from billing.selectors import get_plan
from synthesis import services, worker
from synthesis.engines.errors import EngineCrashedError, EngineError
from synthesis.engines.fake import FakeEngine
from synthesis.models import JobAttempt, JobKind, JobStatus, SynthesisJob
from synthesis.services import Failure, LeaseState
from tenants.errors import TooManyConcurrentRequestsError
from tenants.scoping import tenant_scope
from tenants.storage import TenantStorage
from tests.factories import make_voice
from tests.synthesis.jobs import TEXT, Customer, claim, findings, must_claim, render_request, work
from voices import selectors as voices_selectors
from voices import services as voices
from voices.errors import ConsentWithdrawnError, VoiceNotFoundError, VoiceNotReadyError
from voices.intake import InspectedClip
from voices.models import VoiceKey, VoiceStatus
from voices.sealing import VoiceSeal


def test_a_job_succeeds_and_is_charged_its_quote(customer: Customer) -> None:
    job = customer.submit()
    assert (job.status, customer.held(), customer.charges()) == (JobStatus.QUEUED, len(TEXT), {})

    assert work() == 1

    job = customer.job(job.id)
    artifact = TenantStorage(customer.tenant.id).read(job.artifact_key)
    assert (job.status, job.attempt, job.fence) == (JobStatus.SUCCEEDED, 1, 1)
    assert job.artifact_key.endswith(f"/{job.id}/1-1.pcm")
    assert (job.artifact_sha256, job.artifact_bytes) == (hashlib.sha256(artifact).hexdigest(), len(artifact))
    assert len(artifact) == 2 * (job.audio_frames or 0) > 0
    assert (job.engine, job.engine_version, job.segments) == ("fake", "1", 3)
    assert (customer.charges(), customer.held(), customer.settled()) == ({job.id: len(TEXT)}, 0, len(TEXT))
    assert findings() == []


def test_marks_name_the_words_of_the_text(customer: Customer) -> None:
    job = customer.submit("Hello there.")
    work()
    words = [mark[1:3] for mark in customer.job(job.id).marks if mark[0] == "word"]
    assert ["Hello there."[start:end].strip(".") for start, end in words] == ["Hello", "there"]


def test_each_attempt_is_noted_with_its_end(customer: Customer) -> None:
    job = customer.submit()
    services.fail_render(must_claim(), Failure("engine_crashed", "gone", retryable=True), engine_seconds=0.5)
    customer.change(job.id, run_after="2020-01-01T00:00:00Z")
    work()
    with tenant_scope(customer.tenant.id):
        attempts = list(JobAttempt.objects.filter(job_id=job.id).values_list("attempt", "fence", "outcome"))
    assert attempts == [(1, 1, "engine_crashed"), (2, 2, "succeeded")]
    assert customer.charges() == {job.id: len(TEXT)}


@pytest.mark.parametrize(
    ("failure", "attempts"),
    [
        (Failure("unspeakable_text", "nothing to say", retryable=False), 1),
        (Failure("engine_crashed", "gone", retryable=True), 3),
    ],
)
def test_our_failure_is_not_charged(customer: Customer, failure: Failure, attempts: int) -> None:
    job = customer.submit()
    for attempt in range(1, attempts + 1):
        customer.change(job.id, run_after="2020-01-01T00:00:00Z")
        status = services.fail_render(must_claim(), failure)
        assert status == (JobStatus.FAILED if attempt == attempts else JobStatus.QUEUED)
    job = customer.job(job.id)
    assert (job.status, job.error_code, job.attempt) == (JobStatus.FAILED, failure.code, attempts)
    assert (customer.charges(), customer.held(), findings()) == ({}, 0, [])


def test_waiting_grows_with_the_attempts(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    job = customer.submit()
    waits = []
    for _ in range(2):
        customer.change(job.id, run_after="2020-01-01T00:00:00Z")
        services.fail_render(must_claim(), Failure("engine_crashed", "gone", retryable=True))
        job = customer.job(job.id)
        with tenant_scope(customer.tenant.id):
            ended = JobAttempt.objects.filter(job_id=job.id).order_by("-fence").values_list("ended_at", flat=True)[0]
        waits.append(round((job.run_after - ended).total_seconds()))
        assert claim() is None
    assert waits == [2, 4]


def test_a_broken_engine_fails_the_job_and_a_crashed_one_is_asked_again(customer: Customer, engine: FakeEngine) -> None:
    engine._failure = lambda number: EngineError("no") if number == engine.segments_started - 1 else None
    failed = customer.submit()
    work()
    assert (customer.job(failed.id).status, customer.job(failed.id).error_code) == (JobStatus.FAILED, "engine_failed")
    engine._failure = lambda _: EngineCrashedError("gone")
    again = customer.submit()
    work()
    assert customer.job(again.id).status == JobStatus.QUEUED
    engine._failure = lambda _: None
    customer.change(again.id, run_after="2020-01-01T00:00:00Z")
    work()
    assert customer.job(again.id).status == JobStatus.SUCCEEDED
    assert customer.charges() == {again.id: len(TEXT)}


def test_cancelled_while_queued_is_not_charged(customer: Customer) -> None:
    job = customer.submit()
    assert services.cancel_job(tenant_id=customer.tenant.id, job_id=job.id).status == JobStatus.CANCELLED
    assert (customer.charges(), customer.held(), work(), findings()) == ({}, 0, 0, [])


def test_cancelled_while_running_ends_at_the_workers_next_look_and_is_not_charged(customer: Customer) -> None:
    job = customer.submit()
    running = must_claim()
    assert services.heartbeat(running) is LeaseState.HELD
    assert services.cancel_job(tenant_id=customer.tenant.id, job_id=job.id).status == JobStatus.RUNNING
    assert services.heartbeat(running) is LeaseState.CANCEL_REQUESTED
    assert services.end_cancelled(running) == JobStatus.CANCELLED
    assert (customer.charges(), customer.held(), findings()) == ({}, 0, [])


def test_a_job_that_is_finished_after_its_cancellation_is_cancelled(customer: Customer) -> None:
    job = customer.submit()
    running = must_claim()
    services.cancel_job(tenant_id=customer.tenant.id, job_id=job.id)
    assert worker.process(running) == JobStatus.CANCELLED  # too quick to look in between
    assert customer.job(job.id).artifact_key == ""
    assert list(TenantStorage(customer.tenant.id).list_keys("artifacts")) == []
    assert (customer.charges(), customer.held(), findings()) == ({}, 0, [])


def test_a_worker_stops_when_the_job_is_cancelled(
    customer: Customer, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synthesis.worker.LOOK_SECONDS", 0.0)
    job = customer.submit("One two three. " * 40)

    def cancel_in_the_third_segment(number: int) -> None:
        if number == 2:
            services.cancel_job(tenant_id=customer.tenant.id, job_id=job.id)

    engine._failure = cancel_in_the_third_segment
    work()
    assert customer.job(job.id).status == JobStatus.CANCELLED
    assert engine.segments_started == 3
    assert (customer.charges(), customer.held()) == ({}, 0)


def test_a_cancelled_stream_is_charged_what_was_delivered(customer: Customer) -> None:
    job = customer.submit(kind=JobKind.SPEECH)
    running = must_claim()
    where = {"tenant_id": customer.tenant.id, "job_id": job.id}
    assert services.begin_delivery(**where, fence=1)
    services.mark_delivered(**where, fence=1, chars=12)
    services.mark_delivered(**where, fence=1, chars=5)  # the mark never falls
    services.mark_delivered(**where, fence=7, chars=20)  # and another attempt's counts nothing
    services.cancel_for_listener(**where, fence=1, delivered_chars=0)
    assert services.end_cancelled(running) == JobStatus.CANCELLED
    assert (customer.charges(), customer.held(), findings()) == ({job.id: 12}, 0, [])


def test_delivered_is_never_more_than_the_quote(customer: Customer) -> None:
    job = customer.submit(kind=JobKind.SPEECH)
    running = must_claim()
    services.mark_delivered(tenant_id=customer.tenant.id, job_id=job.id, fence=1, chars=10_000)
    services.cancel_job(tenant_id=customer.tenant.id, job_id=job.id)
    services.end_cancelled(running)
    assert customer.charges() == {job.id: len(TEXT)}


def test_a_failed_stream_is_not_charged_and_not_tried_again(customer: Customer) -> None:
    job = customer.submit(kind=JobKind.SPEECH)
    running = must_claim()
    where = {"tenant_id": customer.tenant.id, "job_id": job.id}
    services.begin_delivery(**where, fence=1)
    services.mark_delivered(**where, fence=1, chars=12)
    assert services.fail_render(running, Failure("engine_crashed", "gone", retryable=True)) == JobStatus.FAILED
    assert (customer.charges(), customer.held(), findings()) == ({}, 0, [])


def test_repeating_every_call_changes_nothing(customer: Customer) -> None:
    job = customer.submit()
    running = must_claim()
    assert worker.process(running) == JobStatus.SUCCEEDED
    first = customer.job(job.id)
    assert services.heartbeat(running) is LeaseState.LOST
    assert services.fail_render(running, Failure("late", "late", retryable=False)) is None
    assert services.end_cancelled(running) is None
    assert services.cancel_job(tenant_id=customer.tenant.id, job_id=job.id).status == JobStatus.SUCCEEDED
    assert services.reap_jobs() == 0
    assert customer.job(job.id).artifact_key == first.artifact_key
    assert (customer.charges(), customer.held(), findings()) == ({job.id: len(TEXT)}, 0, [])


def test_refused_requests_store_nothing(customer: Customer, clip: InspectedClip) -> None:
    request = render_request()

    def submit(voice_id: UUID) -> None:
        services.submit_job(
            tenant_id=customer.tenant.id, kind=JobKind.BATCH, voice_id=voice_id, request=request, api_key_id=None
        )

    preparing = make_voice(customer.tenant, status=VoiceStatus.PREPARING)
    with pytest.raises(VoiceNotReadyError):
        submit(preparing.id)
    with pytest.raises(VoiceNotFoundError):
        submit(customer.tenant.id)
    withdrawn = make_voice(customer.tenant)
    voices.withdraw_consent(tenant_id=customer.tenant.id, voice_id=withdrawn.id, actor="test")
    with pytest.raises(ConsentWithdrawnError):
        submit(withdrawn.id)
    with tenant_scope(customer.tenant.id):
        assert SynthesisJob.objects.exclude(kind=JobKind.PREPARE).count() == 0
        assert Reservation.objects.count() == 0


def test_without_credits_nothing_is_stored(customer: Customer) -> None:
    customer.submit("a")
    with tenant_scope(customer.tenant.id):
        Balance.objects.update(limit_units=10, overage_units=0)
    with pytest.raises(InsufficientCreditsError):
        customer.submit("ten letters and more")
    with tenant_scope(customer.tenant.id):
        assert SynthesisJob.objects.exclude(kind=JobKind.PREPARE).count() == 1


def test_streams_at_once_are_limited_by_the_plan_and_batches_are_not(customer: Customer) -> None:
    limit = get_plan(tenant_id=customer.tenant.id).max_concurrent_streams
    streams = [customer.submit("hello", kind=JobKind.SPEECH) for _ in range(limit)]
    with pytest.raises(TooManyConcurrentRequestsError):
        customer.submit("hello", kind=JobKind.SPEECH)
    customer.submit("hello", kind=JobKind.BATCH)
    services.cancel_job(tenant_id=customer.tenant.id, job_id=streams[0].id)
    customer.submit("hello", kind=JobKind.SPEECH)
    assert customer.held() == 5 * (limit + 1)


def test_consent_withdrawn_after_acceptance_ends_the_job(customer: Customer) -> None:
    job = customer.submit()
    voices.withdraw_consent(tenant_id=customer.tenant.id, voice_id=customer.voice_id, actor="test")
    assert work() == 0
    assert customer.job(job.id).status == JobStatus.CANCELLED
    assert (customer.charges(), customer.held()) == ({}, 0)


def test_a_voice_that_went_away_unseen_fails_the_job_at_the_claim(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "cancel_jobs_of_voice", lambda **_: 0)  # as if the signal had come before the job
    job = customer.submit()
    voices.withdraw_consent(tenant_id=customer.tenant.id, voice_id=customer.voice_id, actor="test")
    assert work() == 0
    assert (customer.job(job.id).status, customer.job(job.id).error_code) == (JobStatus.FAILED, "consent_withdrawn")
    assert (customer.charges(), customer.held(), findings()) == ({}, 0, [])


def test_erasing_a_voice_cancels_its_jobs(customer: Customer) -> None:
    queued, running_job = customer.submit(), customer.submit("The second one.")
    customer.change(queued.id, run_after="2999-01-01T00:00:00Z")
    running = must_claim()
    voices.erase_voice(tenant_id=customer.tenant.id, voice_id=customer.voice_id, actor="test")
    assert services.heartbeat(running) is LeaseState.CANCEL_REQUESTED
    services.end_cancelled(running)
    assert {customer.job(job.id).status for job in (queued, running_job)} == {JobStatus.CANCELLED}
    assert (customer.charges(), customer.held()) == ({}, 0)


def test_a_voice_that_cannot_be_learned_fails_with_a_reason(customer: Customer, engine: FakeEngine) -> None:
    voice = make_voice(customer.tenant, status=VoiceStatus.PREPARING)  # without any clip
    with tenant_scope(customer.tenant.id):
        seal = VoiceSeal.with_new_key(tenant_id=customer.tenant.id, voice_id=voice.id)
        VoiceKey.objects.create(tenant_id=customer.tenant.id, voice=voice, wrapped_key=seal.wrapped_key)
    job = services.submit_preparation(tenant_id=customer.tenant.id, voice_id=voice.id)
    work()
    with tenant_scope(customer.tenant.id):
        voice = voices_selectors.get_voice(voice_id=voice.id)
    assert (customer.job(job.id).status, customer.job(job.id).error_code) == (JobStatus.FAILED, "unusable_reference")
    assert (voice.status, voice.failure_code) == (VoiceStatus.FAILED, "unusable_reference")
    assert customer.held() == 0
