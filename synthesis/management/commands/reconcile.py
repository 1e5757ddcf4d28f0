"""Compares jobs, reservations, balances and ledgers: R1, R2, R3, R4 and R7 of the README, over all tenants."""

from __future__ import annotations

import sys
from itertools import chain
from typing import Any

from django.core.management.base import BaseCommand

from billing.selectors import audit_all_tenants
from synthesis.selectors import find_ledger_differences, find_reservation_differences


class Command(BaseCommand):
    help = "Prints one line for each difference between jobs and money; ends with 1 if there is any."

    def handle(self, *args: Any, **options: Any) -> None:
        found = 0
        for finding in chain(audit_all_tenants(), find_ledger_differences(), find_reservation_differences()):
            self.stdout.write(str(finding))
            found += 1
        self.stderr.write(f"{found} findings")
        if found:
            sys.exit(1)
