"""What a new installation needs before anybody can use it: a tenant, an API key, an administrator."""

from __future__ import annotations

import io
import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from django.contrib.auth import get_user_model
from django.core.management import call_command

from tenants.api.caller import authenticate
from tenants.errors import ApplicationError
from tenants.models import Tenant

TENANT_SLUG: Final = "first"
ADMIN_NAME: Final = "admin"


@dataclass(frozen=True, slots=True)
class FirstRun:
    """Kept in a file that only its owner reads, so that a restart prints the same key."""

    api_key: str
    admin_password: str = ""  # empty: the administrator existed already
    voice_id: str = ""

    @classmethod
    def load(cls, path: Path) -> FirstRun | None:
        return cls(**json.loads(path.read_text())) if path.exists() else None

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(self), file, indent=2)
        partial.rename(path)


def prepare_first_run(path: Path) -> FirstRun:
    """The first tenant's key and the administrator, made when missing. `path`: the file they are kept in."""
    kept = FirstRun.load(path)
    if kept is None or not _is_accepted(kept.api_key):
        if not Tenant.objects.using("staff").filter(slug=TENANT_SLUG).exists():
            create_tenant(TENANT_SLUG)
        api_key = create_api_key(TENANT_SLUG)
        kept = replace(kept, api_key=api_key) if kept else FirstRun(api_key=api_key)
    users = get_user_model()._default_manager.db_manager("staff")
    if not users.filter(is_superuser=True).exists():
        password = secrets.token_urlsafe(12)
        users.create_superuser(username=ADMIN_NAME, password=password)
        kept = replace(kept, admin_password=password)
    kept.save(path)
    return kept


def create_tenant(slug: str) -> str:
    """Run the command of that name; returns the tenant's id."""
    return _last_line("create_tenant", slug)


def create_api_key(slug: str) -> str:
    """Run the command of that name; returns the secret."""
    return _last_line("create_api_key", slug)


def _last_line(command: str, *arguments: str) -> str:
    output = io.StringIO()
    call_command(command, *arguments, stdout=output)
    return output.getvalue().strip().splitlines()[-1]


def _is_accepted(api_key: str) -> bool:
    try:
        authenticate(f"Bearer {api_key}", address="127.0.0.1")
    except ApplicationError:
        return False
    return True
