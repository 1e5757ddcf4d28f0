"""The admin process: `uvicorn config.wsgi:server`.

Django admin is synchronous, so it runs as WSGI on threads; `server` is the same application for uvicorn.
"""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.production")
os.environ.setdefault("CANTORIA_PROCESS", "admin")

from a2wsgi import WSGIMiddleware
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
server = WSGIMiddleware(application, workers=8)  # type: ignore[arg-type]  # Django's answer is what WSGI asks for
