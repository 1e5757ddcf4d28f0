"""Rows for tests: they say as little as possible; what a test is about is written in the test."""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
from typing import Any

from django.utils import timezone

from billing import services as billing
from synthesis.contracts import BATCH_QUEUE, AudioFormat
from synthesis.models import JobKind, SynthesisJob
from tenants import services as tenants
from tenants.ids import new_id
from tenants.models import Scope, Tenant
from tenants.scoping import tenant_scope
from voices.models import Consent, ConsentKind, Voice, VoiceStatus

_numbers = itertools.count(1)


def make_tenant(slug: str | None = None, *, plan: str = "standard") -> Tenant:
    """A tenant with an account."""
    slug = slug or f"tenant-{next(_numbers)}"
    tenant = tenants.create_tenant(slug=slug, name=slug, actor="test")
    billing.open_account(tenant_id=tenant.id, plan_slug=plan)
    return tenant


def make_api_key(tenant: Tenant, *, scopes: Any = Scope.values, **fields: Any) -> str:
    """The secret of a new key."""
    return tenants.create_api_key(tenant_id=tenant.id, name="test", actor="test", scopes=scopes, **fields).secret


def make_voice(tenant: Tenant, *, status: VoiceStatus = VoiceStatus.READY, **fields: Any) -> Voice:
    """A voice row with live consent, without audio."""
    with tenant_scope(tenant.id):
        voice: Voice = Voice.objects.create(tenant_id=tenant.id, name="Nadia", status=status, **fields)
        statement = "I agree."
        Consent.objects.create(
            tenant_id=tenant.id,
            voice=voice,
            kind=ConsentKind.GIVEN,
            statement=statement,
            statement_sha256=hashlib.sha256(statement.encode()).hexdigest(),
            actor="test",
        )
    return voice


def make_job(tenant: Tenant, *, voice: Voice | None = None, text: str = "hello", **fields: Any) -> SynthesisJob:
    """A queued batch job with its held reservation."""
    voice = voice or make_voice(tenant)
    with tenant_scope(tenant.id):
        defaults: dict[str, Any] = {
            "kind": JobKind.BATCH,
            "queue": BATCH_QUEUE,
            "language": "en",
            "audio_format": AudioFormat.WAV,
            "sample_rate_hz": 24_000,
            "billable_chars": len(text),
            "deadline_at": timezone.now() + dt.timedelta(hours=1),
        }
        job_id = new_id()
        billing.reserve(tenant_id=tenant.id, job_id=job_id, units=len(text))
        job: SynthesisJob = SynthesisJob.objects.create(
            id=job_id, tenant_id=tenant.id, voice=voice, text=text, **{**defaults, **fields}
        )
    return job
