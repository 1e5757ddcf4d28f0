"""The streaming routes in the OpenAPI description: they are no DRF views, so they are written by hand, beside them.

`SPECTACULAR_SETTINGS["POSTPROCESSING_HOOKS"]` names the hook; a test compares the description with the URL table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from synthesis.contracts import CONTENT_TYPES, MAX_SPEECH_CHARS
from tenants.api import idempotency

_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_AUDIO: Final = dict.fromkeys(CONTENT_TYPES.values(), _BINARY)
_JOB_ID: Final = {
    "in": "path",
    "name": "job_id",
    "required": True,
    "schema": {"type": "string", "format": "uuid"},
}
_IDEMPOTENCY_KEY: Final = {
    "in": "header",
    "name": idempotency.HEADER,
    "schema": {"type": "string"},
    "description": "Repeating it repeats nothing, for 24 h.",
}
_SPEECH_HEADERS: Final = {
    "X-Request-Id": "Of this request; say it when you ask for help.",
    "X-Job-Id": "The job behind the audio.",
    "X-Characters": "What the whole text is charged.",
    "X-Sample-Rate": "Hz.",
    "X-Engine": "What made the sound.",
    idempotency.REPLAYED_HEADER: "`true` when a stored answer is sent again.",
}


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _headers(names: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"schema": {"type": "string"}, "description": text} for name, text in names.items()}


_SPEAK: Final[dict[str, Any]] = {
    "operationId": "create_speech",
    "tags": ["speech"],
    "summary": "Speak a text and stream the audio as it is made",
    "description": f"Up to {MAX_SPEECH_CHARS} characters. The status is sent with the first sound; a failure after it "
    "cuts the connection, so that a torso is never taken for the whole, and is not charged. Leaving early cancels, and "
    "charges the segments that were wholly delivered.",
    "parameters": [_IDEMPOTENCY_KEY],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/SpeechRequest"}}},
    },
    "responses": {
        "200": {"description": "The audio.", "headers": _headers(_SPEECH_HEADERS), "content": _AUDIO},
        "402": _problem("Not enough credits."),
        "404": _problem("No such voice."),
        "409": _problem("The voice is not ready, or the first request with this key is still running."),
        "422": _problem("The request is not valid."),
        "429": _problem("Too many requests, or too many at once."),
        "default": _problem("Any other failure before the first sound."),
    },
}
_FETCH: Final[dict[str, Any]] = {
    "operationId": "get_job_audio",
    "tags": ["jobs"],
    "summary": "Fetch the audio of a job that has succeeded",
    "parameters": [_JOB_ID],
    "responses": {
        "200": {"description": "The audio.", "content": _AUDIO},
        "404": _problem("No such job."),
        "409": _problem("The job has not finished, or was cancelled."),
        "default": _problem("Why the job has no audio."),
    },
}
_FOLLOW: Final[dict[str, Any]] = {
    "operationId": "follow_job",
    "tags": ["jobs"],
    "summary": "Follow a job by server-sent events",
    "description": "`status` events with the job as JSON data: one at once, one for each change, until it has ended.",
    "parameters": [_JOB_ID],
    "responses": {
        "200": {"description": "Events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        "404": _problem("No such job."),
    },
}
STREAMING_ROUTES: Final[Mapping[str, Mapping[str, dict[str, Any]]]] = {
    "/v1/speech": {"post": _SPEAK},
    "/v1/jobs/{job_id}/audio": {"get": _FETCH},
    "/v1/jobs/{job_id}/events": {"get": _FOLLOW},
}
_PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457, with a stable `code`.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "retryable": {"type": "boolean"},
        "request_id": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail", "code", "retryable", "request_id"],
}


def add_streaming_routes(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """A postprocessing hook of drf-spectacular."""
    schemes = result.get("components", {}).get("securitySchemes", {})
    security: list[dict[str, list[str]]] = [{name: []} for name in schemes]
    for path, operations in STREAMING_ROUTES.items():
        described = {method: {**operation, "security": security} for method, operation in operations.items()}
        result["paths"].setdefault(path, {}).update(described)
    result["paths"] = dict(sorted(result["paths"].items()))
    result["components"].setdefault("schemas", {}).setdefault("Problem", _PROBLEM_SCHEMA)
    return result
