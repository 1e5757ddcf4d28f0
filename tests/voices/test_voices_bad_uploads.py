"""Uploads that are refused: a stable code for each, and afterwards no row and no file that was not there before."""

from __future__ import annotations

import io
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.test import Client, RequestFactory

from tenants.models import IdempotencyRecord
from tenants.scoping import tenant_scope
from tests.voices.conftest import Api, code_of, stored_files
from tests.voices.uploads import encode, encode_as, flac_of_constants, forge_flac_length, silence, speech, wav_of
from voices.api import uploads
from voices.errors import AudioTooLargeError
from voices.intake import MAX_UPLOAD_BYTES
from voices.models import Consent, ReferenceClip, Voice, VoiceKey

TEN_MINUTES_CLAIMED = 10 * 60 * 24_000


def nothing_kept(api: Api) -> bool:
    with tenant_scope(api.tenant.id):
        rows = [model.objects.count() for model in (Voice, VoiceKey, ReferenceClip, Consent, IdempotencyRecord)]
    return rows == [0, 0, 0, 0, 0] and stored_files() == []


def not_a_number() -> bytes:
    samples = speech(4)
    samples[1000] = np.nan
    return encode(samples, subtype="FLOAT")


BAD_AUDIO: dict[str, tuple[Callable[[], bytes], str, tuple[int, str]]] = {
    "text": (lambda: b"I am a text file, whatever my name says.\n" * 100, "a.wav", (415, "unsupported_audio_format")),
    "empty": (lambda: b"", "a.wav", (400, "audio_empty")),
    "forged_length": (
        lambda: forge_flac_length(encode_as("flac", speech(0.4))[:4096], 2**36 - 1),
        "a.flac",
        (422, "audio_unreadable"),
    ),
    "day_of_silence": (lambda: flac_of_constants(24 * 3600), "a.flac", (422, "audio_silent")),
    "not_a_number": (not_a_number, "a.wav", (422, "audio_not_finite")),
    "half_a_second": (lambda: encode(speech(0.5)), "a.wav", (422, "audio_too_short")),
    "silence": (lambda: encode(silence(5)), "a.wav", (422, "audio_silent")),
    "another_format": (lambda: encode_as("flac", speech(4)), "a.mp3", (415, "audio_format_mismatch")),
    "archive_behind": (
        lambda: wav_of(speech(4)) + b"PK\x03\x04" + bytes(100_000),
        "a.wav",
        (422, "audio_trailing_data"),
    ),
    "too_large": (lambda: bytes(MAX_UPLOAD_BYTES + 1), "a.wav", (413, "audio_too_large")),
}


@pytest.mark.parametrize("name", BAD_AUDIO)
def test_bad_audio_is_refused_and_nothing_is_kept(api: Api, recording: bytes, name: str) -> None:
    make, filename, expected = BAD_AUDIO[name]
    assert code_of(api.upload(make(), filename=filename, idempotency_key="k")) == expected
    assert nothing_kept(api)
    assert api.upload(recording, filename=filename.split(".")[0] + ".wav", idempotency_key="k").status_code == 201


BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"name": None}, "/name", "required"),
    ({"name": "  "}, "/name", "blank"),
    ({"name": "x" * 201}, "/name", "max_length"),
    ({"name": "two\nlines"}, "/name", "control_character"),
    ({"name": "\x00"}, "/name", "control_character"),
    ({"language": "english please"}, "/language", "malformed"),
    ({"language": "auto"}, "/language", "malformed"),
    ({"language": "en-aaaaaaaa-bbbbbbbb"}, "/language", "max_length"),
    ({"transcript": "x" * 2001}, "/transcript", "max_length"),
    ({"transcript": "a\x00b"}, "/transcript", "null_characters_not_allowed"),
    ({"description": "x" * 2001}, "/description", "max_length"),
    ({"consent_statement": "x" * 2001}, "/consent_statement", "max_length"),
    ({"consent_speaker": "x" * 201}, "/consent_speaker", "max_length"),
    ({"labels": "style=news"}, "/labels", "not_an_object"),
    ({"labels": "[1]"}, "/labels", "not_an_object"),
    ({"labels": '{"a": 1}'}, "/labels", "not_an_object"),
    ({"labels": "[" * 100_000}, "/labels", "not_an_object"),
    ({"labels": '{"a": "\\ud800"}'}, "/labels", "bad_label"),
    ({"labels": '{"a\\u0000": "b"}'}, "/labels", "bad_label"),
    ({"lang": "en"}, "/lang", "unknown_field"),
    ({"audio": "a text, not a file"}, "/audio", "invalid"),
]


