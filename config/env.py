"""Typed reads of the environment. A missing required value stops start-up by name."""

from __future__ import annotations

import os

from django.core.exceptions import ImproperlyConfigured

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def read(name: str, default: str = "") -> str:
    """The variable's value without surrounding blanks; unset and empty both give `default`."""
    return os.environ.get(name, "").strip() or default


def require(name: str) -> str:
    """Like `read`, but raises ImproperlyConfigured with the variable's name when it is unset or empty."""
    value = read(name)
    if not value:
        raise ImproperlyConfigured(f"The environment variable {name} is required. See .env.example.")
    return value


def read_int(name: str, default: int) -> int:
    value = read(name)
    if not value:
        return default
    try:
        return int(value)
    except ValueError as error:
        raise ImproperlyConfigured(f"The environment variable {name} must be a whole number, not {value!r}.") from error


def read_bool(name: str, *, default: bool) -> bool:
    value = read(name).lower()
    if not value:
        return default
    if value not in _TRUE | _FALSE:
        raise ImproperlyConfigured(f"The environment variable {name} must be true or false, not {value!r}.")
    return value in _TRUE


def read_choice(name: str, choices: tuple[str, ...], default: str) -> str:
    value = read(name, default)
    if value not in choices:
        raise ImproperlyConfigured(
            f"The environment variable {name} must be one of {', '.join(choices)}, not {value!r}."
        )
    return value


def read_list(name: str, default: tuple[str, ...] = ()) -> list[str]:
    """Comma-separated values, blanks around them dropped."""
    value = read(name)
    return [part.strip() for part in value.split(",") if part.strip()] if value else list(default)
