"""`/v1/voices` as a tenant's program sees it."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from typing import Any
from uuid import UUID, uuid4

import pytest
import soundfile
from django.db import connection, connections

from tenants.models import Scope
from tenants.scoping import tenant_scope
from tests.voices.conftest import CLIP_SECONDS, Api, add_key, code_of, make_ready, stored_files
from voices import consent, services, signals
from voices.models import Consent, PreparedVoice, ReferenceClip, Voice, VoiceKey


def row_counts(api: Api) -> dict[str, int]:
    with tenant_scope(api.tenant.id):
        return {model.__name__: model.objects.count() for model in (Voice, VoiceKey, ReferenceClip, Consent)}


# --- making a voice ----------------------------------------------------------------------------------------------


def test_a_recording_becomes_a_voice(api: Api, recording: bytes) -> None:
    response = api.upload(
        recording,
        filename="nadia.wav",
        consent_speaker="Nadia R.",
        language="en-GB",
        transcript="Nine quick words.",
        labels='{"style": "news", "Stil": "Nachrichten"}',
        description="For the evening edition.\nSecond line.",
    )
    body = response.json()
    assert response.status_code == 201, body
    assert response["Location"] == f"/v1/voices/{body['id']}"
    assert body["name"] == "Nadia"
    assert body["status"] == "preparing"
    assert body["failure"] is None
    assert body["language"] == "en-gb"
    assert body["labels"] == {"style": "news", "Stil": "Nachrichten"}
    assert body["description"] == "For the evening edition.\nSecond line."
    assert body["clip"]["seconds"] == pytest.approx(CLIP_SECONDS, abs=0.2)
    assert body["clip"]["sample_rate_hz"] == 24_000
    assert body["clip"]["filename"] == "nadia.wav"
    assert body["clip"]["transcript"] == "Nine quick words."
    assert 0 < body["clip"]["quality"]["score"] <= 100
    assert body["clip"]["quality"]["original_seconds"] == pytest.approx(CLIP_SECONDS, abs=0.001)
    assert body["consent"]["status"] == "given"
    assert body["consent"]["statement"] == consent.GIVEN.text
    assert body["consent"]["statement_sha256"] == hashlib.sha256(consent.GIVEN.text.encode()).hexdigest()
    assert body["consent"]["speaker"] == "Nadia R."
    assert api.get(response["Location"]).json() == body


def test_the_words_of_consent_may_be_the_callers_own(api: Api, recording: bytes) -> None:
    given = api.upload(recording, consent_statement="Ja, ich will.", consent="TRUE").json()["consent"]
    assert (given["statement"], given["statement_version"]) == ("Ja, ich will.", "")
    assert given["statement_sha256"] == hashlib.sha256(b"Ja, ich will.").hexdigest()
    with tenant_scope(api.tenant.id):
        row = Consent.objects.get()
    assert row.actor.startswith("key:")
    assert row.remote_address == "127.0.0.1"


def test_whoever_prepares_voices_is_told_in_the_same_transaction(api: Api, recording: bytes) -> None:
    heard: list[tuple[Any, bool]] = []

    def listen(sender: object, *, tenant_id: UUID, voice_id: UUID, **kwargs: Any) -> None:
        heard.append(((tenant_id, str(voice_id)), connection.in_atomic_block))

    signals.voice_to_learn.connect(listen)
    try:
        voice = api.upload(recording).json()
    finally:
        signals.voice_to_learn.disconnect(listen)
    assert heard == [((api.tenant.id, voice["id"]), True)]


def test_nothing_is_kept_when_preparing_cannot_be_queued(api: Api, recording: bytes) -> None:
    def refuse(sender: object, **kwargs: Any) -> None:
        raise RuntimeError("no queue")

    signals.voice_to_learn.connect(refuse)
    try:
        response = api.upload(recording, idempotency_key="again")
    finally:
        signals.voice_to_learn.disconnect(refuse)
    assert code_of(response) == (500, "internal_error")
    assert set(row_counts(api).values()) == {0}
    assert stored_files() == []
    assert api.upload(recording, idempotency_key="again").status_code == 201


def test_a_program_needs_the_scope(api: Api, recording: bytes) -> None:
    reader = add_key(api.tenant, scopes=[Scope.VOICES_READ])
    writer = add_key(api.tenant, scopes=[Scope.VOICES_WRITE])
    voice = writer.upload(recording).json()
    path = f"/v1/voices/{voice['id']}"
    for refused in (
        reader.upload(recording),
        reader.patch(path, {"name": "x"}),
        reader.delete(path),
        reader.post(f"{path}/consent/withdraw"),
        writer.get("/v1/voices"),
        writer.get(path),
    ):
        assert code_of(refused) == (403, "insufficient_scope")
    assert reader.get(path).json() == voice
    nobody = Api(tenant=api.tenant, secret="")
    assert code_of(nobody.upload(recording)) == (401, "missing_api_key")
    assert row_counts(api)["Voice"] == 1


# --- once ----------------------------------------------------------------------------------------------------------


def test_a_repeated_upload_makes_one_voice(api: Api, other_api: Api, recording: bytes) -> None:
    first = api.upload(recording, idempotency_key="k1", labels='{"a": "1", "b": "2"}')
    again = api.upload(recording, idempotency_key="k1", labels='{"b": "2", "a": "1"}')
    assert (again.status_code, again.json(), again["Location"]) == (201, first.json(), first["Location"])
    assert "Idempotency-Replayed" not in first
    assert again["Idempotency-Replayed"] == "true"
    assert row_counts(api) == {"Voice": 1, "VoiceKey": 1, "ReferenceClip": 1, "Consent": 1}
    assert len(stored_files()) == 1
    # Another key, no key, another tenant's key: other voices.
    ids = {
        first.json()["id"],
        api.upload(recording, idempotency_key="k2").json()["id"],
        api.upload(recording).json()["id"],
    }
    ids.add(other_api.upload(recording, idempotency_key="k1", labels='{"a": "1", "b": "2"}').json()["id"])
    assert len(ids) == 4


def test_a_key_used_with_another_request_is_refused(api: Api, recording: bytes) -> None:
    api.upload(recording, idempotency_key="k1")
    for another in (
        api.upload(recording, idempotency_key="k1", name="Nadja"),
        api.upload(recording + bytes(2), idempotency_key="k1"),
    ):
        assert code_of(another) == (422, "idempotency_key_reused")
    assert row_counts(api)["Voice"] == 1
    assert len(stored_files()) == 1


def test_a_refused_upload_leaves_the_key_free(api: Api, recording: bytes) -> None:
    assert api.upload(b"", idempotency_key="k1").status_code == 400
    assert api.upload(recording, idempotency_key="k1").status_code == 201


def test_twins_at_the_same_time_make_one_voice(api: Api, recording: bytes) -> None:
    responses: list[Any] = []
    start = threading.Barrier(2)

    def upload() -> None:
        start.wait()
        try:
            responses.append(api.upload(recording, idempotency_key="twin"))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=upload) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [response.status_code for response in responses] == [201, 201]
    assert responses[0].json()["id"] == responses[1].json()["id"]
    assert row_counts(api) == {"Voice": 1, "VoiceKey": 1, "ReferenceClip": 1, "Consent": 1}
    assert len(stored_files()) == 1


# --- looking, changing ----------------------------------------------------------------------------------------------


def test_voices_are_listed_newest_first_in_pages(api: Api, other_api: Api, recording: bytes) -> None:
    names = ["Anna", "Bernd", "Annika"]
    voices = {name: api.upload(recording, name=name).json() for name in names}
    other_api.upload(recording, name="Anna")
    make_ready(api, voices["Bernd"]["id"])

    page = api.get("/v1/voices", limit=2).json()
    assert [voice["name"] for voice in page["data"]] == ["Annika", "Bernd"]
    assert page["data"][0] == voices["Annika"]
    assert page["has_more"] is True
    rest = api.get("/v1/voices", limit=2, cursor=page["next_cursor"]).json()
    assert ([voice["name"] for voice in rest["data"]], rest["has_more"], rest["next_cursor"]) == (["Anna"], False, None)

    def found(**query: str) -> list[str]:
        return [voice["name"] for voice in api.get("/v1/voices", **query).json()["data"]]

    assert found(search="ann") == ["Annika", "Anna"]
    assert found(status="ready") == ["Bernd"]
    assert found(status="preparing", search="ANNA") == ["Anna"]
    assert found(search="100%") == []


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "101"}, {"status": "erased"}, {"cursor": "%%"}, {"cursor": "cD1uZXZlcg=="}]
)
def test_a_bad_question_is_refused(api: Api, recording: bytes, query: dict[str, str]) -> None:
    api.upload(recording)
    assert code_of(api.get("/v1/voices", **query)) == (422, "invalid_request")


def test_a_list_takes_the_same_number_of_queries_however_long(
    api: Api, recording: bytes, django_assert_max_num_queries: Any
) -> None:
    for _ in range(3):
        api.upload(recording)
    with django_assert_max_num_queries(9) as few:
        assert len(api.get("/v1/voices", limit=1).json()["data"]) == 1
    with django_assert_max_num_queries(len(few)):
        assert len(api.get("/v1/voices").json()["data"]) == 3


def test_a_voice_can_be_renamed_and_relabelled(api: Api, recording: bytes) -> None:
    voice = api.upload(recording, labels='{"old": "1"}', description="old").json()
    path = f"/v1/voices/{voice['id']}"
    changed = api.patch(path, {"name": "Nadja", "labels": {"new": "2"}, "language": "DE"})
    assert changed.status_code == 200
    assert changed.json() == {**voice, "name": "Nadja", "labels": {"new": "2"}, "language": "de"}
    assert api.patch(path, {}).json() == changed.json() == api.get(path).json()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "a\nb"}, "/name"),
        ({"name": "a\x00b"}, "/name"),
        ({"name": "\ud800"}, "/name"),
        ({"name": "x" * 201}, "/name"),
        ({"description": "x" * 2001}, "/description"),
        ({"language": "klingon"}, "/language"),
        ({"language": "../en"}, "/language"),
        ({"labels": {"a": 1}}, "/labels"),
        ({"labels": {"": "a"}}, "/labels"),
        ({"labels": {"a\ud800": "a"}}, "/labels"),
        ({"labels": {"a": "x" * 257}}, "/labels"),
        ({"labels": {str(n): "" for n in range(33)}}, "/labels"),
        ({"labels": '{"a": "b"}'}, "/labels"),
        ({"labels": None}, "/labels"),
        ({"status": "ready"}, "/status"),
        ({"\ud800": 1}, "/\\ud800"),
        ([], ""),
    ],
)
def test_a_bad_change_is_refused_and_changes_nothing(api: Api, recording: bytes, body: Any, pointer: str) -> None:
    voice = api.upload(recording).json()
    path = f"/v1/voices/{voice['id']}"
    response = api.patch(path, body)
    assert code_of(response) == (422, "invalid_request")
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert api.get(path).json() == voice


def test_a_body_that_is_no_json_is_refused(api: Api, recording: bytes) -> None:
    path = f"/v1/voices/{api.upload(recording).json()['id']}"
    for body in ("{", '{"name": NaN}', "[" * 100_000):
        assert code_of(api.patch(path, body)) == (400, "malformed_request"), body[:20]


# --- whose voice ----------------------------------------------------------------------------------------------------


def without_request_id(response: Any) -> tuple[int, bytes, dict[str, str]]:
    request_id = response["X-Request-Id"]
    headers = {name: value for name, value in response.items() if name != "X-Request-Id"}
    return response.status_code, response.content.replace(request_id.encode(), b""), headers


def test_another_tenants_voice_is_a_missing_one(api: Api, other_api: Api, recording: bytes) -> None:
    theirs = other_api.upload(recording).json()["id"]
    before = stored_files()
    calls = {
        "get": lambda voice_id: api.get(f"/v1/voices/{voice_id}"),
        "patch": lambda voice_id: api.patch(f"/v1/voices/{voice_id}", {"name": "mine now"}),
        "delete": lambda voice_id: api.delete(f"/v1/voices/{voice_id}"),
        "withdraw": lambda voice_id: api.post(f"/v1/voices/{voice_id}/consent/withdraw"),
    }
    for name, call in calls.items():
        missing = call(uuid4())
        assert code_of(missing) == (404, "voice_not_found"), name
        for voice_id in (theirs, "not-an-id", "{" + theirs + "}", theirs.replace("-", ""), "%00", "\u0661"):
            assert without_request_id(call(voice_id)) == without_request_id(missing), (name, voice_id)
    assert api.get("/v1/voices").json()["data"] == []
    assert other_api.get(f"/v1/voices/{theirs}").json()["name"] == "Nadia"
    assert stored_files() == before


# --- consent --------------------------------------------------------------------------------------------------------


def test_withdrawing_consent_is_final_and_shown(api: Api, recording: bytes) -> None:
    voice = api.upload(recording, consent_speaker="Nadia R.").json()
    path = f"/v1/voices/{voice['id']}"
    answer = api.post(f"{path}/consent/withdraw")
    assert answer.status_code == 200
    assert answer.json()["consent"]["status"] == "withdrawn"
    assert answer.json()["consent"]["speaker"] == "Nadia R."
    assert api.post(f"{path}/consent/withdraw").json() == answer.json() == api.get(path).json()
    with tenant_scope(api.tenant.id):
        assert list(Consent.objects.order_by("recorded_at").values_list("kind", flat=True)) == ["given", "withdrawn"]


# --- erasing --------------------------------------------------------------------------------------------------------


def test_an_erased_voice_is_gone(api: Api, recording: bytes) -> None:
    kept = api.upload(recording, name="kept").json()
    kept_files = stored_files()
    voice = api.upload(recording, idempotency_key="k", transcript="secret words", labels='{"a": "b"}').json()
    path = f"/v1/voices/{voice['id']}"
    services.store_prepared_voice(
        tenant_id=api.tenant.id,
        voice_id=UUID(voice["id"]),
        key_epoch=1,
        engine="test",
        engine_version="1",
        audio_digest="0" * 64,
        data=b"what was learned",
    )
    make_ready(api, voice["id"])
    assert len(stored_files()) == 3

    response = api.delete(path)
    assert (response.status_code, response.content) == (204, b"")
    assert stored_files() == kept_files
    for gone in (api.get(path), api.patch(path, {"name": "x"}), api.delete(path), api.post(f"{path}/consent/withdraw")):
        assert code_of(gone) == (404, "voice_not_found")
    assert [item["id"] for item in api.get("/v1/voices").json()["data"]] == [kept["id"]]
    with tenant_scope(api.tenant.id):
        row = Voice.objects.get(id=voice["id"])
        assert (row.status, row.key_epoch, row.labels, row.description) == ("erased", 2, {}, "")
        assert Consent.objects.filter(voice=row).count() == 1  # the proof that it was allowed
        for model in (VoiceKey, ReferenceClip, PreparedVoice):
            assert not model.objects.filter(voice=row).exists(), model
    # A retry of the upload that made it makes a new one.
    again = api.upload(recording, idempotency_key="k", transcript="secret words", labels='{"a": "b"}').json()
    assert again["id"] != voice["id"]


def test_what_is_stored_is_the_audio_and_only_its_tenant_can_open_it(api: Api, recording: bytes) -> None:
    voice = api.upload(recording).json()
    (stored,) = services.read_reference_clips(tenant_id=api.tenant.id, voice_id=UUID(voice["id"]))
    samples, rate = soundfile.read(io.BytesIO(stored.wav), dtype="int16")
    original, _ = soundfile.read(io.BytesIO(recording), dtype="int16")
    window = voice["clip"]["quality"]
    start, end = round(window["start_seconds"] * rate), round(window["end_seconds"] * rate)
    assert samples.tobytes() == original[start:end].tobytes()
    assert stored.audio_digest == hashlib.sha256(stored.wav).hexdigest()
    (path,) = stored_files()
    assert path.parts[-5:-2] == (str(api.tenant.id), "clips", path.parts[-3])
    assert json.dumps(voice).find("clips/") == -1  # where it lies is nobody's business
