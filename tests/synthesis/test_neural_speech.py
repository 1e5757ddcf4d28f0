"""`ENGINE=gpt_sovits` over HTTP: a clip becomes a voice and the voice speaks, with a tiny untrained model."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import soundfile
from pytest_django import Settings

from synthesis import worker
from synthesis.engines.gpt_sovits import pipeline
from synthesis.models import JobStatus
from tenants.models import Tenant
from tests.engines.gpt_sovits.conftest import END_LOGIT
from tests.engines.gpt_sovits.random_models import install
from tests.factories import make_api_key, make_tenant
from tests.synthesis.jobs import Customer, findings, work
from tests.synthesis.serving import serving, working
from tests.synthesis.test_speech_streaming import last_job
from tests.voices.uploads import encode, speech
from voices.models import VoiceStatus

TEXT = "今天天气真好，我们去公园散步吧。The kettle is on, 3 cups please."


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    install(folder, tmp_path_factory.mktemp("checkpoints"), end_logit=END_LOGIT)
    return folder


@pytest.fixture
def neural(settings: Settings, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process works with the model. What the guards say of an untrained network's codes is luck."""
    settings.ENGINE, settings.MODEL_PATH, settings.ENGINE_DEVICE = "gpt_sovits", models, "cpu"
    monkeypatch.setattr(worker, "_engines", None)
    monkeypatch.setattr(pipeline, "loops", lambda codes: False)
    monkeypatch.setattr(pipeline, "judge_codes", lambda codes, limits, *, ended: None)
    yield
    if worker._engines is not None:
        worker.get_engine().close()


@pytest.fixture
def tenant() -> Tenant:
    return make_tenant()


def upload(server: str, secret: str, **fields: str) -> httpx.Response:
    return httpx.post(
        f"{server}/v1/voices",
        headers={"Authorization": f"Bearer {secret}"},
        data={"name": "Nadia", "consent": "true", **fields},
        files={"audio": ("nadia.wav", encode(speech(4.0)))},
        timeout=30,
    )


def customer_of(tenant: Tenant, secret: str, answer: httpx.Response) -> Customer:
    assert answer.status_code == 201, answer.text
    return Customer(tenant=tenant, secret=secret, voice_id=answer.json()["id"])


@pytest.mark.parametrize(
    "fields", [{"language": "zh", "transcript": "今天天气好。"}, {}], ids=["transcript", "no words"]
)
def test_a_clip_becomes_a_voice_that_speaks(
    neural: None, settings: Settings, tenant: Tenant, fields: dict[str, str]
) -> None:
    secret = make_api_key(tenant)
    with serving(settings) as server:
        customer = customer_of(tenant, secret, upload(server, secret, **fields))
        work()
        voice = httpx.get(f"{server}/v1/voices/{customer.voice_id}", headers=customer.headers).json()
        assert voice["status"] == VoiceStatus.READY, voice["failure"]
        with working():
            response = httpx.post(
                f"{server}/v1/speech",
                json=customer.body(TEXT, format="wav", sample_rate=32_000),
                headers=customer.headers,
                timeout=60,
            )
    assert response.status_code == 200, response.text
    assert response.headers["x-engine"] == "gpt_sovits"
    samples, rate_hz = soundfile.read(io.BytesIO(response.content))
    assert rate_hz == 32_000
    assert len(samples) > rate_hz
    job = last_job(customer)
    assert (job.status, job.engine) == (JobStatus.SUCCEEDED, "gpt_sovits")
    assert job.engine_version == worker.get_engine().version
    assert customer.charges() == {job.id: len(TEXT)}
    assert findings() == []


def test_a_transcript_in_a_language_it_does_not_speak_fails_the_voice_in_words(
    neural: None, settings: Settings, tenant: Tenant
) -> None:
    secret = make_api_key(tenant)
    with serving(settings) as server:
        customer = customer_of(tenant, secret, upload(server, secret, language="de", transcript="Guten Tag."))
        work()
        voice = httpx.get(f"{server}/v1/voices/{customer.voice_id}", headers=customer.headers).json()
    assert voice["status"] == VoiceStatus.FAILED
    assert voice["failure"]["code"] == "unsupported_language"
    assert customer.charges() == {}
