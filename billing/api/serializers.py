"""The wire form of usage. Money is a decimal string with six places; days are calendar days in the tenant's zone."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing import rating
from billing.reports import ReportFormat
from billing.selectors import UsageGroup


def _optional_day(help_text: str) -> serializers.DateField:
    return serializers.DateField(input_formats=["%Y-%m-%d"], required=False, help_text=help_text)


class DaysQuery(serializers.Serializer[Any]):
    """The days a reader asks for; without them, the current month so far."""

    to = _optional_day("Last day, included. By default today in the tenant's zone.")

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        first = _optional_day("First day. By default the first of the month of `to`.")
        return {"from": first, **super().get_fields()}  # `from` cannot be an attribute's name


class UsageQuery(DaysQuery):
    group_by = serializers.ChoiceField(choices=UsageGroup.choices, default=UsageGroup.DAY)


class ReportQuery(DaysQuery):
    # Not a choice field: an unknown format has an error code of its own.
    format = serializers.CharField(
        default=ReportFormat.CSV, help_text=f"One of {', '.join(ReportFormat)}.", max_length=50
    )
    watermark = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=2**63 - 1,
        help_text="Leave out ledger entries beyond this number, to get the bytes of an earlier report again.",
    )


@extend_schema_field(OpenApiTypes.STR)
class AmountField(serializers.Field[int, Any, str, Any]):
    """Micro-units of the currency, shown as a decimal string."""

    def to_representation(self, value: int) -> str:
        return rating.format_amount(value)


class UsageRowSerializer(serializers.Serializer[Any]):
    group = serializers.CharField(
        allow_null=True, help_text="Day, month (`2026-01`), voice id, key id or language; null for what has none."
    )
    requests = serializers.IntegerField(help_text="Charged requests that were not reversed.")
    characters = serializers.IntegerField()
    amount = AmountField(source="amount_micros")
    currency = serializers.CharField()


class BalanceSerializer(serializers.Serializer[Any]):
    period = serializers.DateField(help_text="First day of the current billing month.")
    limit = serializers.IntegerField(source="limit_units", help_text="Characters included in the plan.")
    overage = serializers.IntegerField(source="overage_units", help_text="Characters allowed beyond the limit.")
    settled = serializers.IntegerField(help_text="Characters charged.")
    reserved = serializers.IntegerField(help_text="Characters held for requests under way.")
    available = serializers.IntegerField()


class UsageSerializer(DaysQuery):
    """Usage between two days, in groups, and the balance of the current month."""

    to = serializers.DateField()
    group_by = serializers.ChoiceField(choices=UsageGroup.choices)
    data = UsageRowSerializer(many=True)  # type: ignore[assignment]
    balance = BalanceSerializer()

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {**super().get_fields(), "from": serializers.DateField()}
