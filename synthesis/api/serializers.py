"""The wire form of requests for speech and of jobs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, ClassVar
from uuid import UUID

from django.conf import settings
from django.urls import reverse
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from synthesis.catalogue import engine_entry
from synthesis.contracts import (
    AUTO_LANGUAGE,
    CONTENT_TYPES,
    MAX_JOB_CHARS,
    MAX_PITCH_SEMITONES,
    MAX_SEED,
    MAX_SPEED,
    MIN_PITCH_SEMITONES,
    MIN_SPEED,
    SAMPLE_RATES_HZ,
    AudioFormat,
    RenderRequest,
)
from synthesis.models import JobKind, JobStatus, SynthesisJob
from synthesis.validation import make_request
from tenants.api import idempotency
from voices.errors import VoiceNotFoundError

_ALL_RATES_HZ = sorted({rate for rates in SAMPLE_RATES_HZ.values() for rate in rates})


@extend_schema_field({"type": "string"})
class _TextField(serializers.Field[str, Any, str, Any]):
    """A string exactly as it was sent: what is wrong with a text is said by `make_request`, with a code of its own."""

    default_error_messages: ClassVar = {"invalid": "Not a string."}

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return data

    def to_representation(self, value: str) -> str:
        return value


class _NumberField(serializers.FloatField):
    """A JSON number: neither a string that looks like one, nor true."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        try:
            return float(data)
        except OverflowError:
            self.fail("invalid")


class _WholeNumberField(serializers.IntegerField):
    """A JSON number without a fraction."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return data


class _VoiceIdField(serializers.UUIDField):
    """A voice's id. What is no id of ours is no voice either, and gets the same answer as a missing one."""

    def to_internal_value(self, data: Any) -> UUID:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        try:
            return UUID(data)
        except ValueError as error:
            raise VoiceNotFoundError from error


@extend_schema_field({"type": "string", "maxLength": MAX_JOB_CHARS, "example": "The kettle is on."})
class _SpokenTextField(_TextField):
    pass


@extend_schema_field({"type": "string", "example": "en"})
class _LanguageField(_TextField):
    pass


@extend_schema_field({"type": "string", "enum": [audio_format.value for audio_format in AudioFormat]})
class _FormatField(_TextField):
    pass


@extend_schema_field({"type": ["integer", "null"], "enum": [*_ALL_RATES_HZ, None]})
class _SampleRateField(_WholeNumberField):
    pass


class PronunciationSerializer(serializers.Serializer[Any]):
    """Say `spoken` wherever `written` stands."""

    written = _TextField()
    spoken = _TextField()


class SpeechSerializer(serializers.Serializer[Any]):
    """A text to speak in a voice."""

    voice_id = _VoiceIdField()
    text = _SpokenTextField(required=False, default="", help_text="Characters of it are what is charged.")
    language = _LanguageField(
        required=False, default=AUTO_LANGUAGE, help_text="A code of `GET /v1/languages`, or `auto`: told by its script."
    )
    format = _FormatField(required=False, default=AudioFormat.WAV.value)
    sample_rate = _SampleRateField(
        required=False, allow_null=True, default=None, help_text="Hz; which ones depends on the format."
    )
    speed = _NumberField(required=False, default=1.0, help_text=f"{MIN_SPEED:g} to {MAX_SPEED:g}.")
    pitch = _NumberField(
        required=False, default=0.0, help_text=f"Semitones, {MIN_PITCH_SEMITONES:g} to {MAX_PITCH_SEMITONES:g}."
    )
    seed = _WholeNumberField(required=False, default=0, help_text=f"0 to {MAX_SEED}. The same seed, the same bytes.")
    pronunciations = PronunciationSerializer(many=True, required=False, default=list)

    def to_internal_value(self, data: Any) -> Any:
        """Refuse fields that nobody knows: a misspelt one would be quietly ignored."""
        unknown = sorted(set(data) - set(self.fields)) if isinstance(data, dict) else []
        if unknown:
            shown = [name.encode("ascii", "backslashreplace").decode()[:64] for name in unknown]
            raise serializers.ValidationError(
                {name: [ErrorDetail("There is no such field.", code="unknown_field")] for name in shown}
            )
        if isinstance(data, dict) and data.get("text", "") is None:
            data = {**data, "text": ""}
        return super().to_internal_value(data)


class SpeechOrder:
    """A request for speech that was found good: the voice, and what to render."""

    def __init__(self, data: Any, *, limit_chars: int) -> None:
        """Raises ValidationError for its shape, and the errors of `make_request` for what it asks."""
        form = SpeechSerializer(data=data)
        form.is_valid(raise_exception=True)
        fields = form.validated_data
        self.voice_id: UUID = fields["voice_id"]
        self.request: RenderRequest = make_request(
            text=fields["text"],
            language=fields["language"],
            audio_format=fields["format"],
            sample_rate_hz=fields["sample_rate"],
            default_sample_rate_hz=settings.SAMPLE_RATE,
            speed=fields["speed"],
            pitch_semitones=fields["pitch"],
            seed=fields["seed"],
            pronunciations=[(pair["written"], pair["spoken"]) for pair in fields["pronunciations"]],
            limit_chars=limit_chars,
            languages=engine_entry(settings.ENGINE).language_codes,
        )

    @property
    def fingerprint(self) -> bytes:
        """Equal for requests that ask for the same."""
        return idempotency.fingerprint(self.voice_id.bytes, json.dumps(asdict(self.request), sort_keys=True).encode())


class JobErrorSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()


class JobAudioSerializer(serializers.Serializer[Any]):
    url = serializers.CharField()
    content_type = serializers.CharField()
    size_bytes = serializers.IntegerField()
    seconds = serializers.FloatField()
    sha256 = serializers.CharField()
    segments = serializers.IntegerField()


class JobSerializer(serializers.Serializer[SynthesisJob]):
    """A job as its tenant sees it."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=[JobKind.SPEECH.value, JobKind.BATCH.value])
    status = serializers.ChoiceField(choices=JobStatus.choices)
    cancel_requested = serializers.SerializerMethodField()
    voice_id = serializers.UUIDField()
    language = serializers.CharField()
    format = serializers.CharField(source="audio_format")
    sample_rate = serializers.IntegerField(source="sample_rate_hz")
    speed = serializers.FloatField()
    pitch = serializers.FloatField(source="pitch_semitones")
    seed = serializers.IntegerField()
    characters = serializers.IntegerField(source="billable_chars", help_text="What success will be charged.")
    charged_characters = serializers.SerializerMethodField()
    attempts = serializers.IntegerField(source="attempt")
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    engine = serializers.CharField(help_text="Empty until the job has succeeded.")
    engine_version = serializers.CharField()
    error = serializers.SerializerMethodField()
    audio = serializers.SerializerMethodField()

    def get_cancel_requested(self, job: SynthesisJob) -> bool:
        return job.cancel_requested_at is not None

    def get_charged_characters(self, job: SynthesisJob) -> int:
        match job.status:
            case JobStatus.SUCCEEDED:
                return job.billable_chars
            case JobStatus.CANCELLED:
                return job.delivered_chars
        return 0

    @extend_schema_field(JobErrorSerializer(allow_null=True))
    def get_error(self, job: SynthesisJob) -> dict[str, str] | None:
        return {"code": job.error_code, "message": job.error_message} if job.error_code else None

    @extend_schema_field(JobAudioSerializer(allow_null=True))
    def get_audio(self, job: SynthesisJob) -> dict[str, Any] | None:
        if job.status != JobStatus.SUCCEEDED:
            return None
        assert job.audio_frames is not None
        assert job.sample_rate_hz is not None
        return {
            "url": reverse("job_audio", args=[job.id]),
            "content_type": CONTENT_TYPES[AudioFormat(job.audio_format)],
            "size_bytes": job.artifact_bytes,
            "seconds": round(job.audio_frames / job.sample_rate_hz, 3),
            "sha256": job.artifact_sha256,
            "segments": job.segments,
        }


class MarkSerializer(serializers.Serializer[Any]):
    """A word or sentence: code points of the request's text, and milliseconds of the audio."""

    kind = serializers.CharField(help_text="`word` or `sentence`.")
    text_start = serializers.IntegerField()
    text_end = serializers.IntegerField()
    start_ms = serializers.IntegerField()
    end_ms = serializers.IntegerField()


class JobDetailSerializer(JobSerializer):
    """A job with what lists leave out: where each word and sentence of the text sounds."""

    marks = serializers.SerializerMethodField()

    @extend_schema_field(MarkSerializer(many=True))
    def get_marks(self, job: SynthesisJob) -> list[dict[str, Any]]:
        names = ("kind", "text_start", "text_end", "start_ms", "end_ms")
        return [dict(zip(names, mark, strict=True)) for mark in job.marks]


class JobListQuery(serializers.Serializer[Any]):
    status = serializers.ChoiceField(choices=JobStatus.choices, required=False)
    voice_id = serializers.UUIDField(required=False)


class PriceSerializer(serializers.Serializer[Any]):
    currency = serializers.CharField()
    amount = serializers.CharField(help_text="Decimal string.")
    amount_micros = serializers.IntegerField(help_text="Millionths of the currency unit.")
    price_version = serializers.IntegerField()


class EstimateSerializer(serializers.Serializer[Any]):
    """What a request will be charged and about how long it will sound."""

    characters = serializers.IntegerField()
    segments = serializers.IntegerField()
    predicted_seconds = serializers.FloatField()
    price = PriceSerializer()


class LanguageSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    name = serializers.CharField()
    tested = serializers.BooleanField(help_text="Spoken in this project's own tests.")


class LanguageListSerializer(serializers.Serializer[Any]):
    data = LanguageSerializer(many=True)  # type: ignore[assignment]  # `data` of every serializer


class FormatSerializer(serializers.Serializer[Any]):
    format = serializers.CharField()
    content_type = serializers.CharField()
    sample_rates = serializers.ListField(child=serializers.IntegerField())


class EngineSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    description = serializers.CharField()
    languages = serializers.ListField(child=serializers.CharField())
    formats = FormatSerializer(many=True)
    models = serializers.ListField(
        child=serializers.CharField(), help_text="Names that a voice may be given; none where there is no choice."
    )


class EngineListSerializer(serializers.Serializer[Any]):
    data = EngineSerializer(many=True)  # type: ignore[assignment]
