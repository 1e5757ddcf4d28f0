"""The run as markdown tables: what it took, what it can take at best, and how it stands to upstream."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from tests.benchmarks.engine import floors
from tests.benchmarks.engine.floors import Floor
from tests.benchmarks.engine.workloads import BATCHES, DECODE_STEPS, FIRST_CHUNK_CODES, PREFILL_BATCHES, WAVE_SECONDS

CONTENDERS = ("upstream", "fp32", "bf16")
# Upstream's time over ours, by what is measured, precision and threads (all, where none is named).
TARGETS: Mapping[tuple[str, str], Mapping[int, float]] = {
    ("codes b1", "fp32"): {1: 1.2, 2: 1.2},
    ("codes b8", "fp32"): {1: 1.7, 2: 1.7},
    ("generator v2", "fp32"): {1: 1.3, 2: 1.3},
    ("generator v2ProPlus", "fp32"): {1: 1.3, 2: 1.3},
    ("codes b1", "bf16"): {1: 1.4, 2: 1.4},
    ("codes b8", "bf16"): {1: 3.0, 2: 3.0},
    ("prefill b1", "bf16"): {1: 2.8, 2: 2.8},
    ("prefill b8", "bf16"): {1: 2.8, 2: 2.8},
    ("generator v2", "bf16"): {2: 4.0},
    ("generator v2ProPlus", "bf16"): {2: 4.0},
    ("ready v2", "fp32"): {1: 2.0, 2: 2.0},
    ("ready v2ProPlus", "fp32"): {1: 2.0, 2: 2.0},
}

Samples = Sequence[Sequence[float]]  # wall and process CPU seconds
Judge = Callable[[Samples], float]


def median_wall(samples: Samples) -> float:
    return statistics.median(wall for wall, _ in samples)


def best_wall(samples: Samples) -> float:
    return min(wall for wall, _ in samples)


def median_cpu(samples: Samples) -> float:
    """At one thread it is what the wall time would be on a quiet machine; threads that wait for others spin."""
    return statistics.median(cpu for _, cpu in samples)


class Run:
    """All results of a run: `results[(contender, threads)]` holds samples and figures by name."""

    def __init__(self, results: Mapping[str, Any], versions: Sequence[str]) -> None:
        self.versions = versions
        self.operations: Mapping[str, float] = results["operations"]["figures"]
        self.threads: Sequence[int] = results["threads"]
        self._results = results

    def samples(self, contender: str, threads: int, name: str) -> Samples:
        found: Samples = self._results["contenders"].get(f"{contender} {threads}", {}).get("samples", {}).get(name, [])
        return found

    def figures(self, contender: str, threads: int, name: str) -> Sequence[float]:
        found: Sequence[float] = (
            self._results["contenders"].get(f"{contender} {threads}", {}).get("figures", {}).get(name, [])
        )
        return found

    def seconds(self, contender: str, threads: int, name: str, judge: Judge) -> float | None:
        samples = self.samples(contender, threads, name)
        return judge(samples) if samples else None

    def rates(self, threads: int) -> Mapping[str, float]:
        machine: Mapping[str, Sequence[float]] = self._results["machine"][str(threads)]["figures"]
        return {name: max(values) for name, values in machine.items()}

    def torch_import(self, threads: int) -> float:
        samples: Samples = self._results["machine"][str(threads)]["samples"]["import torch"]
        return statistics.median(wall for wall, _ in samples)


def tables(run: Run) -> str:
    """Everything that a reader needs, as markdown."""
    return "\n\n".join(["\n".join(part(run)) for part in (_rates, _workloads, _service, _memory, _targets)])


def _cell(run: Run, contender: str, threads: int, name: str, show: Callable[[float], str]) -> str:
    """The median with its spread, and the share of the threads' time in which the process computed."""
    samples = run.samples(contender, threads, name)
    if not samples:
        return "-"
    walls = sorted(wall for wall, _ in samples)
    busy = statistics.median(cpu / wall for wall, cpu in samples) / threads
    ends = sorted((show(walls[0]), show(walls[-1])), key=float)
    return f"{show(statistics.median(walls))} ({ends[0]}-{ends[1]}; {busy:.0%})"


def _rates(run: Run) -> Iterator[str]:
    yield "| rates of this machine | " + " | ".join(f"{threads} T" for threads in run.threads) + " |"
    yield "| --- |" + " --- |" * len(run.threads)
    for name, unit in {
        "bytes a second": "GB/s read from memory",
        "fp32 MAC a second": "GMAC/s, matrix product fp32",
        "bf16 MAC a second": "GMAC/s, matrix product bf16",
    }.items():
        yield f"| {unit} | " + " | ".join(f"{run.rates(threads)[name] / 1e9:.0f}" for threads in run.threads) + " |"


def _workloads(run: Run) -> Iterator[str]:
    yield "| workload | threads | upstream | fp32 | its floor | bf16 | its floor | fp32 × | bf16 × |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for rows in BATCHES:

        def rate(seconds: float, rows: int = rows) -> str:
            return f"{rows * DECODE_STEPS / seconds:.0f}"

        yield from _rows(
            run, f"codes b{rows}", f"codes, batch {rows}, tokens/s", rate, floors.code_step, rows, DECODE_STEPS
        )
    for rows in PREFILL_BATCHES:
        yield from _rows(
            run, f"prefill b{rows}", f"prefill, batch {rows}, s", lambda s: f"{s:.2f}", floors.prefill, rows, 1
        )
    for version in run.versions:
        for part in ("generator", "decode"):
            macs = run.operations[f"{part} {version}"]
            yield from _rows(
                run,
                f"{part} {version}",
                f"{part} {version}, {macs / 1e9:.0f} GMAC, real-time factor",
                lambda s: f"{s / WAVE_SECONDS:.3f}",
                partial(_operations, macs),
                1,
                1,
            )


