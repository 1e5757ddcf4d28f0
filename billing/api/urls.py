"""Mounted under /v1."""

from __future__ import annotations

from django.urls import path

from billing.api.views import UsageReportView, UsageView

urlpatterns = [
    path("usage", UsageView.as_view(), name="usage"),
    path("usage/report", UsageReportView.as_view(), name="usage_report"),
]
