"""Mounted under /v1."""

from __future__ import annotations

from django.urls import path

from voices.api.views import ConsentWithdrawalView, VoicesView, VoiceView

urlpatterns = [
    path("voices", VoicesView.as_view(), name="voices"),
    path("voices/<str:voice_id>", VoiceView.as_view(), name="voice"),
    path("voices/<str:voice_id>/consent/withdraw", ConsentWithdrawalView.as_view(), name="voice_consent_withdraw"),
]
