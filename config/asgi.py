"""The web process: `uvicorn config.asgi:application`."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.production")
os.environ.setdefault("CANTORIA_PROCESS", "web")

from django.core.asgi import get_asgi_application

_django = get_asgi_application()

from config.body_limit import limit_bodies  # noqa: E402  (needs the settings)
from voices import intake  # noqa: E402

intake.warm_up()

application = limit_bodies(_django)  # type: ignore[arg-type]  # Django says dict where ASGI says mapping
