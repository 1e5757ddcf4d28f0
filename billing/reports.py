"""Usage reports: the same tenant, days, format and ledger give the same bytes, on any machine, years later.

A report is a function of (tenant, first day, last day, watermark). Days are calendar days in the tenant's zone, both
included; they are read from the entries (`used_on`), so a later change of the zone changes no report. The watermark is
a ledger seq: entries beyond it do not exist for the report. It is not in the body, and neither is the time of making:
what was added outside the report's days leaves its bytes alone.

Entries come in order of seq, then totals. Figures are integers and decimal strings.
"""

from __future__ import annotations

import csv
import datetime as dt
import enum
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import BinaryIO, Final
from uuid import UUID

import xlsxwriter

from billing import rating, selectors
from billing.errors import UnsupportedFormatError
from billing.models import LedgerEntry
from tenants.errors import InvalidRequestError

Cell = int | str | None
Row = Mapping[str, Cell]


class ReportFormat(enum.StrEnum):
    CSV = "csv"
    JSON = "json"
    XLSX = "xlsx"


CONTENT_TYPES: Final[Mapping[ReportFormat, str]] = {
    ReportFormat.CSV: "text/csv; charset=utf-8",
    ReportFormat.JSON: "application/json",
    ReportFormat.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}

COLUMNS: Final = (
    "seq",
    "kind",
    "used_on",
    "used_at",
    "period",
    "meter",
    "units",
    "currency",
    "unit_price",
    "price_version",
    "amount",
    "job_id",
    "attempt",
    "api_key_id",
    "voice_id",
    "language",
    "reverses_seq",
    "reason",
)
TOTAL_COLUMNS: Final = ("kind", "meter", "entries", "units", "currency", "amount")
_AMOUNT_COLUMNS: Final = frozenset({"unit_price", "amount"})
_FREE_TEXT_COLUMNS: Final = frozenset({"language", "reason"})  # what people or programs outside can word


def parse_format(name: str) -> ReportFormat:
    """Raises UnsupportedFormatError."""
    try:
        return ReportFormat(name)
    except ValueError as error:
        raise UnsupportedFormatError(report_format=name, supported=list(ReportFormat)) from error


def write_report(
    *,
    tenant_id: UUID,
    first_day: dt.date,
    last_day: dt.date,
    report_format: ReportFormat,
    output: BinaryIO,
    watermark: int | None = None,
) -> int:
    """Write one report to `output` and return its watermark: by default the ledger's head at this moment.

    Raises InvalidRequestError when the days are in the wrong order or the watermark lies beyond the ledger.
    """
    if first_day > last_day:
        raise InvalidRequestError("The first day comes after the last.")
    head = selectors.get_head(tenant_id=tenant_id)
    if watermark is None:
        watermark = head
    elif not 0 <= watermark <= head:
        raise InvalidRequestError("The watermark lies beyond the ledger.", watermark=watermark, head=head)
    entries = selectors.iterate_entries(
        tenant_id=tenant_id, watermark=watermark, first_day=first_day, last_day=last_day
    )
    heading = {"from": first_day.isoformat(), "tenant_id": str(tenant_id), "to": last_day.isoformat()}
    _WRITERS[report_format](heading, _Tally(entries), output)
    return watermark


class _Tally:
    """The report's rows, read once; afterwards `totals()` has one row per currency and meter."""

    def __init__(self, entries: Iterable[LedgerEntry]) -> None:
        self._entries = entries
        self._sums: dict[tuple[str, str], tuple[int, int, int]] = {}

    def __iter__(self) -> Iterator[Row]:
        for entry in self._entries:
            key = (entry.currency, entry.meter)
            count, units, micros = self._sums.get(key, (0, 0, 0))
            self._sums[key] = (count + 1, units + entry.units, micros + entry.amount_micros)
            yield _row(entry)

    def totals(self) -> list[Row]:
        return [
            {
                "kind": "total",
                "meter": meter,
                "entries": count,
                "units": units,
                "currency": currency,
                "amount": rating.format_amount(micros),
            }
            for (currency, meter), (count, units, micros) in sorted(self._sums.items())
        ]


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _row(entry: LedgerEntry) -> Row:
    return {
        "seq": entry.seq,
        "kind": entry.kind,
        "used_on": entry.used_on.isoformat(),
        "used_at": f"{entry.used_at.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
        "period": entry.period.isoformat(),
        "meter": entry.meter,
        "units": entry.units,
        "currency": entry.currency,
        "unit_price": rating.format_amount(entry.price.unit_price_micros),
        "price_version": entry.price.version,
        "amount": rating.format_amount(entry.amount_micros),
        "job_id": _text(entry.job_id),
        "attempt": entry.attempt,
        "api_key_id": _text(entry.api_key_id),
        "voice_id": _text(entry.voice_id),
        "language": entry.language or None,
        "reverses_seq": entry.reverses_seq,
        "reason": entry.reason or None,
    }


