"""What tests of jobs do again and again: a customer with a learned voice, its jobs, and what they were charged."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from typing import Any
from uuid import UUID

from django.core.management import call_command
from django.test import Client

from billing import selectors as billing_selectors
from billing.models import EntryKind, LedgerEntry, Reservation, ReservationState
from synthesis import services, worker
from synthesis.contracts import BATCH_QUEUE, SPEECH_QUEUE, AudioFormat, RenderRequest
from synthesis.models import JobKind, SynthesisJob
from synthesis.services import Claim
from tenants.models import Tenant
from tenants.scoping import tenant_scope
from tests.factories import make_api_key, make_tenant
from voices import services as voices
from voices.intake import InspectedClip

QUEUES = (SPEECH_QUEUE, BATCH_QUEUE)
TEXT = "Hello there. How are you today? This is the last sentence."


def render_request(text: str = TEXT, **changes: Any) -> RenderRequest:
    fields: dict[str, Any] = {"language": "en", "audio_format": AudioFormat.PCM, "sample_rate_hz": 24_000, **changes}
    return RenderRequest(text=text, **fields)


@dataclass(frozen=True)
class Customer:
    """A tenant, its API key, and a voice that is ready."""

    tenant: Tenant
    secret: str
    voice_id: UUID

    @classmethod
    def make(cls, clip: InspectedClip) -> Customer:
        tenant = make_tenant()
        voice = voices.create_voice(tenant_id=tenant.id, name="Nadia", clip=clip, actor="test")
        assert worker.work(queues=[SPEECH_QUEUE]) == 1
        return cls(tenant=tenant, secret=make_api_key(tenant), voice_id=voice.id)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}

    def submit(self, text: str = TEXT, *, kind: JobKind = JobKind.BATCH, **changes: Any) -> SynthesisJob:
        return services.submit_job(
            tenant_id=self.tenant.id,
            kind=kind,
            voice_id=self.voice_id,
            request=render_request(text, **changes),
            api_key_id=None,
        )

    def job(self, job_id: UUID) -> SynthesisJob:
        with tenant_scope(self.tenant.id):
            job: SynthesisJob = SynthesisJob.objects.get(id=job_id)
        return job

    def change(self, job_id: UUID, **fields: Any) -> None:
        """Let time pass for one job: write its row as the database would hold it later."""
        with tenant_scope(self.tenant.id):
            SynthesisJob.objects.filter(id=job_id).update(**fields)

    def charges(self) -> dict[UUID, int]:
        """Units of the usage entries, by job."""
        with tenant_scope(self.tenant.id):
            entries = LedgerEntry.objects.filter(kind=EntryKind.USAGE)
            return {entry.job_id: entry.units for entry in entries if entry.job_id is not None}

    def held(self) -> int:
        """Units of reservations that have not ended."""
        with tenant_scope(self.tenant.id):
            reservations = Reservation.objects.filter(state=ReservationState.HELD)
            return sum(reservation.units for reservation in reservations)

    def settled(self) -> int:
        return billing_selectors.get_balance(tenant_id=self.tenant.id).settled

    # --- over HTTP ---

    def body(self, text: str = TEXT, **changes: Any) -> dict[str, Any]:
        return {"voice_id": str(self.voice_id), "text": text, "format": "pcm", **changes}

    def post(self, path: str, body: Any, **headers: str) -> Any:
        data = body if isinstance(body, str | bytes) else json.dumps(body)
        return Client().post(path, data, content_type="application/json", headers={**self.headers, **headers})

    def get(self, path: str, **query: Any) -> Any:
        return Client().get(path, query, headers=self.headers)

    def delete(self, path: str) -> Any:
        return Client().delete(path, headers=self.headers)


def claim(*, worker_id: str = "worker-1") -> Claim | None:
    return services.claim_job(queues=QUEUES, worker_id=worker_id)


def must_claim(*, worker_id: str = "worker-1") -> Claim:
    found = claim(worker_id=worker_id)
    assert found is not None
    return found


def work() -> int:
    """What a worker does with one ring of each queue."""
    return sum(worker.work(queues=[queue]) for queue in QUEUES)


def findings() -> list[str]:
    """What `reconcile` prints."""
    output = StringIO()
    with suppress(SystemExit):
        call_command("reconcile", stdout=output, stderr=StringIO())
    return output.getvalue().splitlines()


def code_of(response: Any) -> tuple[int, str]:
    """Status and stable code of a refusal, which is a problem document."""
    assert response["Content-Type"] == "application/problem+json", response.content
    return response.status_code, json.loads(response.content)["code"]
