"""Several models side by side: a voice names one, or its tenant does, or the installation's default speaks."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from synthesis import worker
from synthesis.engines.base import SpeechEngine
from synthesis.engines.errors import EngineError
from synthesis.engines.fake import FakeEngine
from synthesis.engines.gpt_sovits.errors import ModelFileError, ModelNotFoundError
from synthesis.models import JobStatus
from tenants import services as tenants
from tenants.scoping import tenant_scope
from tests.synthesis.jobs import Customer, code_of, work
from voices import selectors as voices
from voices.models import VoiceStatus


class Models:
    """Two installed models; the default is `plain`."""

    def __init__(self) -> None:
        self.engines = {name: FakeEngine(version=f"1-{name}") for name in ("plain", "bright")}

    def open(self, model: str) -> SpeechEngine:
        try:
            return self.engines[model or "plain"]
        except KeyError:
            raise ModelNotFoundError(f"/srv/models has no {model}.", name=model) from None


@pytest.fixture
def models(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> Models:
    installed = Models()
    monkeypatch.setattr(worker, "_engines", installed)
    worker.use_engine(None)
    return installed


def patch(customer: Customer, **changes: object) -> tuple[int, dict[str, object]]:
    answer = Client().patch(
        f"/v1/voices/{customer.voice_id}",
        json.dumps(changes),
        content_type="application/json",
        headers=customer.headers,
    )
    return answer.status_code, answer.json()


def spoken_with(customer: Customer) -> str:
    job = customer.submit()
    work()
    done = customer.job(job.id)
    assert done.status == JobStatus.SUCCEEDED, done.error_code
    return done.engine_version


def test_the_voice_names_its_model_before_the_tenant_does(customer: Customer, models: Models) -> None:
    assert spoken_with(customer) == "1-plain"
    tenants.set_voice_model(tenant_id=customer.tenant.id, model="bright", actor="test")
    assert spoken_with(customer) == "1-bright"
    status, body = patch(customer, model="plain")
    assert (status, body["model"], body["status"]) == (200, "plain", "preparing")
    work()
    assert spoken_with(customer) == "1-plain"
    assert {name: engine.voices_prepared for name, engine in models.engines.items()} == {"plain": 1, "bright": 1}


def test_the_same_model_again_prepares_nothing(customer: Customer, models: Models) -> None:
    assert patch(customer, model="", name="Renamed")[1]["status"] == "ready"
    assert work() == 0


def test_what_is_wrong_with_a_model_is_not_told_to_the_tenant(
    customer: Customer, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(model: str) -> SpeechEngine:
        raise ModelFileError("/srv/models/plain/vits.safetensors is missing. Import the model again.")

    monkeypatch.setattr(models, "open", damaged)
    job = customer.submit()
    work()
    done = customer.job(job.id)
    assert (done.status, done.error_code) == (JobStatus.FAILED, "model_unavailable")
    assert "/srv" not in done.error_message
    assert customer.charges() == {}


def test_a_model_that_is_not_installed_fails_the_voice_by_name(customer: Customer, models: Models) -> None:
    assert patch(customer, model="missing")[0] == 200
    work()
    with tenant_scope(customer.tenant.id):
        voice = voices.get_voice(voice_id=customer.voice_id)
    assert (voice.status, voice.failure_code) == (VoiceStatus.FAILED, "model_not_found")
    assert voice.failure_message == "There is no model 'missing'."
    assert code_of(customer.post("/v1/speech", customer.body()))[0] == 409
    assert customer.charges() == {}
    patch(customer, model="bright")
    work()
    assert spoken_with(customer) == "1-bright"


@pytest.mark.parametrize("name", ["../etc", "Bright", "a b", "x" * 65, "-x"])
def test_a_malformed_name_is_refused(customer: Customer, models: Models, name: str) -> None:
    status, body = patch(customer, model=name)
    assert (status, body["code"]) == (422, "invalid_request")


def test_errors_of_models_are_not_retried() -> None:
    assert issubclass(ModelNotFoundError, EngineError)
    assert not ModelNotFoundError.retryable