@pytest.mark.parametrize(("fields", "pointer", "code"), BAD_FIELDS, ids=[f"{p}-{c}" for _, p, c in BAD_FIELDS])
def test_a_bad_field_is_named(api: Api, recording: bytes, fields: dict[str, Any], pointer: str, code: str) -> None:
    response = api.upload(**{"audio": recording, **fields})
    assert code_of(response) == (422, "invalid_request")
    assert [(error["pointer"], error["code"]) for error in response.json()["errors"]] == [(pointer, code)]
    assert nothing_kept(api)


@pytest.mark.parametrize("given", [None, "", "false", "0", "1", "yes", "maybe", "truely"])
def test_only_true_is_consent(api: Api, recording: bytes, given: str | None) -> None:
    assert code_of(api.upload(recording, consent=given)) == (422, "consent_required")
    assert nothing_kept(api)


def test_a_form_without_a_file_is_refused(api: Api) -> None:
    response = api.upload(None)
    assert code_of(response) == (422, "invalid_request")
    assert response.json()["errors"][0]["pointer"] == "/audio"


def test_a_second_file_is_refused(api: Api, recording: bytes) -> None:
    file = io.BytesIO(recording)
    file.name = "extra.wav"
    assert code_of(api.upload(recording, extra=file)) == (422, "invalid_request")
    nameless = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="audio"; filename="."\r\n\r\n\r\n' for _ in range(200)
    )
    response = Client().post(
        "/v1/voices", nameless + b"--x--\r\n", content_type="multipart/form-data; boundary=x", headers=api.headers
    )
    assert code_of(response) == (400, "malformed_request")
    assert nothing_kept(api)


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/json", b"{}", (415, "unsupported_media_type")),
        ("application/x-www-form-urlencoded", b"name=x", (415, "unsupported_media_type")),
        ("audio/wav", b"RIFF", (415, "unsupported_media_type")),
        ("multipart/form-data", b"x", (400, "malformed_request")),
        ("multipart/form-data; boundary=x", b"no boundary in here", (422, "invalid_request")),
    ],
)
def test_another_body_than_a_form_is_refused(
    api: Api, content_type: str, body: bytes, expected: tuple[int, str]
) -> None:
    response = Client().post("/v1/voices", body, content_type=content_type, headers=api.headers)
    assert code_of(response) == expected
    assert nothing_kept(api)


@pytest.mark.parametrize("key", ["", "x" * 256, "schlüssel"])
def test_a_malformed_idempotency_key_is_refused(api: Api, recording: bytes, key: str) -> None:
    file = io.BytesIO(recording)
    file.name = "a.wav"
    response = Client().post(
        "/v1/voices", {"name": "x", "consent": "true", "audio": file}, headers={**api.headers, "Idempotency-Key": key}
    )
    assert code_of(response) == (422, "invalid_request")
    assert nothing_kept(api)


# --- size ---------------------------------------------------------------------------------------------------------


class Flood:
    """A body without end; remembers how much of it was read."""

    def __init__(self, start: bytes) -> None:
        self.start = start
        self.read_bytes = 0

    def readline(self, size: int = -1) -> bytes:
        return self.read(size)

    def read(self, size: int = -1) -> bytes:
        size = 65_536 if size < 0 else size
        chunk = (self.start + bytes(size))[:size]
        self.start = b""
        self.read_bytes += len(chunk)
        return chunk


FILE_HEAD = b'--x\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n%s\r\n'


def flood(api: Api, body: Flood, *, content_length: int | None) -> Any:
    environ: dict[str, Any] = {
        "wsgi.input": body,
        "CONTENT_TYPE": "multipart/form-data; boundary=x",
        "HTTP_AUTHORIZATION": f"Bearer {api.secret}",
    }
    if content_length is None:
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    else:
        environ["CONTENT_LENGTH"] = str(content_length)
    return Client().generic("POST", "/v1/voices", **environ)


