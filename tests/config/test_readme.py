"""The README's commands, run against a real `serve`, as a newcomer would type them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.client import ApiClient
from synthesis.engines.gpt_sovits.config import ModelVersion
from synthesis.engines.gpt_sovits.models import list_models
from tests.engines.gpt_sovits.random_models import write_checkpoints
from tests.serving_process import ROOT, Serving, newcomers_environment, serve

README = (ROOT / "README.md").read_text()
SHELL_BLOCKS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
START_SECONDS = 90.0


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with serve(start_seconds=START_SECONDS) as started:
        yield started


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


@pytest.fixture(scope="module")
def neural_commands() -> list[str]:
    block = next(block for block in SHELL_BLOCKS if "import_model" in block)
    return re.findall(r"^python .*?(?:[^\\]$)", block, flags=re.MULTILINE | re.DOTALL)


def run_as_newcomer(command: str, *, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", "-c", command.replace("python manage.py", f"{sys.executable} {ROOT / 'manage.py'}")],
        cwd=folder,
        env={**newcomers_environment(), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_readmes_import_of_a_model_works_on_files_of_those_names(
    neural_commands: list[str], tmp_path: Path
) -> None:
    command = neural_commands[0]
    made = write_checkpoints(tmp_path / "made", ModelVersion.V2_PRO_PLUS)
    names = re.findall(r"\S+", command.partition("import_model")[2].partition("--name")[0].replace("\\", ""))
    for path, name in zip(made, names, strict=True):
        path.rename(tmp_path / name)
    result = run_as_newcomer(command, folder=tmp_path, MODEL_PATH=str(tmp_path / "models"))
    assert result.returncode == 0, result.stderr
    assert list_models(tmp_path / "models") == ["warm"]


def test_the_readmes_fetch_says_plainly_when_there_is_no_network(neural_commands: list[str], tmp_path: Path) -> None:
    result = run_as_newcomer(
        neural_commands[1], folder=tmp_path, MODEL_PATH=str(tmp_path), HF_ENDPOINT="http://127.0.0.1:1"
    )
    assert result.returncode == 1
    assert "import_model" in result.stderr  # the cure
    assert "Traceback" not in result.stderr
