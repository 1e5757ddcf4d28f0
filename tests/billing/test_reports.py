"""M9 and M10: usage reports say what the ledger says, in bytes that repeat."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import subprocess
import sys
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from billing import reports, services
from billing.models import Account, LedgerEntry
from billing.reports import COLUMNS, ReportFormat
from config.database import URL_VARIABLES
from tenants.errors import InvalidRequestError
from tenants.models import Tenant
from tenants.scoping import tenant_scope
from tests.billing.conftest import SetClock
from tests.billing.factories import charge, make_customer
from tests.conftest import Servers

ROOT = Path(__file__).resolve().parents[2]
JANUARY = (dt.date(2026, 1, 1), dt.date(2026, 1, 31))
FORMATS = list(ReportFormat)
_SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


@pytest.fixture
def tenant(set_clock: SetClock) -> Tenant:
    """Four entries in January, one each side of it in Shanghai, which is not where UTC would put them."""
    tenant = make_customer(time_zone="Asia/Shanghai", unit_price_micros=1_500_000)
    set_clock(dt.datetime(2025, 12, 31, 15, 59, 59, 999_999, dt.UTC))
    charge(tenant, text="before")
    set_clock(dt.datetime(2025, 12, 31, 16, tzinfo=dt.UTC))
    charge(tenant, text="hello", language="zh")
    set_clock(dt.datetime(2026, 1, 31, 15, 59, 59, 999_999, dt.UTC))
    charge(tenant, text="twelve chars")
    services.reverse_entry(tenant_id=tenant.id, seq=2, reason='=HYPERLINK("x";"y")', actor="test")
    services.adjust(tenant_id=tenant.id, units=1, amount_micros=-1, reason="déjà, vu\n2", actor="test")
    set_clock(dt.datetime(2026, 1, 31, 16, tzinfo=dt.UTC))
    charge(tenant, text="after")
    return tenant


def report(tenant: Tenant, report_format: str, **options: Any) -> bytes:
    output = io.BytesIO()
    first, last = options.pop("days", JANUARY)
    reports.write_report(
        tenant_id=tenant.id,
        first_day=first,
        last_day=last,
        report_format=ReportFormat(report_format),
        output=output,
        **options,
    )
    return output.getvalue()


def read_sheets(book: bytes) -> dict[str, list[list[str | None]]]:
    """Rows of text per sheet; an independent reading of the file's XML."""
    with zipfile.ZipFile(io.BytesIO(book)) as archive:
        names = [
            sheet.attrib["name"]
            for sheet in ElementTree.fromstring(archive.read("xl/workbook.xml")).iter(f"{_SHEET}sheet")
        ]
        sheets = {}
        for number, name in enumerate(names, 1):
            xml = ElementTree.fromstring(archive.read(f"xl/worksheets/sheet{number}.xml"))
            assert next(xml.iter(f"{_SHEET}f"), None) is None  # no formula
            rows = []
            for row in xml.iter(f"{_SHEET}row"):
                cells = {cell.attrib["r"].rstrip("0123456789"): "".join(cell.itertext()) for cell in row}
                rows.append([cells.get(chr(ord("A") + column)) for column in range(len(COLUMNS))])
            sheets[name] = rows
    return sheets


def test_json_says_what_the_ledger_says(tenant: Tenant) -> None:
    body = json.loads(report(tenant, "json"))
    assert (body["tenant_id"], body["from"], body["to"]) == (str(tenant.id), "2026-01-01", "2026-01-31")
    with tenant_scope(tenant.id):
        stored = {entry.seq: entry for entry in LedgerEntry.objects.select_related("price")}
    assert [line["seq"] for line in body["entries"]] == [2, 3, 4, 5]
    for line in body["entries"]:
        entry = stored[line["seq"]]
        assert set(line) == set(COLUMNS)
        assert Decimal(line["amount"]) * 10**6 == entry.amount_micros
        assert Decimal(line["unit_price"]) * 10**6 == entry.price.unit_price_micros
        assert (line["units"], line["kind"], line["used_on"]) == (entry.units, entry.kind, entry.used_on.isoformat())
        assert dt.datetime.fromisoformat(line["used_at"]) == entry.used_at
        assert line["job_id"] == (str(entry.job_id) if entry.job_id else None)
        assert (line["language"], line["reason"]) == (entry.language or None, entry.reason or None)
    assert body["totals"] == [
        {
            "kind": "total",
            "meter": "characters",
            "currency": "EUR",
            "entries": 4,
            "units": 13,
            "amount": "17.999999",
        }
    ]


def test_json_is_canonical(tenant: Tenant) -> None:
    text = report(tenant, "json").decode()

    def refuse(number: str) -> None:
        raise AssertionError(f"{number} is not an integer")

    body = json.loads(text, parse_float=refuse)
    assert text.endswith("}\n")
    assert text.replace("\n", "") == json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_csv_is_rfc_4180_with_totals_at_the_end(tenant: Tenant) -> None:
    body = report(tenant, "csv").decode()
    assert body.replace("\r\n", "").count("\n") == 1  # only the one inside a quoted reason
    header, *lines = csv.reader(io.StringIO(body, newline=""))
    assert tuple(header) == COLUMNS
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    assert [row["seq"] for row in rows] == ["2", "3", "4", "5", ""]
    assert [row["units"] for row in rows] == ["5", "12", "-5", "1", "13"]
    assert [row["amount"] for row in rows] == ["7.500000", "18.000000", "-7.500000", "-0.000001", "17.999999"]
    assert rows[-1]["kind"] == "total"
    assert rows[3]["reason"] == "déjà, vu\n2"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_csv_cells_are_no_formulas(start: str) -> None:
    tenant = make_customer()
    at = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
    services.adjust(tenant_id=tenant.id, units=1, amount_micros=-5, reason=f"{start}1+1", actor="test", used_at=at)
    rows = list(csv.DictReader(io.StringIO(report(tenant, "csv").decode(), newline="")))
    assert rows[0]["reason"] == f"'{start}1+1"
    assert rows[0]["amount"] == "-0.000005"  # a figure of ours stays a figure


