"""Connects the signals of voices to jobs. What happens here commits, or not, with the change that was signalled."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from django.db import transaction
from django.dispatch import receiver

from synthesis import prompts, services
from voices import signals


@receiver(signals.voice_to_learn, dispatch_uid="synthesis.learn_voice")
def learn_voice(*, tenant_id: UUID, voice_id: UUID, **_: object) -> None:
    services.submit_preparation(tenant_id=tenant_id, voice_id=voice_id)


@receiver(signals.voice_erased, dispatch_uid="synthesis.forget_erased_voice")
@receiver(signals.consent_withdrawn, dispatch_uid="synthesis.forget_withdrawn_voice")
def forget_voice(*, tenant_id: UUID, voice_id: UUID, **_: object) -> None:
    services.cancel_jobs_of_voice(tenant_id=tenant_id, voice_id=voice_id)
    transaction.on_commit(partial(prompts.purge, tenant_id=tenant_id, voice_id=voice_id), robust=True)
