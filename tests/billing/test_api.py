"""`/v1/usage` and `/v1/usage/report` over HTTP."""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import Any

import pytest
from django.test import Client

from billing import reports, selectors, services
from billing.models import LedgerEntry
from billing.reports import CONTENT_TYPES, ReportFormat
from tenants.models import Scope, Tenant
from tenants.scoping import tenant_scope
from tests.billing.factories import charge, make_customer
from tests.factories import make_api_key, make_job

pytestmark = pytest.mark.urls("billing.api.urls")


@pytest.fixture
def tenant() -> Tenant:
    return make_customer(included_units=100, unit_price_micros=500_000)


@pytest.fixture
def client(tenant: Tenant) -> Client:
    return client_of(tenant)


def client_of(tenant: Tenant, **key: Any) -> Client:
    return Client(headers={"Authorization": f"Bearer {make_api_key(tenant, **key)}"})


def test_usage_is_grouped_and_shows_the_balance(tenant: Tenant, client: Client) -> None:
    english, chinese = charge(tenant, text="hello"), charge(tenant, text="你好", language="zh")
    charge(make_customer(), text="not mine")
    services.reverse_entry(tenant_id=tenant.id, seq=1, reason="noise", actor="test")
    services.adjust(tenant_id=tenant.id, units=3, amount_micros=-1, reason="goodwill", actor="test")
    make_job(tenant, text="held")

    body = client.get("/usage", {"group_by": "language"}).json()
    today = english.used_on
    assert (body["from"], body["to"], body["group_by"]) == (str(today.replace(day=1)), str(today), "language")
    assert body["data"] == [
        {"group": "en", "requests": 0, "characters": 0, "amount": "0.000000", "currency": "EUR"},
        {"group": "zh", "requests": 1, "characters": 2, "amount": "1.000000", "currency": "EUR"},
        {"group": None, "requests": 0, "characters": 3, "amount": "-0.000001", "currency": "EUR"},
    ]
    assert body["balance"] == {
        "period": str(today.replace(day=1)),
        "limit": 100,
        "overage": 0,
        "settled": 5,
        "reserved": 4,
        "available": 91,
    }
    voices = [row["group"] for row in client.get("/usage", {"group_by": "voice"}).json()["data"]]
    assert voices == [*sorted(str(entry.voice_id) for entry in (english, chinese)), None]


def test_usage_by_day_and_month(tenant: Tenant, client: Client) -> None:
    for month, day in ((1, 31), (2, 1), (2, 28)):
        services.adjust(
            tenant_id=tenant.id,
            units=2,
            amount_micros=1,
            reason="x",
            actor="test",
            used_at=dt.datetime(2026, month, day, tzinfo=dt.UTC),
        )

    def groups(**query: str) -> list[tuple[str, int]]:
        return [(row["group"], row["characters"]) for row in client.get("/usage", query).json()["data"]]

    year = {"from": "2026-01-01", "to": "2026-12-31"}
    assert groups(**year) == [("2026-01-31", 2), ("2026-02-01", 2), ("2026-02-28", 2)]
    assert groups(**year, group_by="month") == [("2026-01", 2), ("2026-02", 4)]
    assert groups(**{"from": "2026-02-01", "to": "2026-02-27"}) == [("2026-02-01", 2)]
    assert groups(to="2026-02-28") == [("2026-02-01", 2), ("2026-02-28", 2)]  # from the month's first day


@pytest.mark.parametrize("report_format", list(ReportFormat))
def test_the_report_equals_the_ledger(tenant: Tenant, client: Client, report_format: str) -> None:
    entry = charge(tenant, text="hello")
    today = str(entry.used_on)
    # Whatever a client accepts, the query decides.
    accept = {"Accept": "text/html"}
    response = client.get("/usage/report", {"format": report_format, "from": today, "to": today}, headers=accept)
    assert response.status_code == 200
    assert response["Content-Type"] == CONTENT_TYPES[ReportFormat(report_format)]
    assert response["Content-Disposition"] == f'attachment; filename="usage-{today}-{today}.{report_format}"'
    assert response["X-Ledger-Watermark"] == "1"
    expected = io.BytesIO()
    reports.write_report(
        tenant_id=tenant.id,
        first_day=entry.used_on,
        last_day=entry.used_on,
        report_format=ReportFormat(report_format),
        output=expected,
    )
    assert response.content == expected.getvalue()


def test_charges_in_the_report_are_the_ledgers(tenant: Tenant, client: Client) -> None:
    for number in range(1, 6):
        charge(tenant, text="x" * number)
    first = client.get("/usage/report", {"format": "json", "watermark": "2"})
    body = json.loads(client.get("/usage/report", {"format": "json"}).content)
    with tenant_scope(tenant.id):
        ledger = list(LedgerEntry.objects.order_by("seq").values_list("seq", "units", "amount_micros"))
    assert [(line["seq"], line["units"]) for line in body["entries"]] == [(seq, units) for seq, units, _ in ledger]
    assert body["totals"][0]["units"] == sum(units for _, units, _ in ledger) == 15
    assert body["totals"][0]["amount"] == "7.500000"
    assert selectors.get_balance(tenant_id=tenant.id).settled == 15
    assert [line["seq"] for line in json.loads(first.content)["entries"]] == [1, 2]


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("/usage", {"from": "2026-02-30"}, "invalid_request"),
        ("/usage", {"to": "yesterday"}, "invalid_request"),
        ("/usage", {"from": "2026-02-02", "to": "2026-02-01"}, "invalid_request"),
        ("/usage", {"group_by": "colour"}, "invalid_request"),
        ("/usage/report", {"from": "2026-02-30"}, "invalid_request"),
        ("/usage/report", {"from": "2026-02-02", "to": "2026-02-01"}, "invalid_request"),
        ("/usage/report", {"watermark": "x"}, "invalid_request"),
        ("/usage/report", {"watermark": "1"}, "invalid_request"),  # an empty ledger
        ("/usage/report", {"watermark": str(2**64)}, "invalid_request"),
        ("/usage/report", {"format": "pdf"}, "unsupported_format"),
        ("/usage/report", {"format": "\x00"}, "invalid_request"),
    ],
)
def test_bad_queries_are_refused(client: Client, path: str, query: dict[str, str], code: str) -> None:
    response = client.get(path, query)
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/usage", "/usage/report"])
def test_usage_needs_its_scope(tenant: Tenant, path: str) -> None:
    refused = client_of(tenant, scopes=[Scope.SPEECH_WRITE]).get(path)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert client_of(tenant, scopes=[Scope.USAGE_READ]).get(path).status_code == 200
    assert Client().get(path).status_code == 401
