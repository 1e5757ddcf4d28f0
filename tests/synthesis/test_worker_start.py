"""A worker that cannot have its engine says why and ends, instead of taking jobs that it must fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("environment", "reason"),
    [({}, "There are none: see `import_model`."), ({"HOP_LENGTH": "320"}, "HOP_LENGTH"), ({"MODEL": "warm"}, "warm")],
    ids=["no model", "contradicted hop length", "unknown default"],
)
def test_a_worker_without_its_engine_ends(tmp_path: Path, environment: dict[str, str], reason: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "celery", "--quiet", "-A", "config.celery", "worker", "--pool", "threads"],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "config.settings.production",
            "ALLOWED_HOSTS": "localhost",
            "CANTORIA_PROCESS": "worker",
            "ENGINE": "gpt_sovits",
            "MODEL_PATH": str(tmp_path),
            **environment,  # servers and secrets are those of the test settings, which nobody is asked for
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode != 0
    assert "cantoria: the engine cannot be loaded" in result.stderr
    assert reason in result.stderr
