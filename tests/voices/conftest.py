from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import pytest
from django.conf import settings
from django.test import Client

from tenants import services as tenants
from tenants.models import Scope, Tenant
from tests.voices.uploads import encode, speech
from voices import services
from voices.intake import InspectedClip, inspect_upload

CLIP_SECONDS = 4.0


@dataclass(frozen=True)
class Api:
    """Calls in the name of one tenant, through the whole HTTP stack."""

    tenant: Tenant
    secret: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}

    def get(self, path: str, **query: Any) -> Any:
        return Client().get(path, query, headers=self.headers)

    def post(self, path: str) -> Any:
        return Client().post(path, headers=self.headers)

    def delete(self, path: str) -> Any:
        return Client().delete(path, headers=self.headers)

    def patch(self, path: str, body: Any) -> Any:
        data = body if isinstance(body, str) else json.dumps(body)
        return Client().patch(path, data, content_type="application/json", headers=self.headers)

    def upload(
        self,
        audio: bytes | str | None,
        *,
        filename: str = "nadia.wav",
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Any:
        """`POST /v1/voices` with a good form, changed by `fields`; a field that is None is not sent."""
        form: dict[str, Any] = {"name": "Nadia", "consent": "true", **fields}
        form = {name: value for name, value in form.items() if value is not None}
        if isinstance(audio, str):
            form["audio"] = audio
        elif audio is not None:
            file = io.BytesIO(audio)
            file.name = filename
            form["audio"] = file
        headers = {**self.headers, **({"Idempotency-Key": idempotency_key} if idempotency_key else {})}
        return Client().post("/v1/voices", form, headers=headers)


def make_api(slug: str, *, scopes: Sequence[str] = tuple(Scope.values)) -> Api:
    tenant = tenants.create_tenant(slug=slug, name=slug, actor="test")
    key = tenants.create_api_key(tenant_id=tenant.id, name="test", actor="test", scopes=scopes)
    return Api(tenant=tenant, secret=key.secret)


def add_key(tenant: Tenant, *, scopes: Sequence[str]) -> Api:
    key = tenants.create_api_key(tenant_id=tenant.id, name="test", actor="test", scopes=scopes)
    return Api(tenant=tenant, secret=key.secret)


def make_ready(api: Api, voice_id: str) -> None:
    """What a worker does when it has learned a voice."""
    assert services.mark_voice_ready(tenant_id=api.tenant.id, voice_id=UUID(voice_id), key_epoch=1)


def stored_files() -> list[Path]:
    """Everything in the object store, of all tenants."""
    root = Path(unquote(urlsplit(settings.STORAGE_URL).path))
    return sorted(path for path in root.rglob("*") if path.is_file())


def code_of(response: Any) -> tuple[int, str]:
    """Status and stable code of a refusal, which is a problem document."""
    assert response["Content-Type"] == "application/problem+json", response.content
    return response.status_code, json.loads(response.content)["code"]


@pytest.fixture
def api() -> Api:
    return make_api("mine")


@pytest.fixture
def other_api() -> Api:
    return make_api("other")


@pytest.fixture(scope="session")
def recording() -> bytes:
    """A WAV file of 4 seconds."""
    return encode(speech(CLIP_SECONDS))


@pytest.fixture(scope="session")
def clip(recording: bytes) -> InspectedClip:
    return inspect_upload(io.BytesIO(recording), declared_filename=None, declared_content_type=None)
