"""`set_voice_model SLUG MODEL`: the model of a tenant's voices that name none themselves."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from synthesis.engines.gpt_sovits.models import list_models
from tenants import selectors, services
from tenants.models import Tenant


class Command(BaseCommand):
    help = "Speak with MODEL in all voices of a tenant that name no model themselves."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("model", nargs="?", default="", help="an installed model; none: the installation's default")

    def handle(self, *args: Any, **options: Any) -> None:
        model = options["model"]
        installed = list_models(settings.MODEL_PATH)
        if model and model not in installed:
            known = ", ".join(installed) or "none"
            raise CommandError(f"There is no model {model!r} in {settings.MODEL_PATH}. Installed: {known}.")
        try:
            tenant = selectors.get_tenant_by_slug(options["slug"])
        except Tenant.DoesNotExist as error:
            raise CommandError(f"There is no tenant {options['slug']!r}.") from error
        services.set_voice_model(tenant_id=tenant.id, model=model, actor="command:set_voice_model")
        self.stdout.write(f"{tenant.slug} speaks with {model or 'the default model'}.")
