"""The whole service on one machine: web, admin, dispatcher and worker, until Ctrl-C."""

from __future__ import annotations

import json
import socket
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from config import env
from config.client import ApiClient, ClientError
from config.embedded.environment import current_servers
from config.first_run import ADMIN_NAME, FirstRun, prepare_first_run
from config.reference import REFERENCE_CLIP
from config.supervisor import Supervisor, programs

_READY_SECONDS = 90.0
_VOICE_SECONDS = 60.0


class Command(BaseCommand):
    help = "Runs the API, the admin, the dispatcher and a worker until Ctrl-C."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, help="of the API (default: PORT, or 8000)")
        parser.add_argument(
            "--admin-port", type=int, help="of the admin (default: ADMIN_PORT, or the port after the API's)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        port = options["port"] or env.read_int("PORT", 8000)
        admin_port = options["admin_port"] or env.read_int("ADMIN_PORT", port + 1)
        require_free_port(port, variable="PORT")
        require_free_port(admin_port, variable="ADMIN_PORT")
        call_command("migrate", verbosity=0)
        kept_at = settings.VAR_DIR / "first-run.json"
        first_run = prepare_first_run(kept_at)
        connections.close_all()
        supervisor = Supervisor(
            programs(port=port, admin_port=admin_port, worker_threads=settings.CELERY_WORKER_CONCURRENCY),
            output=sys.stdout,
            servers=current_servers(),
        )
        client = ApiClient(f"http://127.0.0.1:{port}", first_run.api_key)
        with ThreadPoolExecutor(max_workers=1) as executor:
            ready = executor.submit(_learn_first_voice, client, first_run)
            greeted = False

            def greet() -> bool:
                """Once the first voice is there. Returns whether it never will be."""
                nonlocal greeted
                if ready.done() and not greeted:
                    greeted = True
                    if ready.exception() is not None:
                        return True
                    ready.result().save(kept_at)
                    self._print_welcome(ready.result(), port=port, admin_port=admin_port)
                return False

            supervisor.run(until=greet)
            self._explain_failure(ready, asked_to_stop=supervisor.was_asked_to_stop)

    def _print_welcome(self, first_run: FirstRun, *, port: int, admin_port: int) -> None:
        password = first_run.admin_password or "the one you have set"
        api = f"http://127.0.0.1:{port}"
        body = json.dumps({"voice_id": first_run.voice_id, "text": "Hello from Cantoria."})
        curl = (
            f"curl -s {api}/v1/speech -H 'Authorization: Bearer {first_run.api_key}'"
            f" -H 'Content-Type: application/json' -d '{body}' -o hello.wav"
        )
        self.stdout.write(
            f"\n  API    {api}/docs"
            f"\n  Admin  http://127.0.0.1:{admin_port}/admin/   user {ADMIN_NAME}, password {password}"
            f"\n  Key    {first_run.api_key}"
            f"\n\n  {curl}"
            "\n\n  Ctrl-C stops everything.\n"
        )
        self.stdout.flush()

    def _explain_failure(self, ready: Future[FirstRun], *, asked_to_stop: bool) -> None:
        if asked_to_stop:
            return
        error = ready.exception()
        if isinstance(error, ClientError):
            raise CommandError(str(error)) from error
        if error is not None:
            raise error


def _learn_first_voice(client: ApiClient, first_run: FirstRun) -> FirstRun:
    """Wait for the service, and give its first tenant the shipped voice once."""
    client.wait_until_serving(seconds=_READY_SECONDS)
    if first_run.voice_id and _is_ready(client, first_run.voice_id):
        return first_run
    voice = client.upload_voice(name="Cantoria's own", clip=REFERENCE_CLIP, language="en")
    client.wait_for_voice(voice["id"], seconds=_VOICE_SECONDS)
    return FirstRun(api_key=first_run.api_key, admin_password=first_run.admin_password, voice_id=voice["id"])


def _is_ready(client: ApiClient, voice_id: str) -> bool:
    try:
        return bool(client.get_json(f"/v1/voices/{voice_id}")["status"] == "ready")
    except ClientError:
        return False  # erased since


def require_free_port(port: int, *, variable: str) -> None:
    """Raises CommandError when somebody listens on the loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise CommandError(
                f"Port {port} cannot be used ({error.strerror}): choose another with {variable}=, "
                f"for example `make serve {variable}={port + 100}`."
            ) from error
