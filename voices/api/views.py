"""`/v1/voices`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

from django.core.files.uploadedfile import UploadedFile
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api import idempotency
from tenants.api.caller import remote_address
from tenants.api.pagination import CursorPages
from tenants.api.parsers import JsonBodyParser
from tenants.api.views import TenantAPIView
from tenants.models import Scope
from tenants.scoping import tenant_scope
from voices import selectors, services
from voices.api.serializers import VoiceChangesForm, VoiceForm, VoiceListQuery, VoiceSerializer
from voices.api.uploads import receiving_clip
from voices.errors import VoiceNotFoundError
from voices.intake import inspect_upload

_VOICE_ID = OpenApiParameter("voice_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
_IDEMPOTENCY_KEY = OpenApiParameter(
    idempotency.HEADER, OpenApiTypes.STR, OpenApiParameter.HEADER, description="Repeating it repeats nothing, for 24 h."
)


def _read_voice_id(given: str) -> UUID:
    """Only ids as we write them. Raises VoiceNotFoundError: what was never an id is not found either."""
    try:
        voice_id = UUID(given)
    except ValueError:
        raise VoiceNotFoundError from None
    if str(voice_id) != given.lower():
        raise VoiceNotFoundError
    return voice_id


class _VoiceAPIView(TenantAPIView):
    def describe(self, voice_id: UUID) -> dict[str, Any]:
        with tenant_scope(self.caller.tenant_id):
            return dict(VoiceSerializer(selectors.get_voice(voice_id=voice_id)).data)

    def address(self) -> str | None:
        return remote_address(self.request._request) or None


class VoicesView(_VoiceAPIView):
    parser_classes = (MultiPartParser,)
    pagination_class = CursorPages  # read by the schema
    required_scopes: ClassVar[Mapping[str, Scope]] = {"GET": Scope.VOICES_READ, "POST": Scope.VOICES_WRITE}

    @extend_schema(
        operation_id="list_voices",
        tags=["voices"],
        summary="List voices, newest first",
        parameters=[VoiceListQuery],
        responses=VoiceSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        query = VoiceListQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        pages = self.pagination_class()
        with tenant_scope(self.caller.tenant_id):
            page = pages.paginate_queryset(selectors.list_voices(**query.validated_data), request, view=self)
            return pages.get_paginated_response(VoiceSerializer(page, many=True).data)

    @extend_schema(
        operation_id="create_voice",
        tags=["voices"],
        summary="Make a voice from a few seconds of speech",
        description="The clip is inspected before anything is kept; the answer holds its quality report. The voice is "
        "`preparing` and becomes `ready`, or `failed` with a reason, on its own.",
        parameters=[_IDEMPOTENCY_KEY],
        request={"multipart/form-data": VoiceForm},
        responses={201: VoiceSerializer},
    )
    def post(self, request: Request) -> Response:
        key = idempotency.read_key(request.headers)
        with receiving_clip(request._request):
            form = VoiceForm(data=request.data)
            form.is_valid(raise_exception=True)
            fields = form.validated_data
            upload: UploadedFile[bytes] = fields.pop("audio")
            fingerprint = _fingerprint(fields, upload)
            if key is not None and (voice_id := self._find_first(key, fingerprint)) is not None:
                return self._created(voice_id, is_replay=True)
            assert upload.file is not None
            clip = inspect_upload(upload.file, declared_filename=upload.name, declared_content_type=upload.content_type)
        voice = services.create_voice(
            tenant_id=self.caller.tenant_id,
            clip=clip,
            original_filename=upload.name or "",
            actor=self.caller.actor,
            remote_address=self.address(),
            idempotency_key=key,
            fingerprint=fingerprint,
            **fields,
        )
        return self._created(voice.id, is_replay=False)

    def _find_first(self, key: str, fingerprint: bytes) -> UUID | None:
        with tenant_scope(self.caller.tenant_id):
            record = idempotency.find(route=services.CREATE_ROUTE, key=key, fingerprint=fingerprint)
            return None if record is None else record.resource_id

    def _created(self, voice_id: UUID, *, is_replay: bool) -> Response:
        headers = {"Location": reverse("voice", args=[voice_id])}
        if is_replay:
            headers[idempotency.REPLAYED_HEADER] = "true"
        return Response(self.describe(voice_id), status=201, headers=headers)


def _fingerprint(fields: Mapping[str, Any], upload: UploadedFile[bytes]) -> bytes:
    """Of all that was sent; the file is left at its beginning."""
    digest = hashlib.sha256()
    for chunk in upload.chunks():
        digest.update(chunk)
    upload.seek(0)
    return idempotency.fingerprint(json.dumps(fields, sort_keys=True).encode(), digest.digest())


@extend_schema(tags=["voices"], parameters=[_VOICE_ID])
class VoiceView(_VoiceAPIView):
    parser_classes = (JsonBodyParser,)
    required_scopes: ClassVar[Mapping[str, Scope]] = {
        "GET": Scope.VOICES_READ,
        "PATCH": Scope.VOICES_WRITE,
        "DELETE": Scope.VOICES_WRITE,
    }

    @extend_schema(operation_id="get_voice", summary="Show a voice", responses=VoiceSerializer)
    def get(self, request: Request, voice_id: str) -> Response:
        return Response(self.describe(_read_voice_id(voice_id)))

    @extend_schema(
        operation_id="update_voice",
        summary="Rename or relabel a voice",
        request=VoiceChangesForm,
        responses=VoiceSerializer,
    )
    def patch(self, request: Request, voice_id: str) -> Response:
        form = VoiceChangesForm(data=request.data)
        form.is_valid(raise_exception=True)
        voice = services.update_voice(
            tenant_id=self.caller.tenant_id,
            voice_id=_read_voice_id(voice_id),
            actor=self.caller.actor,
            **form.validated_data,
        )
        return Response(self.describe(voice.id))

    @extend_schema(
        operation_id="erase_voice",
        summary="Erase a voice",
        description="Destroys the key its clips and embeddings are encrypted with, then them. Cannot be undone.",
        responses={204: OpenApiResponse(description="Erased.")},
    )
    def delete(self, request: Request, voice_id: str) -> Response:
        services.erase_voice(
            tenant_id=self.caller.tenant_id, voice_id=_read_voice_id(voice_id), actor=self.caller.actor
        )
        return Response(status=204)


class ConsentWithdrawalView(_VoiceAPIView):
    parser_classes = (JsonBodyParser,)
    required_scopes: ClassVar[Mapping[str, Scope]] = {"POST": Scope.VOICES_WRITE}

    @extend_schema(
        operation_id="withdraw_consent",
        tags=["voices"],
        summary="Withdraw the speaker's consent",
        description="Nothing more can be spoken in this voice. Repeating it changes nothing. The recording stays until "
        "the voice is erased.",
        parameters=[_VOICE_ID],
        request=None,
        responses=VoiceSerializer,
    )
    def post(self, request: Request, voice_id: str) -> Response:
        voice = services.withdraw_consent(
            tenant_id=self.caller.tenant_id,
            voice_id=_read_voice_id(voice_id),
            actor=self.caller.actor,
            remote_address=self.address(),
        )
        return Response(self.describe(voice.id))
