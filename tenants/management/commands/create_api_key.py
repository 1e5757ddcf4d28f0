"""`create_api_key SLUG`: a key for a tenant."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants import selectors, services
from tenants.errors import ApplicationError
from tenants.models import Scope, Tenant


class Command(BaseCommand):
    help = "Create an API key; its secret is printed once, on the last line."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("--name", default="", help="for people")
        parser.add_argument(
            "--scopes", default=",".join(Scope.values), help="comma-separated (default: all of %(default)s)"
        )
        parser.add_argument("--expires-in", type=int, metavar="DAYS", help="days until it expires (default: never)")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            tenant = selectors.get_tenant_by_slug(options["slug"])
            issued = services.create_api_key(
                tenant_id=tenant.id,
                name=options["name"],
                actor="command:create_api_key",
                scopes=[scope.strip() for scope in options["scopes"].split(",")],
                expires_in_days=options["expires_in"],
            )
        except Tenant.DoesNotExist as error:
            raise CommandError(f"There is no tenant {options['slug']!r}.") from error
        except ApplicationError as error:
            known = error.details.get("known_scopes")
            raise CommandError(error.message + (f" Known scopes: {', '.join(known)}." if known else "")) from error
        self.stdout.write(issued.secret)
