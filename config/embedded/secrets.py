"""Secrets of an installation that was given none: made once, kept in one file that only its owner reads."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path


def _token() -> str:
    return secrets.token_urlsafe(32)


def _master_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


@dataclass(frozen=True, slots=True)
class EmbeddedSecrets:
    installation: str = field(default_factory=lambda: secrets.token_hex(8))  # names folders outside the checkout
    secret_key: str = field(default_factory=_token)
    key_pepper: str = field(default_factory=_token)
    master_key: str = field(default_factory=_master_key)
    superuser_password: str = field(default_factory=_token)
    redis_password: str = field(default_factory=_token)
    role_passwords: dict[str, str] = field(
        default_factory=lambda: {alias: _token() for alias in ("default", "migrate", "staff", "dispatch")}
    )


def load_or_create_secrets(path: Path) -> EmbeddedSecrets:
    """Read the secrets of this installation, or make them. The caller holds the installation's lock."""
    if path.exists():
        return EmbeddedSecrets(**json.loads(path.read_text()))
    made = EmbeddedSecrets()
    partial = path.with_suffix(".partial")  # a crash half-way must not leave half a file under the real name
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(made), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    return made
