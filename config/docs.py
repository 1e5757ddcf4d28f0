"""The files of the API's documentation page, from a pip package: the page works without the internet."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Final

from django.contrib.staticfiles import finders
from django.core.exceptions import SuspiciousFileOperation
from django.http import Http404, HttpRequest, HttpResponse

PACKAGE: Final = "drf_spectacular_sidecar"


def serve_docs_file(request: HttpRequest, path: str) -> HttpResponse:
    """A file of the package, whole: the web process has no link in its chain that serves static files."""
    try:
        found = finders.find(f"{PACKAGE}/{path}")
    except SuspiciousFileOperation as error:  # a path that leaves the package
        raise Http404 from error
    if not isinstance(found, str) or not Path(found).is_file():
        raise Http404
    content_type = mimetypes.guess_type(found)[0] or "application/octet-stream"
    return HttpResponse(
        Path(found).read_bytes(), content_type=content_type, headers={"Cache-Control": "public, max-age=86400"}
    )
