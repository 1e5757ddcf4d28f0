"""Speed of the neural engine on this CPU. `python -m tests.benchmarks.engine` (15 minutes, `--quick` for 3)

Untrained models of the published sizes are made once under var/bench/models. Every measurement is a process of its own
with a fixed number of threads; contenders take turns (A B C A B C), so that a slow spell of the machine meets all of
them, and waits a little while others use the machine. With GPT_SOVITS_UPSTREAM naming a checkout of upstream, its own
modules are measured in the same run, by the interpreter GPT_SOVITS_PYTHON (this one, unless named). Prints markdown,
writes var/bench/engine.json.

A cell is the median with its spread and the share of its threads' time that the process computed: at one thread it is
100 % on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.engine import report, untrained
from tests.benchmarks.engine.workloads import DECODE_STEPS, Job

REPOSITORY: Final = Path(__file__).resolve().parents[3]
RESULTS: Final = REPOSITORY / "var" / "bench" / "engine.json"
MODELS: Final = REPOSITORY / "var" / "bench" / "models"
VERSIONS: Final = ("v2", "v2ProPlus")
THREADS: Final = (1, 2)
MODEL_ROUNDS: Final = 3
SERVICE_ROUNDS: Final = 2
_QUIET_SHARE: Final = 0.05  # of the machine's time that others may take before the figures mean little
_LOOK_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Upstream:
    """Where upstream's modules and an interpreter with their requirements are."""

    checkout: Path
    python: str


def find_upstream() -> Upstream | None:
    checkout = os.environ.get("GPT_SOVITS_UPSTREAM")
    if not checkout:
        return None
    return Upstream(Path(checkout), os.environ.get("GPT_SOVITS_PYTHON") or sys.executable)


def run_job(job: Job, upstream: Upstream | None) -> dict[str, Any]:
    """One worker process, to its end. Also says which share of the machine's time others took meanwhile."""
    is_upstream = job.contender == "upstream"
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        command = ["-m", f"tests.benchmarks.engine.{'upstream' if is_upstream else 'ours'}", job.to_json(), str(result)]
        python = upstream.python if is_upstream and upstream else sys.executable
        before, began = _busy_seconds(), time.monotonic()
        done = subprocess.run(
            [python, "-W", "ignore", *command],
            cwd=job.models / untrained.UPSTREAM if is_upstream else REPOSITORY,
            env={
                **os.environ,
                "PYTHONPATH": str(REPOSITORY),
                "OMP_NUM_THREADS": str(job.threads),
                "MKL_NUM_THREADS": str(job.threads),
                "HF_HUB_OFFLINE": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lasted = (time.monotonic() - began) * (os.cpu_count() or 1)
        if done.returncode:
            raise SystemExit(f"{done.stdout}\n{job} ended with {done.returncode}")
        answer: dict[str, Any] = json.loads(result.read_text())
    answer["others"] = max(0.0, (_busy_seconds() - before) / lasted)
    return answer


def _busy_seconds() -> float:
    """Of all processors since the start, stolen time included, less what our own ended children took."""
    fields = [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    busy = sum(fields) - fields[3] - fields[4]  # idle, waiting for a disk
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return busy / os.sysconf("SC_CLK_TCK") - children.ru_utime - children.ru_stime


def _wait_until_quiet(most_seconds: float) -> float:
    """Returns how long that took."""
    began = time.monotonic()
    while time.monotonic() - began < most_seconds:
        before = _busy_seconds()
        time.sleep(_LOOK_SECONDS)
        if _busy_seconds() - before < _QUIET_SHARE * _LOOK_SECONDS * (os.cpu_count() or 1):
            break
    return time.monotonic() - began


def plan(contenders: Sequence[str], versions: Sequence[str], rounds: tuple[int, int], steps: int) -> Iterator[Job]:
    model_rounds, service_rounds = rounds
    for number in range(model_rounds):
        for threads in THREADS:
            yield Job("machine", "fp32", threads, (), MODELS)
            for contender in contenders:
                yield Job("models", contender, threads, tuple(versions), MODELS, steps)
            if number >= service_rounds:
                continue
            for version in versions:
                for contender in contenders:
                    yield Job("service", contender, threads, (version,), MODELS)


def collect(into: dict[str, Any], job: Job, answer: dict[str, Any]) -> None:
    """Add the samples and figures of one process; those of a service get the version behind their name."""
    suffix = f" {job.versions[0]}" if job.measure == "service" else ""
    for kind in ("samples", "figures"):
        for name, value in answer[kind].items():
            kept = into.setdefault(kind, {}).setdefault(name + suffix, [])
            kept += value if kind == "samples" else [value]


def describe_cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    read = dict(line.split(":", 1) for line in lines if ":" in line)
    found = {key.strip(): value.strip() for key, value in read.items()}
    units = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in found.get("flags", "").split()]
    model = f"family {found.get('cpu family', '?')}, model {found.get('model', '?')}"
    return f"{found.get('model name', 'unknown')} ({model}), {os.cpu_count()} cores, {' '.join(units)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, v2 alone, fewer steps")
    parser.add_argument(
        "--patience", type=float, default=300.0, metavar="SECONDS", help="altogether, to wait for a quiet machine (300)"
    )
    arguments = parser.parse_args()
    patience = arguments.patience
    versions = VERSIONS[:1] if arguments.quick else VERSIONS
    rounds = (1, 1) if arguments.quick else (MODEL_ROUNDS, SERVICE_ROUNDS)

    upstream = find_upstream()
    contenders = report.CONTENDERS if upstream else report.CONTENDERS[1:]
    print("Making or finding the models", file=sys.stderr)
    untrained.prepare(MODELS, versions)
    if upstream:
        untrained.copy_upstream(upstream.checkout, MODELS)
        run_job(Job("service", "upstream", 2, versions[:1], MODELS), upstream)  # compiles its sources
    untrained.read_all(MODELS)

    operations = run_job(Job("operations", "fp32", 2, tuple(versions), MODELS), None)
    operations["figures"] |= {
        f"file bytes {version}": float(untrained.file_bytes(MODELS, version)) for version in versions
    }
    results: dict[str, Any] = {
        "cpu": describe_cpu(),
        "threads": THREADS,
        "operations": operations,
        "machine": {},
        "contenders": {},
        "others": [],
    }
    began = time.monotonic()
    for job in plan(contenders, versions, rounds, DECODE_STEPS):
        name = f"{job.contender} {job.threads}"
        into = results["machine"] if job.measure == "machine" else results["contenders"]
        key = str(job.threads) if job.measure == "machine" else name
        patience -= _wait_until_quiet(patience)
        answer = run_job(job, upstream)
        collect(into.setdefault(key, {}), job, answer)
        results["others"].append([job.measure, name, answer["others"]])
        print(
            f"{time.monotonic() - began:5.0f} s  {job.measure:8} {name:11} {' '.join(job.versions):13}"
            f" others took {answer['others']:.0%}",
            file=sys.stderr,
        )
        RESULTS.write_text(json.dumps(results, indent=1))
    noisy = [share for _, _, share in results["others"] if share > _QUIET_SHARE]
    print(f"{results['cpu']}\n")
    print(report.tables(report.Run(results, versions)))
    print(
        f"\n{len(noisy)} of {len(results['others'])} processes shared the machine with others for over 5 % of its time."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
