"""`/v1/jobs`, `/v1/speech/estimate`, `/v1/engines`, `/v1/languages`: everything that does not stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

import structlog
from django.conf import settings
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from billing import services as billing
from billing.rating import billable_chars, format_amount
from synthesis import selectors, services
from synthesis.api.serializers import (
    EngineListSerializer,
    EstimateSerializer,
    JobDetailSerializer,
    JobListQuery,
    JobSerializer,
    LanguageListSerializer,
    SpeechOrder,
    SpeechSerializer,
)
from synthesis.catalogue import engine_entry
from synthesis.contracts import CONTENT_TYPES, MAX_JOB_CHARS, SAMPLE_RATES_HZ
from synthesis.engines.gpt_sovits.models import list_models
from synthesis.errors import JobNotFoundError
from synthesis.estimates import predict
from synthesis.models import JobKind, JobStatus, SynthesisJob
from tenants.api import idempotency
from tenants.api.pagination import CursorPages
from tenants.api.parsers import JsonBodyParser
from tenants.api.views import TenantAPIView
from tenants.models import Scope
from tenants.scoping import tenant_scope
from voices import selectors as voices_selectors

CREATE_JOB_ROUTE = "POST /v1/jobs"  # of idempotency records
JOB_ID = OpenApiParameter("job_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
IDEMPOTENCY_KEY = OpenApiParameter(
    idempotency.HEADER, OpenApiTypes.STR, OpenApiParameter.HEADER, description="Repeating it repeats nothing, for 24 h."
)


def read_job_id(given: str) -> UUID:
    """Only ids as we write them. Raises JobNotFoundError: what was never an id is not found either."""
    try:
        job_id = UUID(given)
    except ValueError:
        raise JobNotFoundError from None
    if str(job_id) != given.lower():
        raise JobNotFoundError
    structlog.contextvars.bind_contextvars(job_id=given.lower())  # on every later line of this request
    return job_id


def describe_job(job: SynthesisJob) -> dict[str, Any]:
    """The job as JSON holds it, so that a stored answer equals the first."""
    described: dict[str, Any] = json.loads(JSONRenderer().render(JobDetailSerializer(job).data))
    return described


class JobsView(TenantAPIView):
    parser_classes = (JsonBodyParser,)
    pagination_class = CursorPages  # read by the schema
    required_scopes: ClassVar[Mapping[str, Scope]] = {"GET": Scope.SPEECH_WRITE, "POST": Scope.SPEECH_WRITE}

    @extend_schema(
        operation_id="list_jobs",
        tags=["jobs"],
        summary="List jobs, newest first",
        parameters=[JobListQuery],
        responses=JobSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        query = JobListQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        pages = self.pagination_class()
        with tenant_scope(self.caller.tenant_id):
            page = pages.paginate_queryset(selectors.list_jobs().filter(**query.validated_data), request, view=self)
            return pages.get_paginated_response(JobSerializer(page, many=True).data)

    @extend_schema(
        operation_id="create_job",
        tags=["jobs"],
        summary="Speak a long text, to be fetched when it is done",
        description=f"Up to {MAX_JOB_CHARS} characters. The characters are reserved now and charged when it succeeds.",
        parameters=[IDEMPOTENCY_KEY],
        request=SpeechSerializer,
        responses={202: JobDetailSerializer},
    )
    def post(self, request: Request) -> Response:
        key = idempotency.read_key(request.headers)
        order = SpeechOrder(request.data, limit_chars=MAX_JOB_CHARS)
        with tenant_scope(self.caller.tenant_id):
            if key is not None:
                record, is_first = idempotency.claim(
                    tenant_id=self.caller.tenant_id, route=CREATE_JOB_ROUTE, key=key, fingerprint=order.fingerprint
                )
                if not is_first:
                    return idempotency.replay(record)
            job = services.submit_job(
                tenant_id=self.caller.tenant_id,
                kind=JobKind.BATCH,
                voice_id=order.voice_id,
                request=order.request,
                api_key_id=self.caller.key_id,
            )
            structlog.contextvars.bind_contextvars(job_id=str(job.id))
            body = describe_job(job)
            headers = {"Location": reverse("job", args=[job.id]), "X-Job-Id": str(job.id)}
            if key is not None:
                idempotency.finish(record, status=202, body=body, headers=headers, resource_id=job.id)
        return Response(body, status=202, headers=headers)


@extend_schema(tags=["jobs"], parameters=[JOB_ID])
class JobView(TenantAPIView):
    required_scopes: ClassVar[Mapping[str, Scope]] = {"GET": Scope.SPEECH_WRITE, "DELETE": Scope.SPEECH_WRITE}

    @extend_schema(operation_id="get_job", summary="Show a job", responses=JobDetailSerializer)
    def get(self, request: Request, job_id: str) -> Response:
        with tenant_scope(self.caller.tenant_id):
            return Response(describe_job(selectors.get_job(job_id=read_job_id(job_id))))

    @extend_schema(
        operation_id="cancel_job",
        summary="Cancel a job",
        description="A queued job ends at once (200); a running one at its worker's next look (202) and does not "
        "succeed any more. What a listener had wholly received is charged, nothing else. An ended job stays as it is.",
        responses={200: JobDetailSerializer, 202: JobDetailSerializer},
    )
    def delete(self, request: Request, job_id: str) -> Response:
        with tenant_scope(self.caller.tenant_id):
            found = selectors.get_job(job_id=read_job_id(job_id))
            job = services.cancel_job(tenant_id=self.caller.tenant_id, job_id=found.id)
            return Response(describe_job(job), status=202 if job.status == JobStatus.RUNNING else 200)


class EstimateView(TenantAPIView):
    parser_classes = (JsonBodyParser,)
    required_scopes: ClassVar[Mapping[str, Scope]] = {"POST": Scope.SPEECH_WRITE}

    @extend_schema(
        operation_id="estimate_speech",
        tags=["speech"],
        summary="What a request will cost",
        description="Exactly what it will be charged, unless the listener leaves early. Nothing is stored or reserved.",
        request=SpeechSerializer,
        responses=EstimateSerializer,
    )
    def post(self, request: Request) -> Response:
        order = SpeechOrder(request.data, limit_chars=MAX_JOB_CHARS)
        units = billable_chars(order.request.text)
        with tenant_scope(self.caller.tenant_id):
            voices_selectors.get_voice(voice_id=order.voice_id)
            quote = billing.quote(tenant_id=self.caller.tenant_id, units=units)
        prediction = predict(order.request, languages=engine_entry(settings.ENGINE).language_codes)
        return Response(
            {
                "characters": units,
                "segments": prediction.segments,
                "predicted_seconds": prediction.seconds,
                "price": {
                    "currency": quote.currency,
                    "amount": format_amount(quote.amount_micros),
                    "amount_micros": quote.amount_micros,
                    "price_version": quote.price_version,
                },
            }
        )


class EnginesView(TenantAPIView):
    required_scopes: ClassVar[Mapping[str, Scope]] = {}  # any key

    @extend_schema(
        operation_id="list_engines", tags=["catalogue"], summary="What makes the sound", responses=EngineListSerializer
    )
    def get(self, request: Request) -> Response:
        entry = engine_entry(settings.ENGINE)
        formats = [
            {"format": name.value, "content_type": CONTENT_TYPES[name], "sample_rates": list(SAMPLE_RATES_HZ[name])}
            for name in entry.formats
        ]
        engine = {
            "name": entry.name,
            "description": entry.description,
            "languages": list(entry.language_codes),
            "formats": formats,
            "models": list_models(settings.MODEL_PATH) if entry.has_models else [],
        }
        return Response({"data": [engine]})


class LanguagesView(TenantAPIView):
    required_scopes: ClassVar[Mapping[str, Scope]] = {}  # any key

    @extend_schema(
        operation_id="list_languages",
        tags=["catalogue"],
        summary="What can be spoken",
        responses=LanguageListSerializer,
    )
    def get(self, request: Request) -> Response:
        return Response(
            {
                "data": [
                    {"code": language.code, "name": language.name, "tested": language.tested}
                    for language in engine_entry(settings.ENGINE).languages
                ]
            }
        )
