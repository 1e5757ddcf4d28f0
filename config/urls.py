"""The web process: the native API, its description, and what probes ask."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularRedocView, SpectacularSwaggerView

from config.docs import PACKAGE, serve_docs_file
from config.health import livez, readyz
from config.metrics import metrics

urlpatterns: list[URLPattern | URLResolver] = [
    path("v1/", include("voices.api.urls")),
    path("v1/", include("synthesis.api.urls")),
    path("v1/", include("billing.api.urls")),
    path("openapi.json", SpectacularJSONAPIView.as_view(), name="openapi"),
    path("docs", SpectacularSwaggerView.as_view(url_name="openapi"), name="docs"),
    path("redoc", SpectacularRedocView.as_view(url_name="openapi"), name="redoc"),
    path(f"static/{PACKAGE}/<path:path>", serve_docs_file),
    path("livez", livez),
    path("readyz", readyz),
    path("metrics", metrics),
    path("", RedirectView.as_view(pattern_name="docs")),
]

handler400 = "tenants.api.errors.bad_request"
handler404 = "tenants.api.errors.not_found"
handler500 = "tenants.api.errors.server_error"
