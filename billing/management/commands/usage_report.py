"""`usage_report`: one tenant's usage between two days, for an invoice or an auditor."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing import reports
from billing.reports import ReportFormat
from tenants import selectors as tenants
from tenants.errors import ApplicationError
from tenants.models import Tenant


def parse_day(text: str) -> dt.date:
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007  (a calendar day has no zone)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day of the form YYYY-MM-DD") from error


class Command(BaseCommand):
    help = "Write a tenant's usage report. The same tenant, days, format and watermark give the same bytes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--tenant", required=True, metavar="SLUG")
        parser.add_argument(
            "--from", dest="first_day", type=parse_day, required=True, metavar="YYYY-MM-DD", help="first day"
        )
        parser.add_argument(
            "--to", dest="last_day", type=parse_day, required=True, metavar="YYYY-MM-DD", help="last day, included"
        )
        parser.add_argument("--format", choices=[known.value for known in ReportFormat], default="csv")
        parser.add_argument("--output", type=Path, help="a file; by default standard output")
        parser.add_argument(
            "--watermark", type=int, metavar="SEQ", help="leave out ledger entries beyond this seq (default: none)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            tenant = tenants.get_tenant_by_slug(options["tenant"])
        except Tenant.DoesNotExist as error:
            raise CommandError(f"There is no tenant {options['tenant']!r}.") from error
        with ExitStack() as stack:
            output: BinaryIO = sys.stdout.buffer
            if options["output"] is not None:
                output = stack.enter_context(options["output"].open("wb"))
            try:
                watermark = reports.write_report(
                    tenant_id=tenant.id,
                    first_day=options["first_day"],
                    last_day=options["last_day"],
                    report_format=ReportFormat(options["format"]),
                    output=output,
                    watermark=options["watermark"],
                )
            except ApplicationError as error:
                raise CommandError(error.message) from error
            output.flush()
        self.stderr.write(f"ledger watermark {watermark}")
