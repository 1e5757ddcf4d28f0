"""From nothing to a cloned voice: the real processes, driven over HTTP, and the bill."""

from __future__ import annotations

import csv
import io
import os
import secrets
import time
import urllib.parse
import wave
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from config import first_run
from config.client import ApiClient, ClientError
from config.embedded.environment import current_servers
from config.embedded.processes import free_port, log_tail
from config.reference import REFERENCE_CLIP
from config.supervisor import Supervisor, programs

_READY_SECONDS: Final = 90.0
_VOICE_SECONDS: Final = 60.0
_JOB_SECONDS: Final = 30.0
_HOPELESS_CRASHES: Final = 3
_REPORT_COLUMNS: Final = ("seq", "kind", "used_at", "language", "meter", "units", "unit_price", "amount", "currency")
_SENTENCES: Final = {
    "en": "This voice was learned from a few seconds of speech, and now it reads to you.",
    "zh": "这个声音只听了几秒钟，现在就能为你朗读。",
    "ja": "この声は、数秒の録音から作られました。",
    "es": "Esta voz se aprendió con unos segundos de grabación y ahora te habla.",
    "de": "Diese Stimme wurde aus wenigen Sekunden Aufnahme gelernt.",
}


class Command(BaseCommand):
    help = "Clones a voice and speaks with it (REFERENCE=clip.wav TEXT='...' LANGUAGE=en for your own), then ends."

    def handle(self, *args: Any, **options: Any) -> None:
        reference = Path(os.environ.get("DEMO_REFERENCE") or REFERENCE_CLIP)
        if not reference.is_file():
            raise CommandError(f"There is no file {reference}.")
        sentences = _choose_sentences()
        self._say("Migrating the database")
        call_command("migrate", verbosity=0)
        slug = f"demo-{secrets.token_hex(4)}"
        self._say(f"Making tenant {slug} and its API key")
        first_run.create_tenant(slug)
        api_key = first_run.create_api_key(slug)
        connections.close_all()

        port = free_port()
        log = settings.VAR_DIR / "log" / "demo.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        client = ApiClient(f"http://127.0.0.1:{port}", api_key)
        with log.open("w") as output, ThreadPoolExecutor(max_workers=1) as executor:
            supervisor = Supervisor(
                programs(port=port, admin_port=free_port(), worker_threads=settings.CELERY_WORKER_CONCURRENCY),
                output=output,
                servers=current_servers(),
            )
            self._say("Starting web, admin, dispatcher and worker")
            performance = executor.submit(self._perform, client, reference, sentences)
            supervisor.run(until=lambda: performance.done() or supervisor.crashes >= _HOPELESS_CRASHES)
            if supervisor.was_asked_to_stop:
                raise CommandError("Interrupted.")
            if not performance.done():
                raise CommandError(f"A process does not start; {log} ends with:\n{log_tail(log)}")
            try:
                performance.result()
            except (ClientError, OSError) as error:
                raise CommandError(f"{error}\n{log} ends with:\n{log_tail(log)}") from error
        if supervisor.crashes:
            raise CommandError(f"A process ended on its own; see {log}.")
        self._say("Stopped everything")

    def _perform(self, client: ApiClient, reference: Path, sentences: dict[str, str]) -> None:
        """What a customer would do, over HTTP. Raises ClientError."""
        client.wait_until_serving(seconds=_READY_SECONDS)
        self._say(f"Uploading {reference.name} as a voice")
        voice = client.upload_voice(name="Demo", clip=reference)
        client.wait_for_voice(voice["id"], seconds=_VOICE_SECONDS)
        folder = settings.VAR_DIR / "demo"
        folder.mkdir(parents=True, exist_ok=True)
        self.stdout.write("\n  file                     audio s  first byte s  wall s  characters billed")
        for language, text in sentences.items():
            speech = client.speak(voice_id=voice["id"], text=text, language=language)
            client.wait_for_job(speech.job_id, seconds=_JOB_SECONDS)
            # What came streamed could not say its length yet; the stored file of the same samples does.
            path = folder / f"{language}.wav"
            path.write_bytes(client.get(f"/v1/jobs/{speech.job_id}/audio"))
            shown = path.relative_to(settings.BASE_DIR)
            self.stdout.write(
                f"  {shown!s:<24} {_audio_seconds(path):>7.2f}  {speech.first_byte_seconds:>12.2f}"
                f"  {speech.wall_seconds:>6.2f}  {speech.billed_chars:>17}"
            )
            self.stdout.flush()
        report = folder / "usage.csv"
        self.stdout.write(f"\nThe tenant's usage report ({report.relative_to(settings.BASE_DIR)} has all columns):\n")
        today = time.strftime("%Y-%m-%d", time.gmtime())
        query = urllib.parse.urlencode({"format": "csv", "from": today, "to": today})
        report.write_bytes(client.get(f"/v1/usage/report?{query}"))
        self.stdout.write(_as_table(report.read_text(encoding="utf-8-sig"), columns=_REPORT_COLUMNS))

    def _say(self, step: str) -> None:
        self.stdout.write(f"- {step}")
        self.stdout.flush()


def _choose_sentences() -> dict[str, str]:
    """By language code: the user's own text, or our sentences."""
    text, language = os.environ.get("DEMO_TEXT", ""), os.environ.get("DEMO_LANGUAGE", "")
    if text:
        return {language or "auto": text}
    if language:
        if language not in _SENTENCES:
            raise CommandError(f"Without TEXT= the demo speaks {', '.join(_SENTENCES)}; for {language} give it a text.")
        return {language: _SENTENCES[language]}
    return dict(_SENTENCES)


def _audio_seconds(path: Path) -> float:
    with wave.open(str(path)) as file:
        return float(file.getnframes() / file.getframerate())


def _as_table(text: str, *, columns: Sequence[str]) -> str:
    """These columns of comma-separated values, aligned."""
    rows = [{column: column for column in columns}, *csv.DictReader(io.StringIO(text))]
    widths = {column: max(len(row[column]) for row in rows) for column in columns}
    lines = ("  ".join(row[column].ljust(widths[column]) for column in columns) for row in rows)
    return "\n".join(f"  {line.rstrip()}" for line in lines)
