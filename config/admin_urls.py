"""The admin process: Django admin on its own port, with the staff role."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, path
from django.views.generic import RedirectView

from config.health import livez, readyz
from config.metrics import metrics

admin.autodiscover()  # here, so that no other process loads the pages

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
    path("livez", livez),
    path("readyz", readyz),
    path("metrics", metrics),
    path("", RedirectView.as_view(pattern_name="admin:index")),
]
