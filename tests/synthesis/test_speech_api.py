"""The native API of speech and jobs over HTTP: what works, and what is refused without a trace."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import URLResolver, get_resolver
from pytest_django import Settings

from billing.models import Balance, Reservation
from synthesis import services
from synthesis.contracts import MAX_JOB_CHARS, MAX_SPEECH_CHARS
from synthesis.models import JobKind, JobStatus, SynthesisJob
from tenants.models import IdempotencyRecord, Scope
from tenants.scoping import tenant_scope
from tests.factories import make_api_key, make_voice
from tests.synthesis.jobs import TEXT, Customer, code_of, must_claim, work
from voices import services as voices
from voices.models import VoiceStatus

ACCEPTING = ["/v1/speech", "/v1/jobs"]
ALL = [*ACCEPTING, "/v1/speech/estimate"]


def stored(customer: Customer) -> tuple[int, int, int]:
    with tenant_scope(customer.tenant.id):
        jobs = SynthesisJob.objects.exclude(kind=JobKind.PREPARE).count()
        return jobs, Reservation.objects.count(), IdempotencyRecord.objects.count()


# --- refusals: the same body, made good, is accepted (below) ------------------------------------

BAD_FIELDS: list[tuple[dict[str, Any], int, str]] = [
    ({"text": ""}, 422, "text_required"),
    ({"text": None}, 422, "text_required"),
    ({"text": "  \n\t "}, 422, "unspeakable_text"),
    ({"text": "?! ... --"}, 422, "unspeakable_text"),
    ({"text": "\U0001f600 \U0001f44d\U0001f3fd"}, 422, "unspeakable_text"),
    ({"text": "\u200b\u00ad"}, 422, "unspeakable_text"),
    ({"text": "a\0b"}, 422, "text_contains_nul"),
    ({"text": "a\ud800b"}, 422, "text_not_unicode"),
    ({"text": "a" * (MAX_JOB_CHARS + 1)}, 422, "text_too_long"),
    ({"text": "a" + "\x01" * (5 * MAX_JOB_CHARS)}, 422, "text_too_long"),
    ({"text": 5}, 422, "invalid_request"),
    ({"voice_id": str(uuid4())}, 404, "voice_not_found"),
    ({"voice_id": "nadia"}, 404, "voice_not_found"),
    ({"voice_id": 7}, 422, "invalid_request"),
    ({"voice_id": None}, 422, "invalid_request"),
    ({"language": "tlh"}, 422, "unsupported_language"),
    ({"language": "\ud800"}, 422, "unsupported_language"),
    ({"format": "au"}, 422, "unsupported_format"),
    ({"format": "wav", "sample_rate": 11_025}, 422, "unsupported_sample_rate"),
    ({"format": "opus", "sample_rate": 44_100}, 422, "unsupported_sample_rate"),
    ({"sample_rate": "24000"}, 422, "invalid_request"),
    ({"speed": 3}, 422, "invalid_request"),
    ({"speed": True}, 422, "invalid_request"),
    ({"speed": 10**400}, 422, "invalid_request"),
    ({"pitch": -13}, 422, "invalid_request"),
    ({"seed": -1}, 422, "invalid_request"),
    ({"seed": 2**32}, 422, "invalid_request"),
    ({"seed": 1.5}, 422, "invalid_request"),
    ({"pronunciations": [{"written": "SQL"}]}, 422, "invalid_request"),
    ({"pronunciations": [{"written": "SQL", "spoken": ""}]}, 422, "invalid_request"),
    ({"pronunciations": [{"written": "S\0", "spoken": "x"}]}, 422, "invalid_request"),
    ({"pronunciations": [{"written": "a", "spoken": "b"}] * 101}, 422, "invalid_request"),
    ({"voice": "nadia"}, 422, "invalid_request"),
    ({"tenant_id": str(uuid4())}, 422, "invalid_request"),
]


@pytest.mark.parametrize("path", ALL)
def test_bad_fields_are_refused_with_a_code_and_leave_nothing(customer: Customer, path: str) -> None:
    for change, status, code in BAD_FIELDS:
        response = customer.post(path, customer.body(**change), **{"Idempotency-Key": "one"})
        assert code_of(response) == (status, code), (change, response.content[:300])
    assert stored(customer) == (0, 0, 0)


def test_the_refusal_names_the_field(customer: Customer) -> None:
    errors = customer.post("/v1/jobs", customer.body(speed="fast", tone="warm")).json()["errors"]
    assert errors == [{"pointer": "/tone", "code": "unknown_field", "message": "There is no such field."}]
    errors = customer.post("/v1/jobs", customer.body(speed="fast")).json()["errors"]
    assert [error["pointer"] for error in errors] == ["/speed"]


@pytest.mark.parametrize("path", ALL)
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_request"),
        (b"\xff\xfe", 400, "malformed_request"),
        (b'{"speed": NaN}', 400, "malformed_request"),
        (b"[" * 100_000, 400, "malformed_request"),
        (b"[]", 422, "invalid_request"),
        (b'"text"', 422, "invalid_request"),
        (b"{}", 422, "invalid_request"),
    ],
)
def test_bodies_that_are_no_request(customer: Customer, path: str, body: bytes, status: int, code: str) -> None:
    assert code_of(customer.post(path, body)) == (status, code)


@pytest.mark.parametrize("path", ALL)
def test_only_json_is_read(customer: Customer, path: str) -> None:
    response = Client().post(path, {"text": "hello"}, headers=customer.headers)
    assert code_of(response) == (415, "unsupported_media_type")


@pytest.mark.parametrize("path", ALL)
def test_a_body_of_many_megabytes_is_refused(customer: Customer, path: str) -> None:
    response = customer.post(path, customer.body("a" * (6 << 20)))
    assert code_of(response) in {(413, "request_too_large"), (422, "text_too_long")}


def test_the_limit_of_speech_is_lower_than_that_of_jobs(customer: Customer) -> None:
    text = "Nine char" * 600
    refused = customer.post("/v1/speech", customer.body(text))
    assert code_of(refused) == (422, "text_too_long")
    assert refused.json()["limit_chars"] == MAX_SPEECH_CHARS
    assert customer.post("/v1/jobs", customer.body(text)).status_code == 202


@pytest.mark.parametrize("path", ALL)
def test_keys_are_asked_for(customer: Customer, path: str) -> None:
    body = json.dumps(customer.body())
    powerless = make_api_key(customer.tenant, scopes=[Scope.VOICES_READ])
    for headers, expected in (
        ({}, (401, "missing_api_key")),
        ({"Authorization": "Bearer nonsense"}, (401, "invalid_api_key")),
        ({"Authorization": f"Bearer {powerless}"}, (403, "insufficient_scope")),
    ):
        response = Client().post(path, body, content_type="application/json", headers=headers)
        assert code_of(response) == expected
    assert stored(customer) == (0, 0, 0)


@pytest.mark.parametrize("path", ACCEPTING)
def test_voices_that_may_not_be_spoken_in(customer: Customer, other_customer: Customer, path: str) -> None:
    preparing = make_voice(customer.tenant, status=VoiceStatus.PREPARING)
    assert code_of(customer.post(path, customer.body(voice_id=str(preparing.id)))) == (409, "voice_not_ready")
    voices.withdraw_consent(tenant_id=customer.tenant.id, voice_id=customer.voice_id, actor="test")
    assert code_of(customer.post(path, customer.body())) == (409, "consent_withdrawn")
    foreign = customer.post(path, customer.body(voice_id=str(other_customer.voice_id)))
    missing = customer.post(path, customer.body(voice_id=str(uuid4())))
    assert code_of(foreign) == code_of(missing) == (404, "voice_not_found")
    assert _without_request_id(foreign) == _without_request_id(missing)
    assert stored(customer) == (0, 0, 0)


def _without_request_id(response: Any) -> str:
    return json.dumps({**response.json(), "request_id": ""}, sort_keys=True)


@pytest.mark.parametrize("path", ACCEPTING)
def test_without_credits_nothing_is_accepted(customer: Customer, path: str) -> None:
    customer.post("/v1/jobs", customer.body("a"))
    with tenant_scope(customer.tenant.id):
        Balance.objects.update(limit_units=10, overage_units=0)
    before = stored(customer)
    refused = customer.post(path, customer.body("More than ten characters."), **{"Idempotency-Key": "one"})
    assert code_of(refused) == (402, "insufficient_credits")
    assert stored(customer) == before


def test_streams_at_once_are_limited(customer: Customer) -> None:
    for _ in range(8):
        customer.submit("hello", kind=JobKind.SPEECH)
    response = customer.post("/v1/speech", customer.body())
    assert code_of(response) == (429, "too_many_concurrent_requests")
    assert int(response["Retry-After"]) >= 1


@pytest.mark.parametrize(("method", "path"), [("get", "/v1/speech"), ("put", "/v1/jobs"), ("post", "/v1/engines")])
def test_other_methods(customer: Customer, method: str, path: str) -> None:
    assert getattr(Client(), method)(path, headers=customer.headers).status_code == 405


# --- jobs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"text": "a"},
        {"text": "今天天气很好。Let us go to the park."},
        {"text": "Cafe\u0301"},
        {"language": "en"},
        {"language": "zh", "text": "你好"},
        {"format": "wav", "sample_rate": 8000},
        {"sample_rate": None},
        {"speed": 0.5, "pitch": 12, "seed": 2**32 - 1},
        {"speed": 2},
        {"pronunciations": [{"written": "there", "spoken": "here"}]},
    ],
)
def test_good_requests_are_done(customer: Customer, change: dict[str, Any]) -> None:
    response = customer.post("/v1/jobs", customer.body(**change))
    assert response.status_code == 202, response.content
    work()
    job = customer.get(response["Location"]).json()
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert job["charged_characters"] == job["characters"] == sum(customer.charges().values())


def test_a_job_from_acceptance_to_its_audio(customer: Customer) -> None:
    response = customer.post("/v1/jobs", customer.body(format="wav", sample_rate=16_000))
    accepted = response.json()
    assert response["Location"] == f"/v1/jobs/{accepted['id']}"
    assert (accepted["status"], accepted["characters"], accepted["charged_characters"]) == ("queued", len(TEXT), 0)
    assert accepted["audio"] is None
    work()
    job = customer.get(response["Location"]).json()
    assert (job["status"], job["charged_characters"], job["engine"]) == ("succeeded", len(TEXT), "fake")
    assert job["audio"]["url"] == f"/v1/jobs/{job['id']}/audio"
    assert job["audio"]["content_type"] == "audio/wav"
    assert job["audio"]["seconds"] > 1
    words = [TEXT[mark["text_start"] : mark["text_end"]] for mark in job["marks"] if mark["kind"] == "word"]
    assert words[:2] == ["Hello", "there."]


def test_jobs_are_listed_newest_first_by_page_and_status(customer: Customer, other_customer: Customer) -> None:
    ids = [customer.post("/v1/jobs", customer.body(f"Text {number}.")).json()["id"] for number in range(5)]
    other_customer.submit()
    customer.delete(f"/v1/jobs/{ids[0]}")
    first = customer.get("/v1/jobs", limit=3).json()
    second = customer.get("/v1/jobs", limit=3, cursor=first["next_cursor"]).json()
    assert [job["id"] for job in [*first["data"], *second["data"]]] == ids[::-1]  # no preparation among them
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    assert "marks" not in first["data"][0]
    assert [job["id"] for job in customer.get("/v1/jobs", status="cancelled").json()["data"]] == [ids[0]]
    assert code_of(customer.get("/v1/jobs", status="odd")) == (422, "invalid_request")
    assert code_of(customer.get("/v1/jobs", cursor="odd")) == (422, "invalid_request")
    assert code_of(customer.get("/v1/jobs", limit="0")) == (422, "invalid_request")


def test_cancelling(customer: Customer) -> None:
    queued = customer.post("/v1/jobs", customer.body()).json()["id"]
    response = customer.delete(f"/v1/jobs/{queued}")
    assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    again = customer.delete(f"/v1/jobs/{queued}")
    assert (again.status_code, again.json()) == (200, response.json())
    running = customer.post("/v1/jobs", customer.body()).json()["id"]
    claimed = must_claim()
    response = customer.delete(f"/v1/jobs/{running}")
    assert (response.status_code, response.json()["status"]) == (202, "running")
    assert response.json()["cancel_requested"] is True
    services.end_cancelled(claimed)
    assert customer.get(f"/v1/jobs/{running}").json()["status"] == "cancelled"
    assert (customer.charges(), customer.held()) == ({}, 0)


def test_jobs_that_are_not_there(customer: Customer, other_customer: Customer) -> None:
    with tenant_scope(customer.tenant.id):
        preparation = SynthesisJob.objects.get(kind=JobKind.PREPARE).id
    foreign = other_customer.submit().id
    bodies = set()
    for job_id in (foreign, uuid4(), preparation, "odd", "..", foreign.hex):
        for suffix in ("", "/audio", "/events"):
            response = customer.get(f"/v1/jobs/{job_id}{suffix}")
            if job_id != "..":
                assert code_of(response) == (404, "job_not_found")
                bodies.add(_without_request_id(response))
    assert code_of(customer.delete(f"/v1/jobs/{foreign}")) == (404, "job_not_found")
    assert len(bodies) == 1
    assert other_customer.job(foreign).status == JobStatus.QUEUED


def test_audio_of_jobs_without_audio(customer: Customer) -> None:
    job = customer.submit()
    assert code_of(customer.get(f"/v1/jobs/{job.id}/audio")) == (409, "job_not_finished")
    services.fail_render(must_claim(), services.Failure("engine_failed", "It broke.", retryable=False))
    assert code_of(customer.get(f"/v1/jobs/{job.id}/audio")) == (500, "engine_failed")
    cancelled = customer.submit()
    services.cancel_job(tenant_id=customer.tenant.id, job_id=cancelled.id)
    assert code_of(customer.get(f"/v1/jobs/{cancelled.id}/audio")) == (409, "job_cancelled")


# --- Idempotency-Key on jobs --------------------------------------------------------------------


def test_a_repeated_job_is_the_first_one(customer: Customer) -> None:
    first = customer.post("/v1/jobs", customer.body(), **{"Idempotency-Key": "one"})
    work()
    second = customer.post("/v1/jobs", customer.body(), **{"Idempotency-Key": "one"})
    assert (second.status_code, second.json(), second["Location"]) == (202, first.json(), first["Location"])
    assert second["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first
    assert len(customer.charges()) == 1
    other = customer.post("/v1/jobs", customer.body("Other."), **{"Idempotency-Key": "one"})
    assert code_of(other) == (422, "idempotency_key_reused")
    assert stored(customer)[0] == 1


def test_a_failed_job_frees_its_key(customer: Customer) -> None:
    first = customer.post("/v1/jobs", customer.body(), **{"Idempotency-Key": "one"}).json()
    services.fail_render(must_claim(), services.Failure("engine_failed", "It broke.", retryable=False))
    second = customer.post("/v1/jobs", customer.body(), **{"Idempotency-Key": "one"}).json()
    assert first["id"] != second["id"]


def test_a_malformed_key_is_refused(customer: Customer) -> None:
    for key in ("", "x" * 256, "caf\xe9"):
        assert code_of(customer.post("/v1/jobs", customer.body(), **{"Idempotency-Key": key}))[0] == 422


# --- what it costs, what there is ---------------------------------------------------------------


@pytest.mark.parametrize("text", [TEXT, "a", "今天天气很好。", "Cafe\u0301 \x07 12", "One.\r\n\r\nTwo."])
def test_the_estimate_is_exactly_the_charge(customer: Customer, text: str) -> None:
    estimate = customer.post("/v1/speech/estimate", customer.body(text)).json()
    assert stored(customer) == (0, 0, 0)
    job = customer.submit(text, language="auto")
    work()
    assert customer.charges() == {job.id: estimate["characters"]}
    assert customer.job(job.id).segments == estimate["segments"]
    assert estimate["price"]["amount_micros"] >= 0
    assert re.fullmatch(r"\d+\.\d{6}", estimate["price"]["amount"])
    assert estimate["predicted_seconds"] > 0


def test_the_catalogue(customer: Customer) -> None:
    languages = {row["code"]: row for row in customer.get("/v1/languages").json()["data"]}
    assert {"en", "zh", "yue", "ja", "ko", "fr", "de", "es"} <= {
        code for code, row in languages.items() if row["tested"]
    }
    (engine,) = customer.get("/v1/engines").json()["data"]
    assert engine["name"] == "parametric"
    assert engine["languages"] == list(languages)
    assert {row["format"] for row in engine["formats"]} == {"wav", "flac", "mp3", "opus", "pcm"}
    assert engine["models"] == []


def test_the_catalogue_of_the_neural_engine_names_its_models(
    customer: Customer, settings: Settings, tmp_path: Path
) -> None:
    for name in ("warm", "bright", "extractors"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    settings.ENGINE, settings.MODEL_PATH = "gpt_sovits", tmp_path
    (engine,) = customer.get("/v1/engines").json()["data"]
    assert (engine["name"], engine["models"]) == ("gpt_sovits", ["bright", "warm"])
    assert engine["languages"] == ["en", "ja", "ko", "yue", "zh"]


# --- OpenAPI ------------------------------------------------------------------------------------


def test_the_description_has_every_route_of_the_url_table() -> None:
    described = Client().get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    table = {
        "/v1/" + re.sub(r"<str:(\w+)>", r"{\1}", str(pattern.pattern))
        for resolver in get_resolver().url_patterns
        if isinstance(resolver, URLResolver) and str(resolver.pattern) == "v1/"
        for pattern in resolver.url_patterns
    }
    paths = {path for path in described["paths"] if path.startswith("/v1/")}
    assert paths == table
    methods = {
        path: set(operations) & {"get", "post", "patch", "delete"} for path, operations in described["paths"].items()
    }
    assert methods["/v1/speech"] == {"post"}
    assert methods["/v1/jobs"] == {"get", "post"}
    assert methods["/v1/jobs/{job_id}"] == {"get", "delete"}
    assert methods["/v1/jobs/{job_id}/audio"] == methods["/v1/jobs/{job_id}/events"] == {"get"}
    assert "SpeechRequest" in described["components"]["schemas"]
