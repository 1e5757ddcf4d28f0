"""A small client of the native API, for `serve` and `demo`: standard library only, like a newcomer's first script."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.2


class ClientError(Exception):
    """The API refused, or what we waited for did not come."""


@dataclass(frozen=True, slots=True)
class Speech:
    job_id: str
    audio: bytes
    billed_chars: int
    first_byte_seconds: float
    wall_seconds: float


class ApiClient:
    """Raises ClientError with the API's own words when a call is refused."""

    def __init__(self, base_url: str, api_key: str = "") -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # Without the environment's proxies: they do not know our loopback.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> bytes:
        with self._call("GET", path) as response:
            return response.read()

    def get_json(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.get(path))
        return answer

    def upload_voice(self, *, name: str, clip: Path, language: str | None = None) -> dict[str, Any]:
        """Upload `clip` as a new voice, with consent. Returns the voice, whose status is `preparing`."""
        fields = {"name": name, "consent": "true", **({"language": language} if language else {})}
        content_type, body = _multipart(fields, file_field="audio", file=clip)
        with self._call("POST", "/v1/voices", body=body, headers={"Content-Type": content_type}) as response:
            voice: dict[str, Any] = json.loads(response.read())
        return voice

    def wait_for_voice(self, voice_id: str, *, seconds: float) -> dict[str, Any]:
        """Wait until the voice is ready. Raises ClientError when it failed or takes longer."""
        return self._wait(f"/v1/voices/{voice_id}", done="ready", failed=("failed",), seconds=seconds)

    def wait_for_job(self, job_id: str, *, seconds: float) -> dict[str, Any]:
        return self._wait(f"/v1/jobs/{job_id}", done="succeeded", failed=("failed", "cancelled"), seconds=seconds)

    def speak(self, *, voice_id: str, text: str, language: str) -> Speech:
        """Speak `text`, taking the audio as it is made."""
        body = json.dumps({"voice_id": voice_id, "text": text, "language": language, "format": "wav"}).encode()
        started = time.monotonic()
        with self._call("POST", "/v1/speech", body=body, headers={"Content-Type": "application/json"}) as response:
            first = response.read(1)
            first_byte_seconds = time.monotonic() - started
            return Speech(
                job_id=response.headers["X-Job-Id"],
                audio=first + response.read(),
                billed_chars=int(response.headers["X-Characters"]),
                first_byte_seconds=first_byte_seconds,
                wall_seconds=time.monotonic() - started,
            )

    def wait_until_serving(self, *, seconds: float) -> None:
        """Wait until the service and a worker answer. Raises ClientError."""
        deadline = time.monotonic() + seconds
        last = "no answer"
        while time.monotonic() < deadline:
            try:
                last = self.get_json("/readyz")["status"]
            except (ClientError, OSError) as error:
                last = str(error)
            else:
                if last == "ok":
                    return
            time.sleep(_POLL_SECONDS)
        raise ClientError(f"The service did not become ready in {seconds:.0f} s: {last}.")

    def _wait(self, path: str, *, done: str, failed: tuple[str, ...], seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while True:
            answer = self.get_json(path)
            if answer["status"] == done:
                return answer
            if answer["status"] in failed:
                raise ClientError(f"{path} is {answer['status']}: {json.dumps(answer, ensure_ascii=False)}")
            if time.monotonic() > deadline:
                raise ClientError(f"{path} is still {answer['status']} after {seconds:.0f} s.")
            time.sleep(_POLL_SECONDS)

    def _call(
        self, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        request = urllib.request.Request(  # noqa: S310  (an http URL of our own making)
            self._base_url + path, data=body, method=method, headers={**self._headers, **(headers or {})}
        )
        try:
            response: http.client.HTTPResponse = self._opener.open(request, timeout=_TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            words = error.read().decode(errors="replace")
            raise ClientError(f"{method} {path} was answered with {error.code}: {words}") from error
        return response


def _multipart(fields: dict[str, str], *, file_field: str, file: Path) -> tuple[str, bytes]:
    """Content type and body of a form with one file (RFC 7578)."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    file_name = urllib.parse.quote(file.name)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{file_field}"; filename="{file_name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    return f"multipart/form-data; boundary={boundary}", b"".join([*parts, head, file.read_bytes(), tail])
