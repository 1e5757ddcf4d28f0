"""Make the four database roles and their database on a PostgreSQL server of your own; safe to repeat."""

from __future__ import annotations

from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from config import env
from config.database import ROLES, URL_VARIABLES, create_roles


class Command(BaseCommand):
    help = (
        "Creates cantoria_migrate (owner), cantoria_app, cantoria_staff and cantoria_dispatch with the passwords of "
        "the DATABASE_URL variables, and their database. Connects with DATABASE_URL_SUPERUSER, an administrator's "
        "connection string, which nothing else reads."
    )
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        superuser_url = env.require("DATABASE_URL_SUPERUSER")
        settings = {alias: connections.databases[alias] for alias in ROLES}
        names = {entry["NAME"] for entry in settings.values()}
        if len(names) != 1:
            raise CommandError(f"{', '.join(URL_VARIABLES.values())} must name one database, not {sorted(names)}.")
        without = [URL_VARIABLES[alias] for alias, entry in settings.items() if not entry["PASSWORD"]]
        if without:
            raise CommandError(f"These variables have no password to give: {', '.join(without)}.")
        passwords = {alias: str(entry["PASSWORD"]) for alias, entry in settings.items()}
        try:
            create_roles(superuser_url, database=names.pop(), passwords=passwords)
        except (psycopg.Error, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Roles are ready: {', '.join(ROLES.values())}.")
