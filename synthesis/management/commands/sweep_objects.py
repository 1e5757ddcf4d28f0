"""`sweep_objects`: deletes what lies in object storage and belongs to no job, clip or prepared voice."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from synthesis import orphans
from tenants import selectors
from tenants.errors import ApplicationError
from tenants.models import Tenant


class Command(BaseCommand):
    help = "Deletes objects that no row names and that are older than the grace period; prints one line for each."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--tenant", metavar="SLUG", help="of this tenant only; default: of all")
        parser.add_argument(
            "--grace-hours",
            type=float,
            default=24.0,
            help="leave younger ones alone: their row may be still to come (default 24; 0 only while nothing runs)",
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would be deleted, and delete nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["grace_hours"] >= 0:
            raise CommandError("--grace-hours must not be negative.")
        grace = dt.timedelta(hours=options["grace_hours"])
        found = size_bytes = failures = 0
        for tenant in self._tenants(options["tenant"]):
            try:
                for batch in orphans.find_orphans(tenant_id=tenant.id, grace=grace):
                    if not options["dry_run"]:
                        orphans.delete_orphans(tenant_id=tenant.id, orphans=batch, actor="command:sweep_objects")
                    for orphan in batch:
                        hours = (timezone.now() - orphan.modified_at) / dt.timedelta(hours=1)
                        act = "would delete" if options["dry_run"] else "deleted"
                        self.stdout.write(f"{act} {orphan.key} {orphan.size_bytes} bytes, {hours:.1f} hours old")
                    found += len(batch)
                    size_bytes += sum(orphan.size_bytes for orphan in batch)
            except (ApplicationError, OSError) as error:  # of this tenant; the others are swept all the same
                self.stderr.write(f"{tenant.slug}: {error}")
                failures += 1
        self.stdout.write(f"{found} orphans, {size_bytes} bytes{', none deleted' if options['dry_run'] else ''}")
        if failures:
            sys.exit(1)

    def _tenants(self, slug: str | None) -> list[Tenant]:
        if slug is None:
            return selectors.list_tenants()
        try:
            return [selectors.get_tenant_by_slug(slug)]
        except Tenant.DoesNotExist as error:
            raise CommandError(f"There is no tenant {slug!r}.") from error
