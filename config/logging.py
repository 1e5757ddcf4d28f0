"""Structured logs: one JSON object a line, with request, tenant and job ids; never text, audio, URLs or keys.

Lines of our own say what we chose to say. Lines and exceptions of others are not trusted: their messages quote what
they were given, which here is somebody's words. So an exception is logged as what it was and where, without its
message, and a foreign line as its template, without the arguments.
"""

from __future__ import annotations

import errno
import logging
import logging.config
import re
import sys
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from traceback import walk_tb
from types import CodeType, TracebackType
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog
from django.core.exceptions import ImproperlyConfigured

from synthesis.engines.errors import EngineError
from tenants.errors import ApplicationError

# An API key, and the token that rides in the path of clients that send no header.
_API_KEY: Final = re.compile(r"ct_(?:live|test)_[0-9A-Za-z_]+")
_TOKEN_PATH: Final = re.compile(r"(/gpt-sovits/)[^/\s\"']+")
# Which server is worth knowing; credentials, paths and queries are not: one of them may open somebody's file.
_URL: Final = re.compile(r"\b([A-Za-z][\w+.-]*://)(?:[^\s/@\"']*@)?([^\s/?#\"']*)(?:[/?#][^\s\"']*)?")
_QUIET_ROUTES: Final = frozenset({"/livez", "/readyz", "/metrics"})
# They speak of connections, queues and processes, not of what is in a request; below INFO nobody is trusted.
_TRUSTED: Final = ("uvicorn.error", "celery.worker", "celery.apps", "celery.beat", "kombu", "psycopg.pool")
_TRUSTED_LEVEL: Final = logging.INFO
# Exceptions whose message is about the installation.
_FRANK: Final = (ImproperlyConfigured, ImportError)
_WITHHELD: Final = "[withheld]"
_ROOT: Final = f"{Path(__file__).resolve().parents[1]}/"
_FRAMES: Final = 20  # the innermost ones
_CAUSES: Final = 5

_access_log = structlog.stdlib.get_logger("cantoria.access")
_uncaught_log = structlog.stdlib.get_logger("cantoria.uncaught")


def redact(text: str) -> str:
    """Take keys, and of URLs all but the server, out of a line that somebody else's code may have written."""
    text = _API_KEY.sub("ct_[redacted]", text)
    text = _TOKEN_PATH.sub(r"\1[redacted]", text)
    return _URL.sub(r"\1\2/[redacted]", text)


def describe_exception(error: BaseException) -> dict[str, Any]:
    """What an exception was, where it rose and what caused it: never its message, which may quote the request."""
    return next(_chain(error))


def _chain(error: BaseException | None, depth: int = 0) -> Iterator[dict[str, Any]]:
    if error is None or depth == _CAUSES:
        return
    described = {"type": f"{type(error).__module__}.{type(error).__qualname__}", **_facts(error)}
    described["at"] = [_place(frame.f_code, line) for frame, line in walk_tb(error.__traceback__)][-_FRAMES:]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for inner in _chain(cause, depth + 1):
        described["cause"] = inner
    yield described


def _facts(error: BaseException) -> dict[str, Any]:
    match error:
        case psycopg.Error():
            if error.sqlstate is None:  # libpq's words about a connection
                return {"message": str(error)} if isinstance(error, psycopg.OperationalError) else {}
            facts = {"sqlstate": error.sqlstate, "constraint": error.diag.constraint_name}
        case OSError():
            facts = {"errno": errno.errorcode.get(error.errno or 0)}  # the message names the file
        case _ if isinstance(error, _FRANK):
            facts = {"message": str(error)}
        case ApplicationError() | EngineError():
            facts = {"code": error.code}
        case _:
            facts = {}
    return {name: value for name, value in facts.items() if value}


def _place(code: CodeType, line: int) -> str:
    path = code.co_filename.rpartition("/site-packages/")[2].removeprefix(_ROOT)
    return f"{path}:{line} {code.co_name}"


# --- processors ------------------------------------------------------------------------------------


def _redacted(value: Any) -> Any:
    match value:
        case str():
            return redact(value)
        case dict():
            return {key: _redacted(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_redacted(inner) for inner in value]
    return value


def _redact_event(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: _redacted(value) for key, value in event.items()}


def _describe_exception(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    given = event.pop("exc_info", None)
    event.pop("stack_info", None)
    error = given[1] if isinstance(given, tuple) else given if isinstance(given, BaseException) else None
    if error is None and given:
        error = sys.exception()
    if error is not None:
        event["exception"] = describe_exception(error)
    return event


def _distrust_others(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A foreign line's template tells what happened; its arguments, and lines glued together, tell to whom."""
    record: logging.LogRecord = event["_record"]
    arguments = event.pop("positional_args", None)
    template = event["event"]
    event["at"] = f"{record.filename}:{record.lineno}"
    if record.levelno >= _TRUSTED_LEVEL and record.name.startswith(_TRUSTED):
        event["event"] = template % arguments if arguments else template
    elif isinstance(arguments, tuple) and arguments:
        shown = tuple(one if isinstance(one, int | float) else _WITHHELD for one in arguments)
        try:
            event["event"] = template % shown
        except (TypeError, ValueError):
            event["event"] = template
    elif not arguments:
        event["event"] = _WITHHELD
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
                "foreign_pre_chain": [*_PROCESSORS, _distrust_others],
                "use_get_message": False,
                "pass_foreign_args": True,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    _describe_exception,
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
            # Django's own handler would mail local variables to ADMINS.
            "django": {"handlers": [], "propagate": True},
            "django.request": {"level": "ERROR"},
            "celery.app.trace": {"level": "WARNING"},  # a doorbell was answered; what became of a job is our line
            "django.server": {"handlers": [], "propagate": True, "level": "WARNING"},
        },
    }


def configure(config: Mapping[str, Any]) -> None:
    """Django's LOGGING_CONFIG hook: the standard library's part, then structlog's."""
    logging.config.dictConfig(dict(config))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_PROCESSORS,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def log_uncaught() -> None:
    """For the service's processes: what Python would print to stderr, with its message, becomes a line of the log."""
    sys.excepthook = _log_uncaught
    sys.unraisablehook = lambda found: _log_uncaught(found.exc_type, found.exc_value, found.exc_traceback)
    threading.excepthook = lambda found: _log_uncaught(found.exc_type, found.exc_value, found.exc_traceback)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a line that cannot be formatted would be printed with its arguments


def _log_uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    if not issubclass(kind, SystemExit):
        _uncaught_log.error("uncaught_exception", exc_info=error or kind())


def log_request(*, method: str, route: str, status: int, seconds: float, tenant_id: UUID | None) -> None:
    """One line per request; probes are silent while they succeed."""
    if route in _QUIET_ROUTES and status < 400:
        return
    tenant = {"tenant_id": str(tenant_id)} if tenant_id else {}
    _access_log.info(
        "request", method=method, route=route, status=status, milliseconds=round(seconds * 1000, 1), **tenant
    )
