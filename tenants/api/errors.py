"""Errors as problem documents (RFC 9457), in one place, for DRF views, async views and what Django itself refuses."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import wraps
from http import HTTPStatus
from typing import Any, Final

import structlog
from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent
from django.http import Http404, HttpRequest, HttpResponseBase, JsonResponse
from django.http.multipartparser import MultiPartParserError
from rest_framework import exceptions as drf
from rest_framework.response import Response

from tenants.context import current_request_id
from tenants.errors import (
    ApplicationError,
    InvalidRequestError,
    MalformedRequestError,
    MethodNotAllowedError,
    NotFoundError,
)

PROBLEM_TYPE: Final = "application/problem+json"
log = structlog.get_logger(__name__)


class UnsupportedMediaTypeError(ApplicationError):
    code = "unsupported_media_type"
    status = 415


class NotAcceptableError(ApplicationError):
    code = "not_acceptable"
    status = 406


class RequestTooLargeError(ApplicationError):
    code = "request_too_large"
    status = 413


class InternalError(ApplicationError):
    """Something we did not foresee. The cause is in the log under the request id, never in the answer."""

    code = "internal_error"
    status = 500
    retryable = True


def problem(error: ApplicationError) -> dict[str, Any]:
    """The body of an error answer."""
    return {
        "type": f"urn:cantoria:error:{error.code}",
        "title": error.title or HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.message,
        "code": error.code,
        "retryable": error.retryable,
        "request_id": current_request_id(),
        **error.details,
    }


def _headers(error: ApplicationError) -> dict[str, str]:
    headers = {}
    if "retry_after_seconds" in error.details:
        headers["Retry-After"] = str(max(1, math.ceil(error.details["retry_after_seconds"])))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def problem_response(error: ApplicationError) -> JsonResponse:
    return JsonResponse(problem(error), status=error.status, content_type=PROBLEM_TYPE, headers=_headers(error))


def _field_errors(detail: Any, pointer: str = "") -> list[dict[str, str]]:
    """DRF's nested error detail as a flat list with JSON pointers (RFC 6901)."""
    if isinstance(detail, dict):
        return [
            entry
            for field, inner in detail.items()
            for entry in _field_errors(inner, pointer if field == "non_field_errors" else f"{pointer}/{field}")
        ]
    if isinstance(detail, list):
        return [
            entry
            for index, inner in enumerate(detail)
            for entry in _field_errors(inner, f"{pointer}/{index}" if isinstance(inner, dict) and inner else pointer)
        ]
    return [{"pointer": pointer, "code": getattr(detail, "code", "invalid"), "message": str(detail)}]


def invalid_request(detail: Any) -> InvalidRequestError:
    """What a DRF serializer found wrong, as our own error."""
    return InvalidRequestError("The request is not valid.", errors=_field_errors(detail))


def as_application_error(error: Exception) -> ApplicationError | None:
    """Translate what Django and DRF raise; None for what nobody foresaw."""
    match error:
        case ApplicationError():
            return error
        case drf.ValidationError():
            return invalid_request(error.detail)
        case drf.ParseError() | MultiPartParserError() | TooManyFieldsSent() | TooManyFilesSent():
            return MalformedRequestError("The body could not be parsed.")
        case Http404() | drf.NotFound():
            return NotFoundError("There is nothing here.")
        case drf.MethodNotAllowed():
            return MethodNotAllowedError("This method is not allowed here.")
        case drf.UnsupportedMediaType():
            return UnsupportedMediaTypeError("This content type is not supported here.")
        case drf.NotAcceptable():
            return NotAcceptableError("This route answers with JSON.")
        case RequestDataTooBig():
            return RequestTooLargeError("The request body is too large.")
    return None


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """For DRF: `REST_FRAMEWORK["EXCEPTION_HANDLER"]`."""
    found = as_application_error(error) or _unforeseen(error)
    return Response(problem(found), status=found.status, content_type=PROBLEM_TYPE, headers=_headers(found))


def answer_problems(
    view: Callable[..., Awaitable[HttpResponseBase]],
) -> Callable[..., Awaitable[HttpResponseBase]]:
    """For async views: the same answers as `exception_handler`."""

    @wraps(view)
    async def answered(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return await view(request, *args, **kwargs)
        except Exception as error:
            return problem_response(as_application_error(error) or _unforeseen(error))

    return answered


def _unforeseen(error: Exception) -> InternalError:
    log.error("unforeseen_error", exc_info=error)
    return InternalError("Something went wrong on our side.")


# Django's own handlers (config.urls): unknown paths, bad hosts and what escapes a view are problems too.
def not_found(request: HttpRequest, exception: Exception) -> JsonResponse:
    return problem_response(NotFoundError("There is nothing here."))


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    return problem_response(as_application_error(exception) or MalformedRequestError("The request is malformed."))


def server_error(request: HttpRequest) -> JsonResponse:
    return problem_response(InternalError("Something went wrong on our side."))
