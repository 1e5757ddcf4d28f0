"""What a process loads: engines and rendering without Django, the web process without torch or a vocoder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

WITHOUT_DJANGO = """
import sys

BLOCKED = {"django", "rest_framework", "celery", "kombu", "redis", "psycopg", "tenants", "billing", "voices"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Refuse())
import synthesis.contracts, synthesis.rendering, synthesis.engines.base, synthesis.engines.fake
import synthesis.engines.parametric
import synthesis.engines.gpt_sovits.library, synthesis.engines.gpt_sovits.importing
"""

WEB_PROCESS = """
import os, sys
os.environ["CANTORIA_PROCESS"] = "web"
import config.asgi, config.urls
from django.urls import get_resolver
get_resolver().url_patterns
heavy = {"torch", "pyworld", "pyopenjtalk", "librosa", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""


def run(program: str) -> None:
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_engines_and_rendering_need_no_django() -> None:
    run(WITHOUT_DJANGO)


def test_the_web_process_loads_no_engine() -> None:
    run(WEB_PROCESS)