def _rows(
    run: Run,
    name: str,
    title: str,
    show: Callable[[float], str],
    floor: Callable[[int, str], Floor],
    rows: int,
    units: int,
) -> Iterator[str]:
    for threads in run.threads:
        rates = run.rates(threads)
        cells = [_cell(run, "upstream", threads, name, show)]
        for precision in ("fp32", "bf16"):
            cells.append(_cell(run, precision, threads, name, show))
            cells.append(show(units * floor(rows, precision).seconds(rates, precision)))
        cells += [_ratio(run, precision, threads, name) for precision in ("fp32", "bf16")]
        yield f"| {title} | {threads} | " + " | ".join(cells) + " |"


def _operations(macs: float, _rows: int, _precision: str) -> Floor:
    return Floor(read_bytes=0, macs=macs)


def _ratio(run: Run, contender: str, threads: int, name: str) -> str:
    ratio = speed_ratio(run, contender, threads, name)
    return "-" if ratio is None else f"{ratio:.2f}"


def speed_ratio(run: Run, contender: str, threads: int, name: str, judge: Judge = median_wall) -> float | None:
    """Upstream's time over the contender's. `ready VERSION` is import and load together."""
    kind, _, version = name.partition(" ")
    names = [f"import {version}", f"load {version}"] if kind == "ready" else [name]
    theirs = [run.seconds("upstream", threads, part, judge) for part in names]
    own = [run.seconds(contender, threads, part, judge) for part in names]
    if None in theirs or None in own:
        return None
    return sum(filter(None, theirs)) / sum(filter(None, own))


def _service(run: Run) -> Iterator[str]:
    yield "| seconds | threads | upstream | fp32 | bf16 | floor (fp32) |"
    yield "| --- | --- | --- | --- | --- | --- |"

    def show(seconds: float) -> str:
        return f"{seconds:.2f}"

    for version in run.versions:
        for name, title in {
            "import": "import",
            "load": "load, files in the page cache",
            "voice": "prepare a voice of 5 s",
            "first chunk": "first chunk of an urgent text",
        }.items():
            for threads in run.threads:
                cells = [_cell(run, contender, threads, f"{name} {version}", show) for contender in CONTENDERS]
                cells.append(_service_floor(run, name, version, threads))
                yield f"| {title}, {version} | {threads} | {' | '.join(cells)} |"


def _service_floor(run: Run, name: str, version: str, threads: int) -> str:
    match name:
        case "import":
            return f"{run.torch_import(threads):.2f}: torch alone"
        case "load":
            size = run.operations[f"file bytes {version}"]
            moved = 3 * size  # half precision is read, single precision written
            return f"{moved / run.rates(threads)['bytes a second']:.2f}: {moved / 1e9:.1f} GB read and written"
        case "voice":
            macs = run.operations[f"voice {version}"]
            return f"{macs / run.rates(threads)['fp32 MAC a second']:.2f}: {macs / 1e9:.0f} GMAC"
        case _:
            steps = run.seconds("fp32", threads, "codes b1", median_wall)
            if steps is None:
                return "-"
            codes = FIRST_CHUNK_CODES * steps / DECODE_STEPS
            return f"{codes:.2f}: {FIRST_CHUNK_CODES} steps as measured above"


def _memory(run: Run) -> Iterator[str]:
    yield "| peak memory, MB | upstream | fp32 | bf16 |"
    yield "| --- | --- | --- | --- |"
    for version in run.versions:
        for name, title in {
            "loaded peak bytes": "loaded",
            "voice peak bytes": "and a voice prepared",
            "spoken peak bytes": "and spoken",
        }.items():
            cells = []
            for contender in CONTENDERS:
                peaks = [peak for t in run.threads for peak in run.figures(contender, t, f"{name} {version}")]
                cells.append(f"{statistics.median(peaks) / 1e6:.0f}" if peaks else "-")
            yield f"| {version}, {title} | {' | '.join(cells)} |"


def _targets(run: Run) -> Iterator[str]:
    """At one thread judged by CPU time, which others do not change by taking turns; at more by wall time."""
    yield "| target against upstream | threads | wanted | median wall | best wall | median CPU | |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for (name, precision), wanted in TARGETS.items():
        for threads, least in wanted.items():
            ratios = [
                speed_ratio(run, precision, threads, name, judge) for judge in (median_wall, best_wall, median_cpu)
            ]
            known = [ratio for ratio in ratios if ratio is not None]
            if len(known) < len(ratios):
                continue
            wall, best, cpu = known
            verdict = "met" if (cpu if threads == 1 else wall) >= least else "not met"
            shown = f"{cpu:.2f}" if threads == 1 else "-"
            yield f"| {precision} {name} | {threads} | {least:.1f} | {wall:.2f} | {best:.2f} | {shown} | {verdict} |"
