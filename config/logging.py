"""Structured logs: one JSON object a line, with request and tenant ids; never text, audio, query strings or keys."""

from __future__ import annotations

import logging
import logging.config
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final
from uuid import UUID

import structlog

# An API key, and the token that rides in the path of clients that send no header.
_API_KEY: Final = re.compile(r"ct_(?:live|test)_[0-9A-Za-z_]+")
_TOKEN_PATH: Final = re.compile(r"(/gpt-sovits/)[^/\s\"']+")
_URL_CREDENTIALS: Final = re.compile(r"(\w+://[^:/@\s]*:)[^@\s]+@")
_QUERY: Final = re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']+")
_QUIET_ROUTES: Final = frozenset({"/livez", "/readyz", "/metrics"})

_access_log = structlog.stdlib.get_logger("cantoria.access")


def redact(text: str) -> str:
    """Take keys, passwords in URLs and query strings out of a line that somebody else's code may have written."""
    text = _API_KEY.sub("ct_[redacted]", text)
    text = _TOKEN_PATH.sub(r"\1[redacted]", text)
    text = _URL_CREDENTIALS.sub(r"\1[redacted]@", text)
    return _QUERY.sub(r"\1?[redacted]", text)


def _redact_event(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
    return event


def _add_request_and_tenant(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    from tenants.context import current_request_id, current_tenant_id

    if request_id := current_request_id():
        event.setdefault("request_id", request_id)
    if tenant_id := current_tenant_id():
        event.setdefault("tenant_id", str(tenant_id))
    return event


_PROCESSORS: Final[list[Any]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _add_request_and_tenant,
]


def configuration(*, level: str) -> dict[str, Any]:
    """Django's LOGGING: standard and structlog loggers leave through one JSON formatter."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _PROCESSORS,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    _redact_event,
                    structlog.processors.JSONRenderer(ensure_ascii=False),
                ],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # uvicorn gave its loggers handlers of their own before we were imported.
            "uvicorn": {"handlers": [], "propagate": True},
            "uvicorn.error": {"handlers": [], "propagate": True},
            # One line per request is ours (below): these repeat it, with the query string.
            "uvicorn.access": {"handlers": [], "propagate": True, "level": "WARNING"},
            "django.request": {"level": "ERROR"},
            "django.server": {"level": "WARNING"},
        },
    }


def configure(config: Mapping[str, Any]) -> None:
    """Django's LOGGING_CONFIG hook: the standard library's part, then structlog's."""
    logging.config.dictConfig(dict(config))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_PROCESSORS,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def log_request(*, method: str, route: str, status: int, seconds: float, tenant_id: UUID | None) -> None:
    """One line per request; probes are silent while they succeed."""
    if route in _QUIET_ROUTES and status < 400:
        return
    tenant = {"tenant_id": str(tenant_id)} if tenant_id else {}
    _access_log.info(
        "request", method=method, route=route, status=status, milliseconds=round(seconds * 1000, 1), **tenant
    )
