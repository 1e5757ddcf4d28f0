"""How what is stored of a voice is encrypted: with the voice's own key, bound to tenant, voice, kind and epoch."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from tenants import encryption
from tenants.storage import Kind


@dataclass(frozen=True, slots=True)
class VoiceSeal:
    """Seals and opens the objects of one voice. Knows the wrapped key only; without the master key it is nothing."""

    tenant_id: UUID
    voice_id: UUID
    wrapped_key: bytes

    @classmethod
    def with_new_key(cls, *, tenant_id: UUID, voice_id: UUID) -> VoiceSeal:
        wrapped_key = encryption.make_wrapped_key(context=_key_context(tenant_id, voice_id))
        return cls(tenant_id=tenant_id, voice_id=voice_id, wrapped_key=wrapped_key)

    def seal(self, data: bytes, *, kind: Kind, epoch: int) -> bytes:
        return encryption.seal(
            data,
            wrapped_key=self.wrapped_key,
            key_context=_key_context(self.tenant_id, self.voice_id),
            context=self._context(kind, epoch),
        )

    def unseal(self, sealed: bytes, *, kind: Kind, epoch: int) -> bytes:
        """Raises SealBrokenError for changed bytes and for what was sealed as something else."""
        return encryption.unseal(
            sealed,
            wrapped_key=self.wrapped_key,
            key_context=_key_context(self.tenant_id, self.voice_id),
            context=self._context(kind, epoch),
        )

    def _context(self, kind: Kind, epoch: int) -> str:
        return f"{self.tenant_id}|{self.voice_id}|{kind}|{epoch}"


def _key_context(tenant_id: UUID, voice_id: UUID) -> str:
    return f"{tenant_id}|{voice_id}|key"
