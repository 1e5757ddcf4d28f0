"""The wire form of voices."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from voices import selectors
from voices.errors import ConsentRequiredError
from voices.models import ConsentKind, Voice, VoiceStatus

_STATUSES: Final = [status.value for status in VoiceStatus if status != VoiceStatus.ERASED]

MAX_LABELS: Final = 32
MAX_LABEL_CHARS: Final = 64
MAX_LABEL_VALUE_CHARS: Final = 256

# Shape only, BCP 47 in any case: what is spoken is the engine's business, and engines learn languages.
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")
_MODEL: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


class _StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields it does not know: a misspelt one would be quietly ignored."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = sorted(set(data) - set(self.fields)) if isinstance(data, dict) else []
        if unknown:
            shown = [name.encode("ascii", "backslashreplace").decode()[:64] for name in map(str, unknown)]
            raise serializers.ValidationError(
                {name: [ErrorDetail("There is no such field.", code="unknown_field")] for name in shown}
            )
        return super().to_internal_value(data)


class _LineField(serializers.CharField):
    """Text of one line."""

    default_error_messages: ClassVar = {"control_character": "Control characters and line breaks are not allowed."}

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if _CONTROL.search(text):
            self.fail("control_character")
        return text


class _LanguageField(serializers.CharField):
    """A language code, lower-cased; blank when unknown."""

    default_error_messages: ClassVar = {"malformed": "A language is a code like `en`, `zh` or `en-gb`."}

    def to_internal_value(self, data: Any) -> str:
        code = super().to_internal_value(data).lower()
        if code and not _LANGUAGE.fullmatch(code):
            self.fail("malformed")
        return code


class _ModelField(serializers.CharField):
    """The name of a model, as `GET /v1/engines` lists them; blank for the default."""

    default_error_messages: ClassVar = {"malformed": "A model's name has lower-case letters, digits, `-` and `_`."}

    def to_internal_value(self, data: Any) -> str:
        name = super().to_internal_value(data)
        if name and not _MODEL.fullmatch(name):
            self.fail("malformed")
        return name


@extend_schema_field({"type": "object", "additionalProperties": {"type": "string"}})
class _LabelsField(serializers.Field[Any, Any, Any, Any]):
    """Text to text, the tenant's own."""

    default_error_messages: ClassVar = {
        "not_an_object": "Labels are an object of texts.",
        "too_many": f"At most {MAX_LABELS} labels.",
        "bad_label": f"A label has 1-{MAX_LABEL_CHARS} characters, its value at most {MAX_LABEL_VALUE_CHARS}; "
        "control characters are not allowed.",
    }

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
            self.fail("not_an_object")
        if len(data) > MAX_LABELS:
            self.fail("too_many")
        for label, value in data.items():
            if not 1 <= len(label) <= MAX_LABEL_CHARS or len(value) > MAX_LABEL_VALUE_CHARS:
                self.fail("bad_label")
            if any(_CONTROL.search(text) or _SURROGATE.search(text) for text in (label, value)):
                self.fail("bad_label")
        return data

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field(OpenApiTypes.STR)
class _JsonLabelsField(_LabelsField):
    """Labels in a form: their JSON."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        try:
            parsed = json.loads(data) if isinstance(data, str) else None
        except (ValueError, RecursionError):
            self.fail("not_an_object")
        return super().to_internal_value(parsed)


@extend_schema_field(OpenApiTypes.BOOL)
class _ConsentField(serializers.CharField):
    """`true` and nothing else is consent."""


class VoiceForm(_StrictSerializer):
    """`POST /v1/voices`, multipart/form-data."""

    name = _LineField(max_length=200)
    audio = serializers.FileField(
        allow_empty_file=True,  # the inspection says so itself: audio_empty
        help_text="WAV, FLAC, Ogg (Opus, Vorbis) or MP3, at most 25 MB. The best 3 to 10 seconds of speech are used.",
    )
    consent = _ConsentField(
        required=False, allow_blank=True, help_text="Must be `true`: the speaker agrees to be cloned."
    )
    consent_statement = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=2000, help_text="Instead of our own words of consent."
    )
    consent_speaker = _LineField(
        required=False, allow_blank=True, default="", max_length=200, help_text="Who speaks in the clip."
    )
    language = _LanguageField(
        required=False, allow_blank=True, default="", max_length=16, help_text="Spoken in the clip, like `en`."
    )
    transcript = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=2000, help_text="What is said in the clip."
    )
    labels = _JsonLabelsField(required=False, default=dict, help_text='JSON, like `{"style": "news"}`.')
    description = serializers.CharField(required=False, allow_blank=True, default="", max_length=2000)
    model = _ModelField(
        required=False,
        allow_blank=True,
        default="",
        max_length=64,
        help_text="Speak with this model; else the default.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.pop("consent", "").lower() != "true":
            raise ConsentRequiredError
        return attrs


class VoiceChangesForm(_StrictSerializer):
    """`PATCH /v1/voices/{id}`."""

    name = _LineField(required=False, max_length=200)
    description = serializers.CharField(required=False, allow_blank=True, max_length=2000)
    language = _LanguageField(required=False, allow_blank=True, max_length=16)
    labels = _LabelsField(required=False, help_text="Replaces all labels.")
    model = _ModelField(
        required=False, allow_blank=True, max_length=64, help_text="Another one prepares the voice anew."
    )


class VoiceListQuery(serializers.Serializer[Any]):
    """Filters of `GET /v1/voices`."""

    status = serializers.ChoiceField(required=False, choices=_STATUSES)
    search = serializers.CharField(required=False, max_length=200, help_text="Part of the name, in any case.")


class AdviceSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()


class QualityReportSerializer(serializers.Serializer[Any]):
    """Levels in dBFS; shares 0 to 1. From `start_seconds` on about the seconds that are used, before about the file."""

    container = serializers.CharField()
    codec = serializers.CharField()
    channels = serializers.IntegerField()
    sample_rate_hz = serializers.IntegerField()
    original_seconds = serializers.FloatField()
    is_examined_fully = serializers.BooleanField()
    silence_share = serializers.FloatField()
    start_seconds = serializers.FloatField()
    end_seconds = serializers.FloatField()
    speech_seconds = serializers.FloatField()
    voiced_share = serializers.FloatField()
    clipping_share = serializers.FloatField()
    peak_dbfs = serializers.FloatField()
    active_level_dbfs = serializers.FloatField()
    loudness_lufs = serializers.FloatField()
    noise_floor_dbfs = serializers.FloatField()
    snr_db = serializers.FloatField()
    bandwidth_hz = serializers.IntegerField()
    score = serializers.IntegerField(min_value=0, max_value=100)
    advice = AdviceSerializer(many=True)


class ClipSerializer(serializers.Serializer[Any]):
    """The seconds of the upload that the voice is learned from."""

    seconds = serializers.FloatField(source="reference_seconds")
    sample_rate_hz = serializers.IntegerField()
    filename = serializers.CharField(source="original_filename")
    transcript = serializers.CharField()
    quality = QualityReportSerializer()


class ConsentSerializer(serializers.Serializer[Any]):
    """The row that counts: the last given or withdrawn."""

    status = serializers.ChoiceField(source="kind", choices=ConsentKind.values)
    statement = serializers.CharField()
    statement_version = serializers.CharField(help_text="Of our own words; blank for yours.")
    statement_sha256 = serializers.CharField()
    speaker = serializers.CharField()
    recorded_at = serializers.DateTimeField()


class FailureSerializer(serializers.Serializer[Any]):
    code = serializers.CharField(source="failure_code")
    message = serializers.CharField(source="failure_message")


class VoiceSerializer(serializers.Serializer[Any]):
    """A voice. Reading it needs an open tenant scope."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField()
    language = serializers.CharField(help_text="Blank when unknown.")
    labels = serializers.DictField(child=serializers.CharField())
    model = serializers.CharField(help_text="Blank for the default.")
    status = serializers.ChoiceField(choices=_STATUSES)
    failure = serializers.SerializerMethodField()
    consent = serializers.SerializerMethodField()
    clip = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()

    @extend_schema_field(FailureSerializer(allow_null=True))
    def get_failure(self, voice: Voice) -> Any:
        return FailureSerializer(voice).data if voice.status == VoiceStatus.FAILED else None

    @extend_schema_field(ConsentSerializer(allow_null=True))
    def get_consent(self, voice: Voice) -> Any:
        consent = selectors.last_consent(voice)
        return None if consent is None else ConsentSerializer(consent).data

    @extend_schema_field(ClipSerializer(allow_null=True))
    def get_clip(self, voice: Voice) -> Any:
        clip = selectors.get_reference_clip(voice)
        return None if clip is None else ClipSerializer(clip).data
