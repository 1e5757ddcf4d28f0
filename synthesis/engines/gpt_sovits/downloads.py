"""Fetches published files over HTTP: goes on where it stopped, compares digests, unpacks without surprises.

Standard library only. A digest is written `sha256:HEX` or `git:HEX` (the id git gives a file's content).
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPMessage
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from synthesis.engines.gpt_sovits.errors import (
    DownloadError,
    HostileCheckpointError,
    ModelFileError,
    NetworkUnavailableError,
)

OnProgress = Callable[[int, int | None], None]  # bytes there, bytes in all if the host says

_ATTEMPTS = 5
_TIMEOUT_SECONDS = 30.0  # of one read
_BLOCK_BYTES = 1 << 20
_MAX_REDIRECTS = 5
_MAX_UNPACKED_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What a host says of a file before sending it."""

    size_bytes: int | None
    digest: str  # "" when it names none
    tag: str  # another one means another content


def download(
    url: str,
    target: Path,
    *,
    digest: str = "",
    on_progress: OnProgress = lambda done, total: None,
    pause_seconds: float = 1.0,
) -> None:
    """Fetch `url` into `target`. What is there already is kept; what a broken run left (`*.part`) is continued.

    `digest` is compared with the content; without it, the one that the host announces. Raises DownloadError, and
    NetworkUnavailableError when the host cannot be reached at all.
    """
    if target.exists():
        return
    remote = _ask(url)
    wanted = digest or remote.digest
    # A file that changes at its place between two runs gets another part: its halves must not be joined.
    content = hashlib.sha256(f"{wanted} {remote.tag}".encode()).hexdigest()[:12]
    part = target.with_name(f"{target.name}.{content}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_space(target.parent, remote.size_bytes, part)
    for attempt in range(_ATTEMPTS):
        time.sleep(pause_seconds * (2**attempt - 1))
        try:
            if _continue(url, part, remote.size_bytes, on_progress):
                break
        except HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise DownloadError(f"{url} answers {error.code} {error.reason}.", url=url) from error
        except (OSError, HTTPException):
            pass  # a broken connection; the part is kept
    else:
        raise DownloadError(f"{url} broke off {_ATTEMPTS} times. Run this again: it goes on where it stopped.", url=url)
    if wanted and content_digest(part, wanted.partition(":")[0]) != wanted:
        part.unlink()
        raise DownloadError(f"What came from {url} is not what was announced ({wanted}). It was deleted.", url=url)
    part.replace(target)


def unpack_zip(archive: Path, folder: Path, *, suffixes: Sequence[str]) -> list[str]:
    """Write the archive's files of these suffixes into `folder`, flat, and return their names.

    Raises ModelFileError, and HostileCheckpointError for entries that would leave the folder, share a name, or are
    too large.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            for entry in entries:
                path = PurePosixPath(entry.filename.replace("\\", "/"))
                if path.is_absolute() or ".." in path.parts or ":" in entry.filename:
                    raise HostileCheckpointError(f"{archive.name} holds the path {entry.filename[:80]!r}.")
            wanted = {
                entry.filename.rsplit("/", 1)[-1]: entry
                for entry in entries
                if entry.filename.endswith(tuple(suffixes))
            }
            if len(wanted) != sum(entry.filename.endswith(tuple(suffixes)) for entry in entries):
                raise HostileCheckpointError(f"{archive.name} holds two files of one name.")
            if sum(entry.file_size for entry in wanted.values()) > _MAX_UNPACKED_BYTES:
                raise HostileCheckpointError(f"{archive.name} unpacks to more than {_MAX_UNPACKED_BYTES >> 30} GB.")
            if not wanted:
                raise ModelFileError(f"{archive.name} holds none of the files it was fetched for.")
            folder.mkdir(parents=True, exist_ok=True)
            for name, entry in wanted.items():
                fresh = folder / f".{name}.new"
                try:
                    with opened.open(entry) as source, fresh.open("wb") as sink:  # zipfile stops at the declared size
                        shutil.copyfileobj(source, sink, _BLOCK_BYTES)
                    fresh.replace(folder / name)
                finally:
                    fresh.unlink(missing_ok=True)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise ModelFileError(f"{archive.name} is truncated or damaged.") from error
    return sorted(wanted)


def content_digest(path: Path, algorithm: str) -> str:
    """`sha256:...` of the bytes, or `git:...`, the id of a git blob with them."""
    if algorithm == "git":
        hashing = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        hashing = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hashing.update(block)
    return f"{algorithm}:{hashing.hexdigest()}"


def _ask(url: str) -> RemoteFile:
    """Size and digest by HEAD. Hugging Face names them in its redirect to a content network, which would not."""
    for _ in range(_MAX_REDIRECTS):
        request = Request(url, method="HEAD", headers={"Accept-Encoding": "identity"})  # noqa: S310
        try:
            with _opener(follow=False).open(request, timeout=_TIMEOUT_SECONDS) as answer:
                return _described(answer.headers)
        except HTTPError as error:
            with error:
                if error.code in (403, 405, 501):  # a host that answers GET only
                    return RemoteFile(None, "", "")
                location = error.headers.get("Location")
                if error.code not in (301, 302, 303, 307, 308) or not location:
                    raise DownloadError(f"{url} answers {error.code} {error.reason}.", url=url) from error
                if "X-Linked-Etag" in error.headers:
                    return _described(error.headers)
                url = _redirected(url, location)
        except (OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise NetworkUnavailableError(f"{urlsplit(url).netloc} cannot be reached ({reason}).", url=url) from error
    raise DownloadError(f"{url} redirects without end.", url=url)


def _described(headers: Message[str, str]) -> RemoteFile:
    size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
    tag = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
    digest = ""
    if "X-Linked-Etag" in headers or "X-Repo-Commit" in headers:  # Hugging Face, whose tags are digests
        if re.fullmatch(r"[0-9a-f]{64}", tag):  # a large file
            digest = f"sha256:{tag}"
        elif re.fullmatch(r"[0-9a-f]{40}", tag):  # a small one, kept in git
            digest = f"git:{tag}"
    return RemoteFile(int(size) if size.isdigit() else None, digest, tag)


def _continue(url: str, part: Path, size: int | None, on_progress: OnProgress) -> bool:
    """Append to `part` what is missing; whether it is complete. Raises HTTPError, OSError, HTTPException."""
    done = part.stat().st_size if part.exists() else 0
    if size is not None and done >= size:
        if done == size:
            part.touch()  # for the empty file
            return True
        part.unlink()
        done = 0
    request = Request(url, headers={"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {}))  # noqa: S310
    try:
        answer = _opener(follow=True).open(request, timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        if error.code == 416 and done:  # nothing lies behind what we have: begin again
            part.unlink()
            return False
        raise
    with answer:
        continues = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        done = done if continues else 0
        length = answer.headers.get("Content-Length", "")
        total = size if size is not None else (done + int(length) if length.isdigit() else None)
        with part.open("ab" if continues else "wb") as sink:
            on_progress(done, total)
            while block := answer.read(_BLOCK_BYTES):
                sink.write(block)
                done += len(block)
                on_progress(done, total)
    return total is None or done == total


def _check_space(folder: Path, size: int | None, part: Path) -> None:
    missing = (size or 0) - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise DownloadError(f"{folder} has {free >> 20} MB left, and {missing >> 20} MB more are needed.")


def _redirected(url: str, location: str) -> str:
    target = urljoin(url, location)
    allowed = ("https",) if urlsplit(url).scheme == "https" else ("http", "https")
    if urlsplit(target).scheme not in allowed:
        raise DownloadError(f"{url} redirects away from {allowed[0]}.", url=url)
    return target


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, but not from https to something less."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        return super().redirect_request(req, fp, code, msg, headers, _redirected(req.full_url, newurl))


def _opener(*, follow: bool) -> OpenerDirector:
    """HTTP and HTTPS only (urllib's own also opens files and FTP); proxies as the environment names them."""
    opener = OpenerDirector()
    handlers: list[Any] = [
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
    ]
    for handler in [*handlers, _Redirects()] if follow else handlers:
        opener.add_handler(handler)
    return opener
