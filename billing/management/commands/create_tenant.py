"""`create_tenant SLUG`: a tenant with its account."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import IntegrityError, transaction

from billing import services
from tenants import services as tenants
from tenants.errors import ApplicationError


class Command(BaseCommand):
    help = "Create a tenant with its account; the tenant's id is printed on the last line."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("--name", default="", help="for people; by default the slug")
        parser.add_argument("--plan", default="standard", help="slug of a plan (default: standard)")
        parser.add_argument(
            "--time-zone", default="UTC", help="IANA name; its calendar makes the days and months (default: UTC)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with transaction.atomic():  # a tenant without an account could never speak
                tenant = tenants.create_tenant(
                    slug=options["slug"], name=options["name"], actor="command:create_tenant"
                )
                services.open_account(tenant_id=tenant.id, plan_slug=options["plan"], time_zone=options["time_zone"])
        except ApplicationError as error:
            known = error.details.get("known_plans")
            raise CommandError(error.message + (f" Known plans: {', '.join(known)}." if known else "")) from error
        except IntegrityError as error:
            raise CommandError(f"The slug {options['slug']!r} is taken.") from error
        self.stdout.write(str(tenant.id))
