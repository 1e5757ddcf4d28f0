"""What other apps may need to know about voices: signals, because voices must not know synthesis.

Each is sent inside the transaction of the change, so that what a receiver writes is kept or lost with it.
"""

from __future__ import annotations

from django.dispatch import Signal

voice_to_learn = Signal()  # uploaded, or given another model; tenant_id: UUID, voice_id: UUID
voice_erased = Signal()  # tenant_id: UUID, voice_id: UUID
consent_withdrawn = Signal()  # tenant_id: UUID, voice_id: UUID
