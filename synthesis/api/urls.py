"""Mounted under /v1."""

from __future__ import annotations

from django.urls import path

from synthesis.api import speech
from synthesis.api.views import EnginesView, EstimateView, JobsView, JobView, LanguagesView

urlpatterns = [
    path("speech", speech.speech, name="speech"),
    path("speech/estimate", EstimateView.as_view(), name="speech_estimate"),
    path("jobs", JobsView.as_view(), name="jobs"),
    path("jobs/<str:job_id>", JobView.as_view(), name="job"),
    path("jobs/<str:job_id>/audio", speech.job_audio, name="job_audio"),
    path("jobs/<str:job_id>/events", speech.job_events, name="job_events"),
    path("engines", EnginesView.as_view(), name="engines"),
    path("languages", LanguagesView.as_view(), name="languages"),
]