def test_xlsx_says_what_csv_says(tenant: Tenant) -> None:
    sheets = read_sheets(report(tenant, "xlsx"))
    rows = list(csv.reader(io.StringIO(report(tenant, "csv").decode(), newline="")))
    assert list(sheets) == ["Usage", "Totals"]
    with zipfile.ZipFile(io.BytesIO(report(tenant, "xlsx"))) as archive:
        assert b">2000-01-01T00:00:00Z</dcterms:created>" in archive.read("docProps/core.xml")
        assert {member.date_time[:3] for member in archive.infolist()} == {(1980, 1, 31)}
    header, *lines = sheets["Usage"]
    assert tuple(header) == COLUMNS
    for line, row in zip(lines, rows[1:-1], strict=True):
        for column, cell, expected in zip(COLUMNS, line, row, strict=True):
            if column in {"amount", "unit_price"}:
                assert Decimal(cell or "") == Decimal(expected)
            else:
                assert (cell or "") == expected.removeprefix("'")
    total = dict(zip(*sheets["Totals"], strict=True))
    assert (total["units"], total["currency"], total["entries"]) == ("13", "EUR", "4")
    assert Decimal(total["amount"] or "") == Decimal("17.999999")


@pytest.mark.parametrize("report_format", FORMATS)
def test_an_empty_month_is_a_report_too(tenant: Tenant, report_format: str) -> None:
    body = report(tenant, report_format, days=(dt.date(2024, 1, 1), dt.date(2024, 1, 31)))
    if report_format == "json":
        assert (json.loads(body)["entries"], json.loads(body)["totals"]) == ([], [])
    elif report_format == "csv":
        assert body.decode().splitlines() == [",".join(COLUMNS)]
    else:
        assert len(read_sheets(body)["Usage"]) == 1


@pytest.mark.parametrize("report_format", FORMATS)
def test_what_comes_later_changes_no_byte(tenant: Tenant, report_format: str) -> None:
    before = report(tenant, report_format)
    with tenant_scope(tenant.id):
        head = Account.objects.get().last_seq
        Account.objects.update(time_zone="America/New_York")
    services.adjust(
        tenant_id=tenant.id,
        units=1,
        amount_micros=1,
        reason="next month",
        actor="test",
        used_at=dt.datetime(2026, 2, 5, tzinfo=dt.UTC),
    )
    assert report(tenant, report_format) == before
    services.reverse_entry(tenant_id=tenant.id, seq=3, reason="late", actor="test")
    assert report(tenant, report_format) != before
    assert report(tenant, report_format, watermark=head) == before


def test_long_ledgers_are_read_in_pages(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = report(tenant, "json")
    for page in (1, 2, 4, 5):
        monkeypatch.setattr("billing.selectors._PAGE_ENTRIES", page)
        assert report(tenant, "json") == whole


def test_xlsx_goes_on_in_another_sheet(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "_SHEET_ROWS", 3)
    sheets = read_sheets(report(tenant, "xlsx"))
    assert [(name, [row[0] for row in rows[1:]]) for name, rows in sheets.items()] == [
        ("Usage", ["2", "3", "4"]),
        ("Usage 2", ["5"]),
        ("Totals", ["total"]),
    ]


def test_days_in_the_wrong_order_and_unknown_watermarks_are_refused(tenant: Tenant) -> None:
    with pytest.raises(InvalidRequestError):
        report(tenant, "csv", days=(JANUARY[1], JANUARY[0]))
    for watermark in (-1, 7):
        with pytest.raises(InvalidRequestError):
            report(tenant, "csv", watermark=watermark)


def test_another_process_locale_and_hash_seed_give_the_same_bytes(
    tenant: Tenant, servers: Servers, tmp_path: Path, settings: Any
) -> None:
    environment = {
        **os.environ,
        **{variable: servers.url(alias) for alias, variable in URL_VARIABLES.items()},
        "DJANGO_SETTINGS_MODULE": "config.settings.development",
        "REDIS_URL": servers.redis_url,
        "STORAGE_URL": settings.STORAGE_URL,
        "SECRET_KEY": settings.SECRET_KEY,
        "KEY_PEPPER": settings.KEY_PEPPER,
        "MASTER_KEY": settings.MASTER_KEY,
        "PYTHONHASHSEED": "1",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "TZ": "Asia/Kathmandu",
    }
    for report_format in FORMATS:
        command = [sys.executable, "manage.py", "usage_report", "--tenant", tenant.slug]
        command += ["--from", "2026-01-01", "--to", "2026-01-31", "--format", report_format]
        target = tmp_path / "report"
        if report_format == ReportFormat.XLSX:
            command += ["--output", str(target)]
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
        assert ran.returncode == 0, ran.stderr.decode()
        printed = target.read_bytes() if report_format == ReportFormat.XLSX else ran.stdout
        assert printed == report(tenant, report_format), report_format