# --- CSV (RFC 4180)

# A spreadsheet takes a cell that begins so for a formula; the apostrophe makes it text.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def _csv_cell(column: str, value: Cell) -> Cell:
    if column in _FREE_TEXT_COLUMNS and isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value


def _write_csv(heading: Row, rows: _Tally, output: BinaryIO) -> None:
    """One line per entry, then one of kind `total` per currency and meter; UTF-8, CRLF, empty for nothing."""
    text = io.TextIOWrapper(output, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_csv_cell(column, row[column]) for column in COLUMNS])
    for total in rows.totals():
        writer.writerow([total.get(column) for column in COLUMNS])
    text.detach()  # flushes; the caller's file stays open


# --- JSON


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _write_json(heading: Row, rows: _Tally, output: BinaryIO) -> None:
    """One object with sorted keys, one entry per line; written as it is read, the totals last."""
    text = io.TextIOWrapper(output, encoding="utf-8", newline="\n")
    text.write('{"entries":[')
    for number, row in enumerate(rows):
        text.write(f"{',' if number else ''}\n{_json(row)}")
    text.write(f"\n],{_json({**heading, 'totals': rows.totals()})[1:]}\n")
    text.detach()


# --- XLSX

_SHEET_ROWS: Final = 1_000_000  # a sheet ends at 1,048,576
_CREATED: Final = dt.datetime(2000, 1, 1)  # noqa: DTZ001  (the file's own date: fixed, so that bytes repeat)


def _write_xlsx(heading: Row, rows: _Tally, output: BinaryIO) -> None:
    """A sheet of entries, more of them past a million rows, and a sheet of totals."""
    # constant_memory: rows go to a temporary file as they come.
    workbook = xlsxwriter.Workbook(output, {"constant_memory": True})
    workbook.set_properties({"created": _CREATED})
    amount_format = workbook.add_format({"num_format": "0.000000"})

    def add_sheet(name: str, columns: tuple[str, ...]) -> Callable[[int, Row], None]:
        sheet = workbook.add_worksheet(name)
        sheet.freeze_panes(1, 0)
        for position, column in enumerate(columns):
            sheet.write_string(0, position, column)

        def write(number: int, row: Row) -> None:
            for position, column in enumerate(columns):
                value = row[column]
                if isinstance(value, int):
                    sheet.write_number(number, position, value)
                elif isinstance(value, str) and column in _AMOUNT_COLUMNS:
                    # Sixteen digits are kept: exact up to ten thousand million units of money.
                    sheet.write_number(number, position, Decimal(value), amount_format)
                elif value is not None:
                    sheet.write_string(number, position, value)  # never a formula, never a link

        return write

    write = add_sheet("Usage", COLUMNS)
    for number, row in enumerate(rows):
        if number and number % _SHEET_ROWS == 0:
            write = add_sheet(f"Usage {number // _SHEET_ROWS + 1}", COLUMNS)
        write(number % _SHEET_ROWS + 1, row)
    write = add_sheet("Totals", TOTAL_COLUMNS)
    for number, total in enumerate(rows.totals()):
        write(number + 1, total)
    workbook.close()


_WRITERS: Final[Mapping[ReportFormat, Callable[[Row, _Tally, BinaryIO], None]]] = {
    ReportFormat.CSV: _write_csv,
    ReportFormat.JSON: _write_json,
    ReportFormat.XLSX: _write_xlsx,
}
