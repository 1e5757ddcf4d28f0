"""What is measured, and how a worker process is told and answers. Imported by both sides, so it needs nothing else."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

# Codes: 120 phones and 125 prompt codes (5 s of reference) are read, then 250 codes decoded: 10 s. To save time the
# steps are measured from 212 prompt codes on and 75 only: the mean context is the same, 370 positions.
PHONES: Final = 120
PREFILL_PROMPT_CODES: Final = 125
DECODE_PROMPT_CODES: Final = 212
DECODE_STEPS: Final = 75
MEAN_CONTEXT: Final = PHONES + DECODE_PROMPT_CODES + (DECODE_STEPS + 1) // 2
BATCHES: Final = (1, 4, 8)
PREFILL_BATCHES: Final = (1, 8)
# The wave: 10 s of speech.
WAVE_CODES: Final = 250
WAVE_PHONES: Final = 125
WAVE_SECONDS: Final = 10.0
REFERENCE_FRAMES: Final = 250  # of the spectrogram: 5 s
# A voice and a text in it.
CLIP_SECONDS: Final = 5.0
CLIP_RATE_HZ: Final = 44_100
TRANSCRIPT: Final = "今天天气好我们在中国说的话你也会说他们来了"
TEXT: Final = "我们说有这个世界的时候大家会来到中国，他在家里看着天上的太阳，你就说今天天气好，我也要出去。"
PHONES_PER_HANZI: Final = 2
FIRST_CHUNK_CODES: Final = 25


@dataclass(frozen=True)
class Job:
    """One worker process: a measurement of one contender with a fixed number of threads."""

    measure: str  # "models", "service", "machine" or "operations"
    contender: str  # "upstream", "fp32" or "bf16"
    threads: int
    versions: tuple[str, ...]
    models: Path  # the folder that `untrained.prepare` filled
    decode_steps: int = DECODE_STEPS

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "models": str(self.models)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        return cls(**{**fields, "versions": tuple(fields["versions"]), "models": Path(fields["models"])})


@dataclass
class Clock:
    """Collects wall and process CPU seconds under a name, and plain figures."""

    samples: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.add(name, time.perf_counter() - wall, time.process_time() - cpu)

    def add(self, name: str, wall: float, cpu: float) -> None:
        self.samples.setdefault(name, []).append((wall, cpu))

    def time_calls(self, name: str, module: Any) -> None:
        """Time every call of a torch module from now on."""
        began: list[tuple[float, float]] = []

        def before(*_: object) -> None:
            began.append((time.perf_counter(), time.process_time()))

        def after(*_: object) -> None:
            wall, cpu = began.pop()
            self.add(name, time.perf_counter() - wall, time.process_time() - cpu)

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)

    def note_peak_memory(self, name: str) -> None:
        """The highest resident set so far; memory-mapped pages of files count."""
        self.figures[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def answer(work: Callable[[Job], Clock]) -> None:
    """The main function of a worker: `JOB RESULT_FILE`. What a contender prints cannot get into the result."""
    job = Job.from_json(sys.argv[1])
    clock = work(job)
    result: dict[str, Any] = {"samples": clock.samples, "figures": clock.figures}
    Path(sys.argv[2]).write_text(json.dumps(result))
