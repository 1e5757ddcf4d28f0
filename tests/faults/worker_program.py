"""A Celery worker like production's, but with a beep for an engine and with leases short enough for a test to wait for.

A text that holds the word `broken` makes the engine fail.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import django

django.setup()

from config.celery import app  # noqa: E402
from synthesis import services, worker  # noqa: E402
from synthesis.engines.base import AudioChunk, SynthesisOptions, VoicePrompt  # noqa: E402
from synthesis.engines.errors import EngineError  # noqa: E402
from synthesis.engines.fake import FakeEngine  # noqa: E402

LEASE_SECONDS = 3.0
SEGMENT_SECONDS = 0.1
THREADS = 4


class FragileEngine(FakeEngine):
    def synthesize(
        self, text: str, *, language: str, voice: VoicePrompt, options: SynthesisOptions
    ) -> Iterator[AudioChunk]:
        if "broken" in text:
            raise EngineError("This text breaks it.")
        return super().synthesize(text, language=language, voice=voice, options=options)


def main() -> None:
    services.LEASE = dt.timedelta(seconds=LEASE_SECONDS)  # type: ignore[misc]
    worker.HEARTBEAT_SECONDS = LEASE_SECONDS / 3  # type: ignore[misc]
    worker.use_engine(FragileEngine(segment_seconds=SEGMENT_SECONDS))
    app.worker_main(
        ["--quiet", "worker", "--pool", "threads", "--concurrency", str(THREADS), "--queues", "speech,batch"]
    )


if __name__ == "__main__":
    main()
