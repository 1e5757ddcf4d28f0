"""The OpenAPI description and the URL table name the same routes and methods."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from django.test import RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver
from drf_spectacular.generators import SchemaGenerator
from openapi_spec_validator import validate

METHODS = ("get", "post", "put", "patch", "delete")


def routes(resolver: URLResolver, prefix: str = "/") -> dict[str, Any]:
    """Path template -> view of every route below /v1."""
    found: dict[str, Any] = {}
    for pattern in resolver.url_patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            found |= routes(pattern, path)
        elif isinstance(pattern, URLPattern) and path.startswith("/v1/"):
            found[re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)] = pattern.callback
    return found


def methods(view: Any) -> set[str]:
    """What a view answers. A streaming view is asked: it refuses a method before it looks at anything else."""
    if hasattr(view, "cls"):
        return {method for method in METHODS if hasattr(view.cls, method)}
    asked = {method: view(RequestFactory().generic(method.upper(), "/")) for method in METHODS}
    return {method for method, answer in asked.items() if asyncio.run(answer).status_code != 405}


@pytest.fixture
def schema() -> Any:
    return SchemaGenerator().get_schema(request=None, public=True)


@pytest.mark.usefixtures("database")
def test_the_description_has_every_route_and_no_other(schema: Any) -> None:
    described = {path: {m for m in METHODS if m in operations} for path, operations in schema["paths"].items()}
    served = {path: methods(view) for path, view in routes(get_resolver()).items()}
    assert described == served
    assert len(served) >= 12


def test_the_description_is_valid_openapi_3_1(schema: Any) -> None:
    assert schema["openapi"].startswith("3.1")
    validate(schema)


def test_every_operation_has_an_id_a_summary_and_needs_a_key(schema: Any) -> None:
    operations = [op for path in schema["paths"].values() for method, op in path.items() if method in METHODS]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    for operation in operations:
        assert operation.get("summary"), operation["operationId"]
        assert operation.get("security") == [{"apiKey": []}], operation["operationId"]