def test_a_declared_size_over_the_limit_is_refused_unread(api: Api) -> None:
    body = Flood(FILE_HEAD % b"")
    assert code_of(flood(api, body, content_length=10**12)) == (413, "audio_too_large")
    assert body.read_bytes == 0


def test_an_undeclared_size_is_refused_unread(api: Api) -> None:
    body = Flood(FILE_HEAD % b"")
    assert code_of(flood(api, body, content_length=None)) == (411, "length_required")
    assert body.read_bytes == 0


@pytest.fixture
def upload_folder(tmp_path: Path, settings: Any) -> Iterator[Path]:
    """Where temporary files go; empty afterwards."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    settings.FILE_UPLOAD_TEMP_DIR = str(folder)
    yield folder
    assert list(folder.iterdir()) == []


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def receive(body: bytes) -> WSGIRequest:
    request: WSGIRequest = RequestFactory().post("/", body, content_type="multipart/form-data; boundary=x")
    with uploads.receiving_clip(request):
        assert request.FILES is not None
    return request


@pytest.mark.parametrize("encoding", [b"", b"Content-Transfer-Encoding: base64\r\n"])
def test_a_file_over_the_limit_stops_the_reading(
    upload_folder: Path, monkeypatch: pytest.MonkeyPatch, encoding: bytes
) -> None:
    monkeypatch.setattr(uploads, "MAX_UPLOAD_BYTES", 200_000)
    head, tail = FILE_HEAD % encoding, b"\r\n--x--\r\n"
    before = open_files()
    unit = b"AAAA" if encoding else b"\x00\x00\x00"  # three bytes either way
    request = receive(head + unit * 66_666 + tail)
    (received,) = request.FILES.getlist("audio")
    assert received.size == 199_998
    assert received.closed
    with pytest.raises(AudioTooLargeError):
        receive(head + unit * 66_667 + tail)
    assert open_files() == before


def test_no_temporary_file_is_left_whatever_happens(
    api: Api, recording: bytes, upload_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    real = tempfile.TemporaryFile

    def remember(**options: Any) -> Any:
        assert options == {"dir": str(upload_folder)}
        made.append(real(**options))
        assert list(upload_folder.iterdir()) == []  # it has no name from the beginning
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", remember)
    for response in (
        api.upload(recording),
        api.upload(b"no audio"),
        api.upload(recording, consent="false"),
        api.upload(bytes(MAX_UPLOAD_BYTES + 1)),
    ):
        assert response.status_code in (201, 413, 415, 422)
    assert len(made) == 4
    assert all(file.closed for file in made)


# --- what must work -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: encode(speech(4, 192_000), 192_000, channels=2),
        lambda: encode(speech(4, 8_000), 8_000, subtype="PCM_U8"),
        lambda: encode(np.concatenate([silence(3), speech(4)])),
        lambda: encode(speech(30)),
    ],
    ids=["stereo_192k", "mono_8_bit", "leading_silence", "long"],
)
def test_unusual_recordings_are_accepted(api: Api, make: Callable[[], bytes]) -> None:
    response = api.upload(make())
    assert response.status_code == 201, response.content
    assert 3 <= response.json()["clip"]["seconds"] <= 10


def test_a_file_name_is_shown_and_is_never_a_path(api: Api, recording: bytes) -> None:
    body = api.upload(recording, filename="../../etc/Stimme für 播音.wav").json()
    assert body["clip"]["filename"] == "Stimme für 播音.wav"
    (path,) = stored_files()
    assert path.name.removesuffix(".sealed").count("-") == 4  # a server-made id


def test_a_wav_header_that_lies_is_measured_not_believed(api: Api) -> None:
    body = wav_of(speech(4))
    lying = body[:24] + struct.pack("<I", 8_000) + body[28:]  # three times slower
    response = api.upload(lying)
    assert response.status_code == 201
    assert response.json()["clip"]["sample_rate_hz"] == 8_000
