"""promtool over rules, their stories, the configuration and the dashboards' expressions: `make check-alerts`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.config.test_metrics_rules import ASKED, DOCKER, TESTS

PROMETHEUS = DOCKER / "prometheus"
pytestmark = pytest.mark.cluster


def promtool(*arguments: str, folder: Path = PROMETHEUS) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.fail("promtool is missing. Install it: apt-get install prometheus (or take it from prometheus.io).")
    result = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_the_configuration_and_its_rules_are_valid() -> None:
    said = promtool("check", "config", "prometheus.yml") + promtool("check", "rules", "alerts.yml")
    assert "FAILED" not in said


def test_every_story_ends_as_it_should() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml")


def test_a_rule_that_is_changed_spoils_its_story(tmp_path: Path) -> None:
    rules = (
        (PROMETHEUS / "alerts.yml")
        .read_text()
        .replace("max(cantoria_live_workers) < 1", "max(cantoria_live_workers) < 0")
    )
    stories = [test for test in TESTS["tests"] if test["alert_rule_test"][0]["alertname"] == "WorkerAbsent"]
    (tmp_path / "alerts.yml").write_text(rules)
    (tmp_path / "alerts_test.yml").write_text(yaml.safe_dump({**TESTS, "tests": stories}))
    with pytest.raises(AssertionError, match="WorkerAbsent"):
        promtool("test", "rules", "alerts_test.yml", folder=tmp_path)


def test_the_dashboards_speak_promql(tmp_path: Path) -> None:
    asked = [expression.replace("$__rate_interval", "5m") for _, expression in ASKED]
    rules = [{"record": f"asked:{number}", "expr": expression} for number, expression in enumerate(asked)]
    (tmp_path / "asked.yml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    assert f"{len(asked)} rules found" in promtool("check", "rules", "asked.yml", folder=tmp_path)
