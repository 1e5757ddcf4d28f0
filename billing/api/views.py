"""`/v1/usage`: what was used, from the ledger."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar
from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from billing import reports, selectors
from billing.api.serializers import ReportQuery, UsageQuery, UsageSerializer
from billing.reports import CONTENT_TYPES, ReportFormat
from billing.selectors import UsageGroup
from tenants.api.views import TenantAPIView
from tenants.models import Scope

WATERMARK_HEADER = "X-Ledger-Watermark"


class IgnoreClientContentNegotiation(BaseContentNegotiation):
    """The query says which format is wanted; DRF would take `format=` for the name of a renderer."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        return next(iter(parsers))

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)


def _choose_days(query: Mapping[str, Any], *, tenant_id: UUID) -> tuple[dt.date, dt.date]:
    last = query.get("to") or selectors.get_today(tenant_id=tenant_id)
    first = query.get("from") or last.replace(day=1)
    if first > last:
        raise serializers.ValidationError({"from": "`from` comes after `to`."}, code="wrong_order")
    return first, last


class UsageView(TenantAPIView):
    required_scopes: ClassVar[Mapping[str, Scope]] = {"GET": Scope.USAGE_READ}

    @extend_schema(
        operation_id="get_usage",
        tags=["usage"],
        summary="Sum up usage by day, month, voice, key or language",
        description="Net of reversals, with adjustments. A request counts on the day it was accepted.",
        parameters=[UsageQuery],
        responses=UsageSerializer,
    )
    def get(self, request: Request) -> Response:
        query = UsageQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        tenant_id = self.caller.tenant_id
        first, last = _choose_days(query.validated_data, tenant_id=tenant_id)
        group_by = UsageGroup(query.validated_data["group_by"])
        usage = {
            "from": first,
            "to": last,
            "group_by": group_by,
            "data": selectors.usage(tenant_id=tenant_id, first_day=first, last_day=last, group_by=group_by),
            "balance": selectors.get_balance(tenant_id=tenant_id),
        }
        return Response(UsageSerializer(usage).data)


class UsageReportView(TenantAPIView):
    required_scopes: ClassVar[Mapping[str, Scope]] = {"GET": Scope.USAGE_READ}
    content_negotiation_class = IgnoreClientContentNegotiation

    @extend_schema(
        operation_id="get_usage_report",
        tags=["usage"],
        summary="Download every ledger entry between two days",
        description="The same days, format and watermark give the same bytes. The watermark is in the answer's header "
        f"`{WATERMARK_HEADER}`.",
        parameters=[ReportQuery],
        responses={
            (200, "text/csv"): OpenApiTypes.STR,
            (200, "application/json"): OpenApiResponse(OpenApiTypes.OBJECT),
            (200, CONTENT_TYPES[ReportFormat.XLSX]): OpenApiTypes.BINARY,
        },
    )
    def get(self, request: Request) -> HttpResponse:
        query = ReportQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        report_format = reports.parse_format(query.validated_data["format"])
        tenant_id = self.caller.tenant_id
        first, last = _choose_days(query.validated_data, tenant_id=tenant_id)
        body = io.BytesIO()
        watermark = reports.write_report(
            tenant_id=tenant_id,
            first_day=first,
            last_day=last,
            report_format=report_format,
            output=body,
            watermark=query.validated_data.get("watermark"),
        )
        return HttpResponse(
            body.getvalue(),
            content_type=CONTENT_TYPES[report_format],
            headers={
                "Content-Disposition": f'attachment; filename="usage-{first}-{last}.{report_format}"',
                WATERMARK_HEADER: str(watermark),
            },
        )
