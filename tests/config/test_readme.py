"""The README's commands, run against a real `serve`, as a newcomer would type them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from config.client import ApiClient
from config.database import URL_VARIABLES
from config.embedded.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
SHELL_BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
START_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Serving:
    port: int
    api_key: str
    curl: str
    admin_url: str


def newcomers_environment() -> dict[str, str]:
    """Ours without what the test settings have put into it."""
    ours = set(URL_VARIABLES.values()) | {
        *("DJANGO_SETTINGS_MODULE", "CANTORIA_PROCESS", "REDIS_URL", "STORAGE_URL", "SECRET_KEY", "KEY_PEPPER"),
        *("MASTER_KEY", "ENGINE", "LOG_LEVEL"),
    }
    return {name: value for name, value in os.environ.items() if name not in ours}


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    """`make serve`'s own process, with the servers embedded under var/ like anybody's."""
    port, admin_port = free_port(), free_port()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "serve", "--port", str(port), "--admin-port", str(admin_port)],
        cwd=ROOT,
        env=newcomers_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    watchdog = threading.Timer(START_SECONDS, process.terminate)
    watchdog.start()
    try:
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C stops everything" in line:
                break
        watchdog.cancel()
        output = "".join(lines)
        assert "Ctrl-C stops everything" in output, output
        # From here on nobody reads: a full pipe would stop the service.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield Serving(
            port=port,
            api_key=re.findall(r"Key +(ct_live_\w+)", output)[0],
            curl=re.findall(r"^ +(curl .*)$", output, flags=re.MULTILINE)[0],
            admin_url=re.findall(r"Admin +(\S+)", output)[0],
        )
    finally:
        watchdog.cancel()
        process.terminate()
        assert process.wait(timeout=90) == 0


def run_shell(script: str, *, folder: Path, **variables: str) -> str:
    result = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout


def test_the_printed_curl_line_returns_audio(serving: Serving, tmp_path: Path) -> None:
    run_shell(serving.curl, folder=tmp_path)
    audio = (tmp_path / "hello.wav").read_bytes()
    assert audio[:4] == b"RIFF"
    assert len(audio) > 20_000


def test_the_admin_answers_where_it_says(serving: Serving) -> None:
    assert b"Cantoria" in ApiClient(serving.admin_url).get("")


def test_the_readmes_api_calls_work_as_written(serving: Serving, tmp_path: Path) -> None:
    block = next(block for block in SHELL_BLOCKS if "export API=" in block)
    calls = re.findall(r"^curl .*?(?:[^\\]$)", block, flags=re.MULTILINE | re.DOTALL)
    upload, voices, speech, report = calls
    (tmp_path / "synthesis").symlink_to(ROOT / "synthesis")
    api = f"http://127.0.0.1:{serving.port}"
    variables = {"API": api, "KEY": serving.api_key}
    voice = json.loads(run_shell(upload, folder=tmp_path, **variables))
    assert voice["status"] == "preparing"
    ApiClient(api, serving.api_key).wait_for_voice(voice["id"], seconds=60)
    assert voice["id"] in run_shell(voices, folder=tmp_path, **variables)
    run_shell(speech, folder=tmp_path, **variables, VOICE=voice["id"])
    assert (tmp_path / "hello.mp3").stat().st_size > 2_000
    assert "characters" in run_shell(report, folder=tmp_path, **variables)


def test_make_demo_clones_a_clip_of_ones_own(tmp_path: Path) -> None:
    """The README's second command. Its own default reference is what the first, longer one writes."""
    clip = ROOT / "synthesis" / "engines" / "parametric" / "demo_reference.wav"
    command = next(
        line for block in SHELL_BLOCKS for line in block.splitlines() if line.startswith("make demo REFERENCE")
    )
    command = command.replace("var/demo/en.wav", str(clip))
    result = subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=ROOT,
        env=newcomers_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    with wave.open(str(ROOT / "var" / "demo" / "en.wav")) as file:
        assert file.getnframes() / file.getframerate() > 1
    assert "Stopped everything" in result.stdout


def test_every_make_target_and_folder_the_readme_names_exists() -> None:
    targets = set(re.findall(r"(?:^|`)make ([a-z][a-z-]+)", README, flags=re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text()
    assert {target for target in targets if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)} == set()
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []
