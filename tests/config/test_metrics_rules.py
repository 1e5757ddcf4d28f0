"""Rules and dashboards speak of numbers that the code exports, with labels and values that it gives them.

promtool checks the rules' logic (`make check-alerts`); it knows no code, so a renamed metric would leave an alert that
never fires. Every name in an expression is looked up here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from config import gpu_metrics, metrics
from synthesis import errors
from synthesis.contracts import BATCH_QUEUE, SPEECH_QUEUE
from synthesis.metrics import PromptLevel
from synthesis.models import JobKind, JobStatus
from tests.config.test_metrics import fake_nvml

DOCKER = Path(__file__).resolve().parents[2] / "docker"
RULES = yaml.safe_load((DOCKER / "prometheus/alerts.yml").read_text())
TESTS = yaml.safe_load((DOCKER / "prometheus/alerts_test.yml").read_text())
DASHBOARDS = {
    path.stem: json.loads(path.read_text()) for path in sorted((DOCKER / "grafana/dashboards").glob("*.json"))
}
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
RECORDED = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}

# What Prometheus adds by itself, and what PromQL means by itself.
TARGET_LABELS: Final = {"job", "instance"}
PROMQL: Final = frozenset(
    [
        "sum",
        "rate",
        "increase",
        "max",
        "min",
        "count",
        "by",
        "on",
        "and",
        "or",
        "absent",
        "time",
        "bool",
        "histogram_quantile",
        "avg_over_time",
        "group_left",
        "group_right",
    ]
)
ENDINGS: Final = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}
VALUES: Final[dict[tuple[str, str], set[str]]] = {
    ("cantoria_jobs_total", "kind"): set(JobKind.values),
    ("cantoria_jobs_total", "status"): set(JobStatus.values),
    ("cantoria_queue_oldest_due_seconds", "queue"): {SPEECH_QUEUE, BATCH_QUEUE},
    ("cantoria_prompt_loads_total", "level"): set(PromptLevel),
    ("cantoria_leases_lost_total", "noticed_by"): {"dispatcher", "worker"},
    **{
        (f"cantoria_first_audio_seconds_{end}", label): values
        for end in ("bucket", "count", "sum")
        for label, values in {"kind": {"stream", "whole"}, "start": {"warm", "cold"}, "text": {"short", "long"}}.items()
    },
}


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Name of every series that some process shows, and its labels."""
    found: dict[str, set[str]] = {}
    for collector in REGISTRY._collector_to_names:
        if isinstance(collector, MetricWrapperBase):
            for ending in ENDINGS[str(collector._type)]:
                found[collector._name + ending] = {*collector._labelnames, *(["le"] if ending == "_bucket" else [])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_metrics, "_open_nvml", lambda: fake_nvml(devices=1))
        patch.setattr(metrics, "count_live_workers", lambda: 1)
        asked = [*gpu_metrics.GpuCollector().collect(), *metrics._AskedAtScrape().collect()]
    for family in (*asked, *metrics._Own().collect()):
        for sample in family.samples:
            found.setdefault(sample.name, set(sample.labels))
    assert len(found) > 40
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of everything that is asked of Prometheus."""
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]
    for name, board in DASHBOARDS.items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]


def selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(metric, {label: value or pattern}) of an expression."""
    for name, inside in re.findall(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}", expression):
        yield name, dict(re.findall(r"(\w+)\s*[=!]~?\s*\"([^\"]*)\"", inside))


def names(expression: str) -> set[str]:
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", " ", expression)
    bare = re.sub(r"\b(by|on|group_left|group_right)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"(?<![\w.])[a-zA-Z_:][\w:]*", bare)) - PROMQL


def grouping(expression: str) -> set[str]:
    found = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
    return {label.strip() for inside in found for label in inside.split(",") if label.strip()}


ASKED = list(expressions())


@pytest.mark.parametrize(("where", "expression"), ASKED, ids=[f"{n} {where}" for n, (where, _) in enumerate(ASKED)])
def test_what_is_asked_is_exported(where: str, expression: str, exported: dict[str, set[str]]) -> None:
    known = {**exported, **{name: {"sli"} for name in RECORDED}, "up": set()}
    used = names(expression)
    assert used
    assert used <= known.keys()
    labels = set().union(*(known[name] for name in used)) | TARGET_LABELS
    assert grouping(expression) <= labels
    for name, wanted in selectors(expression):
        assert wanted.keys() <= known[name] | TARGET_LABELS
        for label, pattern in wanted.items():
            possible = VALUES.get((name, label))
            assert possible is None or set(pattern.split("|")) <= possible


def test_what_callers_got_wrong_does_not_spend_the_budget() -> None:
    """The codes that rules leave out are those that a listener would be told with a status below 500."""
    theirs = {code for code, status in errors._STATUS_OF_FAILURE.items() if status < 500}
    left_out = [re.findall(r'code!~"([^"]*)"', expression) for _, expression in ASKED]
    assert sum(map(len, left_out)) >= 6
    for patterns in left_out:
        for pattern in patterns:
            assert set(pattern.split("|")) == theirs


def test_the_promised_first_byte_is_a_bound_of_its_histogram() -> None:
    """Between two bounds Prometheus only guesses."""
    (rule,) = [rule for rule in ALERTS if rule["alert"] == "FirstByteSlow"]
    (limit,) = re.findall(r"\n?\) > ([\d.]+)\nand", rule["expr"])
    sample = REGISTRY._names_to_collectors["cantoria_first_audio_seconds"]
    assert isinstance(sample, MetricWrapperBase)
    assert float(limit) in sample._upper_bounds  # type: ignore[attr-defined]


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_an_alert_has_a_page_a_severity_and_stories(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"docker/runbooks/{name}.md"
    page = (DOCKER / "runbooks" / f"{name}.md").read_text()
    assert page.startswith(f"# {name} ({rule['labels']['severity']})\n")
    for part in ("**Means.**", "**See", "do.**" if name == "ErrorBudgetBurns" else "**Do.**"):
        assert part in page
    stories = [check for test in TESTS["tests"] for check in test["alert_rule_test"] if check["alertname"] == name]
    assert any(check["exp_alerts"] for check in stories), "no story in which it fires"
    assert any(not check["exp_alerts"] for check in stories), "no story in which it must not"


def test_no_page_is_left_over_and_links_lead_somewhere() -> None:
    pages = {path.stem: path.read_text() for path in (DOCKER / "runbooks").glob("*.md")}
    assert pages.keys() == {rule["alert"] for rule in ALERTS}
    for text in pages.values():
        assert {target.removesuffix(".md") for target in re.findall(r"\]\(([^)]*)\)", text)} <= pages.keys()
        for metric in re.findall(r"`(cantoria_\w+)`", text):
            assert any(metric in expression for _, expression in ASKED) or metric == "cantoria_build_info"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_loaded(name: str) -> None:
    board = DASHBOARDS[name]
    assert (board["uid"], board["title"][:10]) == (f"cantoria-{name}", "Cantoria: ")
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) > 3
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, "panels lie on each other"
        taken |= cells
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters)) > 0


def test_there_are_the_four_dashboards() -> None:
    assert DASHBOARDS.keys() == {"service", "jobs", "engine", "money"}
