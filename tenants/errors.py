"""Errors of the service: plain Python, no Django.

Each class has a stable `code`, an HTTP `status` and the data a program needs; the sentence is for people.
`tenants.api.errors` turns them into problem documents (RFC 9457) in one place.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ApplicationError(Exception):
    """Root of every error that a caller can cause or should see.

    `retryable` says whether the same request may succeed later; `retry_after_seconds` in the details says when.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = ""
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidRequestError(ApplicationError):
    """The request has the wrong shape. `errors` lists (pointer, code, message) per field."""

    code = "invalid_request"
    status = 422


class MalformedRequestError(ApplicationError):
    code = "malformed_request"
    status = 400


class NotFoundError(ApplicationError):
    code = "not_found"
    status = 404


class MethodNotAllowedError(ApplicationError):
    code = "method_not_allowed"
    status = 405


class AuthenticationError(ApplicationError):
    """Wrong, unknown, revoked, expired: the caller learns only what a thief could not use."""

    code = "invalid_api_key"
    status = 401


class MissingKeyError(AuthenticationError):
    code = "missing_api_key"


class RevokedKeyError(AuthenticationError):
    code = "api_key_revoked"


class ExpiredKeyError(AuthenticationError):
    code = "api_key_expired"


class TenantSuspendedError(ApplicationError):
    code = "tenant_suspended"
    status = 403


class ScopeMissingError(ApplicationError):
    code = "insufficient_scope"
    status = 403

    def __init__(self, *, needed: str) -> None:
        super().__init__(f"This API key does not have the scope {needed}.", needed_scope=needed)


class RateLimitedError(ApplicationError):
    code = "rate_limited"
    status = 429
    retryable = True

    def __init__(self, *, retry_after_seconds: float) -> None:
        super().__init__("Too many requests in a short time.", retry_after_seconds=retry_after_seconds)


class TooManyConcurrentRequestsError(ApplicationError):
    code = "too_many_concurrent_requests"
    status = 429
    retryable = True

    def __init__(self, *, limit: int, retry_after_seconds: float = 1.0) -> None:
        super().__init__(
            "All concurrent requests of this tenant are in use.", limit=limit, retry_after_seconds=retry_after_seconds
        )


class SystemBusyError(ApplicationError):
    code = "system_busy"
    status = 503
    retryable = True

    def __init__(self, message: str = "The service is busy.", *, retry_after_seconds: float = 2.0) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class KeyReusedError(ApplicationError):
    code = "idempotency_key_reused"
    status = 422

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used with another request.")


class IdempotencyConflictError(ApplicationError):
    """The first request with this key is still running, or its outcome cannot be replayed."""

    code = "idempotency_conflict"
    status = 409
    retryable = True


class StorageKeyRefusedError(ApplicationError):
    """A storage key outside the tenant's prefix: always our own bug, never a user's."""

    code = "storage_key_refused"
    status = 500


class StorageUnavailableError(ApplicationError):
    """The bucket does not answer, or refuses us. Which of the two is in the log: it is no caller's business."""

    code = "storage_unavailable"
    status = 503
    retryable = True

    def __init__(self) -> None:
        super().__init__("The object storage does not answer.", retry_after_seconds=5.0)


class OutsideTenantScopeError(RuntimeError):
    """Tenant data was asked for without `tenant_scope`: a bug, raised rather than answered with 0 rows."""


class TenantScopeConflictError(RuntimeError):
    """`tenant_scope` of one tenant was opened inside another tenant's."""
