"""Lists with opaque cursors: stable while rows are added, no totals."""

from __future__ import annotations

import datetime as dt
from base64 import b64decode
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rest_framework import exceptions as drf
from rest_framework.pagination import CursorPagination
from rest_framework.response import Response

from tenants.errors import InvalidRequestError


class CursorPages(CursorPagination):
    """`{"data": [...], "has_more": bool, "next_cursor": str | null}`, newest first; `limit` 1-100."""

    ordering = ("-created_at", "-id")
    page_size = 20
    page_size_query_param = "limit"
    max_page_size = 100

    def get_page_size(self, request: Any) -> int:
        given = request.query_params.get("limit")
        if given is None:
            return self.page_size
        if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= self.max_page_size:
            raise InvalidRequestError("`limit` is a whole number from 1 to 100.", limit=given[:20])
        return int(given)

    def decode_cursor(self, request: Any) -> Any:
        # Stricter than DRF, which takes noise for the first page and hands any text to the database as a time.
        try:
            b64decode(request.query_params.get("cursor", "").encode("ascii"), validate=True)
            cursor = super().decode_cursor(request)
            if cursor is not None and cursor.position is not None:
                dt.datetime.fromisoformat(str(cursor.position))
        except ValueError as error:
            raise drf.NotFound from error
        return cursor

    def paginate_queryset(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().paginate_queryset(*args, **kwargs)
        except drf.NotFound as error:
            raise InvalidRequestError("This cursor is not one of ours.") from error

    def get_paginated_response(self, data: Any) -> Response:
        link = self.get_next_link()
        cursor = parse_qs(urlsplit(link).query)["cursor"][0] if link else None
        return Response({"data": data, "has_more": cursor is not None, "next_cursor": cursor})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["data", "has_more", "next_cursor"],
            "properties": {
                "data": schema,
                "has_more": {"type": "boolean"},
                "next_cursor": {"type": ["string", "null"]},
            },
        }
