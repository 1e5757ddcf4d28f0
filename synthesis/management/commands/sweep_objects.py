"""`sweep_objects`: deletes what lies in object storage and belongs to no job, clip or prepared voice."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from synthesis import orphans
from tenants import selectors
from tenants.errors import ApplicationError
from tenants.models import Tenant

_ACTOR: Final = "command:sweep_objects"


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
        self._grace = dt.timedelta(hours=options["grace_hours"])
        self._is_dry = options["dry_run"]
        self._objects = self._bytes = self._uploads = failures = 0
        for tenant in self._tenants(options["tenant"]):
            try:
                self._sweep(tenant)
            except (ApplicationError, OSError) as error:  # of this tenant; the others are swept all the same
                self.stderr.write(f"{tenant.slug}: {error}")
                failures += 1
        summary = f"{self._objects} orphans, {self._bytes} bytes, {self._uploads} unfinished uploads"
        self.stdout.write(f"{summary}, none deleted" if self._is_dry else summary)
        if failures:
            sys.exit(1)

    def _tenants(self, slug: str | None) -> list[Tenant]:
        if slug is None:
            return selectors.list_tenants()
        try:
            return [selectors.get_tenant_by_slug(slug)]
        except Tenant.DoesNotExist as error:
            raise CommandError(f"There is no tenant {slug!r}.") from error

    def _sweep(self, tenant: Tenant) -> None:
        for batch in orphans.find_orphans(tenant_id=tenant.id, grace=self._grace):
            if not self._is_dry:
                orphans.delete_orphans(tenant_id=tenant.id, orphans=batch, actor=_ACTOR)
            for orphan in batch:
                self._say(f"{orphan.key} {orphan.size_bytes} bytes", since=orphan.modified_at)
            self._objects += len(batch)
            self._bytes += sum(orphan.size_bytes for orphan in batch)
        if uploads := orphans.find_stale_uploads(tenant_id=tenant.id, grace=self._grace):
            if not self._is_dry:
                orphans.abort_uploads(tenant_id=tenant.id, uploads=uploads, actor=_ACTOR)
            for upload in uploads:
                self._say(f"{upload.key} unfinished", since=upload.begun_at)
            self._uploads += len(uploads)

    def _say(self, what: str, *, since: dt.datetime) -> None:
        hours = (timezone.now() - since) / dt.timedelta(hours=1)
        self.stdout.write(f"{'would delete' if self._is_dry else 'deleted'} {what}, {hours:.1f} hours old")
