"""A file host on the loopback that behaves as Hugging Face and its content network do, or misbehaves as told."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class HostedFile:
    content: bytes
    linked: bool = False  # behind a redirect that names size and sha256, as large files on Hugging Face
    digest: str = ""  # another one than the content's
    cut_after: list[int] = field(default_factory=list)  # bytes sent before the connection breaks, per GET
    statuses: list[int] = field(default_factory=list)  # answers to GETs instead of the content
    ranges: bool = True
    redirect_to: str = ""


class FileHost:
    def __init__(self) -> None:
        self.files: dict[str, HostedFile] = {}
        self.requests: list[tuple[str, str, str]] = []  # method, path, Range
        self.url = ""

    def add(self, path: str, content: bytes, **behaviour: object) -> HostedFile:
        self.files[path] = HostedFile(content, **behaviour)  # type: ignore[arg-type]
        return self.files[path]

    @property
    def gets(self) -> list[tuple[str, str]]:
        """Path and Range of each request for content."""
        return [(path, span) for method, path, span in self.requests if method == "GET"]


@contextmanager
def serve_files() -> Iterator[FileHost]:
    host = FileHost()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self.answer(send=False)

        def do_GET(self) -> None:
            self.answer(send=True)

        def answer(self, *, send: bool) -> None:
            path = unquote(self.path).lstrip("/")
            host.requests.append((self.command, path, self.headers.get("Range", "")))
            file = host.files.get(path.removeprefix("cdn/"))
            if file is None:
                self.headed(404)
            elif file.redirect_to:
                self.headed(302, headers={"Location": file.redirect_to})
            elif file.linked and not path.startswith("cdn/"):
                digest = file.digest or hashlib.sha256(file.content).hexdigest()
                linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(file.content))}
                self.headed(302, headers={"Location": f"/cdn/{path}", **linked})
            elif send and file.statuses:
                self.headed(file.statuses.pop(0))
            else:
                self.deliver(file, send=send)

        def headed(self, status: int, length: int = 0, *, headers: Mapping[str, str] = {}) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()

        def deliver(self, file: HostedFile, *, send: bool) -> None:
            begin = int(self.headers.get("Range", "bytes=0-")[6:-1]) if file.ranges else 0
            if begin and begin >= len(file.content):
                self.headed(416)
                return
            body = file.content[begin:]
            tag = {} if file.linked else {"ETag": f'"{file.digest}"', "X-Repo-Commit": "0"} if file.digest else {}
            span = {"Content-Range": f"bytes {begin}-{len(file.content) - 1}/{len(file.content)}"} if begin else {}
            self.headed(206 if begin else 200, len(body), headers={**tag, **span})
            if send:
                if file.cut_after:
                    body = body[: file.cut_after.pop(0)]
                    self.close_connection = True
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    host.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield host
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
