"""A real ASGI server and a real worker, on threads of the test, over real sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from django.core.handlers.asgi import ASGIHandler
from django.db import connections

from config.settings import base
from synthesis import worker
from tests.synthesis.jobs import QUEUES

START_SECONDS = 10.0


@contextmanager
def serving(settings: object) -> Iterator[str]:
    """The web process's application on a free port; its address."""
    settings.MIDDLEWARE = base.WEB_MIDDLEWARE  # type: ignore[attr-defined]
    settings.ALLOWED_HOSTS = ["127.0.0.1"]  # type: ignore[attr-defined]
    server = uvicorn.Server(
        uvicorn.Config(ASGIHandler(), host="127.0.0.1", port=0, lifespan="off", log_level="critical")
    )
    thread = threading.Thread(target=server.run, name="web")
    thread.start()
    give_up_at = time.monotonic() + START_SECONDS
    while not server.started:
        assert time.monotonic() < give_up_at, "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)


@contextmanager
def working(*, threads: int = 1) -> Iterator[None]:
    """Workers that look for jobs all the time, as if every doorbell were heard."""
    stopped = threading.Event()

    def run() -> None:
        try:
            while not stopped.wait(0.02):
                worker.work(queues=list(QUEUES))
        finally:
            connections.close_all()

    workers = [threading.Thread(target=run, name=f"worker-{number}") for number in range(threads)]
    for thread in workers:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in workers:
            thread.join()
