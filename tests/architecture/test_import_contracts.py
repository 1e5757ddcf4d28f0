"""`make check` runs import-linter; here each contract is broken once in a copy of the tree, and must be reported."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("config", "synthesis", "voices", "billing", "tenants")
CONTRACTS = {
    contract["id"]: contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}

# contract -> (file, an import that breaks it)
VIOLATIONS = {
    "apps": ("billing/rating.py", "import voices.models"),
    "engines": ("synthesis/engines/audio.py", "import django.conf"),
    "rendering": ("synthesis/rendering.py", "import celery"),
    "web-without-engines": ("synthesis/api/views.py", "import torch"),
    "layers-in-apps": ("voices/selectors.py", "import voices.services"),
}


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    linter = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([linter, "--no-cache"], cwd=tree, capture_output=True, text=True, check=False)


@pytest.fixture
def copy_of_tree(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_holds(copy_of_tree: Path) -> None:
    result = lint(copy_of_tree)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


def test_every_contract_has_a_planted_violation() -> None:
    assert set(VIOLATIONS) == set(CONTRACTS)


@pytest.mark.parametrize("contract", sorted(VIOLATIONS))
def test_a_planted_violation_is_reported(copy_of_tree: Path, contract: str) -> None:
    file, statement = VIOLATIONS[contract]
    planted = copy_of_tree / file
    assert planted.exists()
    planted.write_text(planted.read_text() + f"\n{statement}\n")
    result = lint(copy_of_tree)
    assert result.returncode == 1
    assert f"{CONTRACTS[contract]} BROKEN" in " ".join(result.stdout.split())
