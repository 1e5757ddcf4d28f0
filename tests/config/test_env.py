"""Reading the environment, and start-up that stops by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from config import env
from config.database import databases

ROOT = Path(__file__).resolve().parents[2]
COMPLETE = {
    "DJANGO_SETTINGS_MODULE": "config.settings.production",
    "DATABASE_URL": "postgresql://cantoria_app:a@db.example/cantoria",
    "DATABASE_URL_MIGRATE": "postgresql://cantoria_migrate:b@db.example/cantoria",
    "DATABASE_URL_STAFF": "postgresql://cantoria_staff:c@db.example/cantoria",
    "DATABASE_URL_DISPATCH": "postgresql://cantoria_dispatch:d@db.example/cantoria",
    "REDIS_URL": "redis://redis.example/0",
    "STORAGE_URL": "file:///srv/cantoria",
    "SECRET_KEY": "x" * 50,
    "KEY_PEPPER": "pepper",
    "MASTER_KEY": "bWFzdGVyIGtleSBvZiB0aGUgdGVzdHMsIDMyIGJ5dGU=",
    "ALLOWED_HOSTS": "tts.example",
}
PRINT_ALIASES = "from django.conf import settings; print(sorted(settings.DATABASES))"


def run_python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    path = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**path, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("missing", sorted(set(COMPLETE) - {"DJANGO_SETTINGS_MODULE"}))
def test_production_stops_by_name_without_a_required_variable(missing: str) -> None:
    environment = {name: value for name, value in COMPLETE.items() if name != missing}
    result = run_python(PRINT_ALIASES, environment)
    assert result.returncode != 0
    assert f"The environment variable {missing} is required" in result.stderr


@pytest.mark.parametrize(
    ("process", "aliases"),
    [
        ("web", ["default"]),
        ("admin", ["default", "staff"]),
        ("worker", ["default", "dispatch"]),
        ("manage", ["default", "dispatch", "migrate", "staff"]),
    ],
)
def test_a_process_holds_the_connections_of_its_kind_only(process: str, aliases: list[str]) -> None:
    result = run_python(PRINT_ALIASES, {**COMPLETE, "CANTORIA_PROCESS": process})
    assert result.stdout.strip() == str(aliases), result.stderr


def test_a_web_process_starts_without_the_other_roles() -> None:
    needed = {
        name: value
        for name, value in COMPLETE.items()
        if name not in {"DATABASE_URL_MIGRATE", "DATABASE_URL_STAFF", "DATABASE_URL_DISPATCH"}
    }
    result = run_python(
        "import config.asgi, sys; assert 'torch' not in sys.modules; print('started')",
        {**needed, "CANTORIA_PROCESS": "web"},
    )
    assert result.stdout.strip() == "started", result.stderr


def test_wrong_role_is_refused_and_the_password_is_not_repeated() -> None:
    url = "postgresql://postgres:geheim@db.example/cantoria"
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL must connect as the role cantoria_app") as caught:
        databases("web", {"default": url}, pool_size=10)
    assert "geheim" not in str(caught.value)


def test_options_of_the_url_reach_the_driver() -> None:
    url = "postgresql://cantoria_app:p%40ss@db.example:6543/cantoria?sslmode=require"
    entry = databases("worker", {"default": url, "dispatch": url.replace("_app", "_dispatch")}, pool_size=10)["default"]
    assert (entry["PASSWORD"], entry["PORT"], entry["OPTIONS"]) == ("p@ss", "6543", {"sslmode": "require"})


def test_values_of_the_wrong_type_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_THREADS", "many")
    with pytest.raises(ImproperlyConfigured, match="WORKER_THREADS must be a whole number"):
        env.read_int("WORKER_THREADS", 4)
    monkeypatch.setenv("ENGINE", "festival")
    with pytest.raises(ImproperlyConfigured, match="ENGINE must be one of parametric, gpt_sovits"):
        env.read_choice("ENGINE", ("parametric", "gpt_sovits"), default="parametric")
    monkeypatch.setenv("SECURE_SSL_REDIRECT", "perhaps")
    with pytest.raises(ImproperlyConfigured, match="must be true or false"):
        env.read_bool("SECURE_SSL_REDIRECT", default=True)


def test_every_variable_that_the_settings_read_is_documented() -> None:
    import re

    read = set()
    for path in [*(ROOT / "config").rglob("*.py")]:
        read |= set(
            re.findall(r"env\.(?:read|require)(?:_int|_bool|_choice|_list)?\(\s*\"([A-Z_]+)\"", path.read_text())
        )
    read |= set(COMPLETE)
    documented = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
    assert read - documented == set()
