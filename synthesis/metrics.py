"""Prometheus numbers of jobs and sound: plain Python, called from one line where something happens.

Every label has a small closed set of values. Tenants, voices and texts are none: numbers per tenant live in SQL.
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Final, NamedTuple

from prometheus_client import Counter, Gauge, Histogram

SHORT_TEXT_CHARS: Final = 200  # one breath: the promise about the first byte is made for such texts
_ERROR_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


class PromptLevel(enum.StrEnum):
    """Where a render found its prepared voice."""

    MEMORY = "memory"  # of the worker's process
    REDIS = "redis"
    STORAGE = "storage"
    LEARNED = "learned"  # nowhere: the reference was analysed again


class QueueState(NamedTuple):
    """A queue at one moment, all tenants together."""

    due_jobs: int
    oldest_due_seconds: float  # 0 when nothing is due
    running_jobs: int


# 3 seconds is what is promised, so it is a bound of its own.
_FIRST_AUDIO_SECONDS = Histogram(
    "cantoria_first_audio_seconds",
    "Seconds from a request's arrival to its first byte of audio. kind: stream, or whole for formats sent when done;"
    " start: warm when the worker had the voice in memory; text: short up to 200 characters.",
    ("kind", "start", "text"),
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60),
)
_JOBS = Counter(
    "cantoria_jobs_total",
    "Jobs that ended. code: the error of a failed or expired one, else empty.",
    ("kind", "status", "code"),
)
_JOB_WAIT_SECONDS = Histogram(
    "cantoria_job_wait_seconds",
    "Seconds from when an attempt was due to its claim by a worker.",
    ("kind",),
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600),
)
# Set by the dispatcher, which alone looks at all tenants' jobs anyway.
_QUEUE_DUE_JOBS = Gauge(
    "cantoria_queue_due_jobs", "Jobs that could run now and wait.", ("queue",), multiprocess_mode="mostrecent"
)
_QUEUE_OLDEST_DUE_SECONDS = Gauge(
    "cantoria_queue_oldest_due_seconds",
    "How long the job that waits longest has been due.",
    ("queue",),
    multiprocess_mode="mostrecent",
)
_QUEUE_RUNNING_JOBS = Gauge(
    "cantoria_queue_running_jobs", "Jobs that a worker holds.", ("queue",), multiprocess_mode="mostrecent"
)
_DISPATCHER_ROUND = Gauge(
    "cantoria_dispatcher_round_timestamp_seconds",
    "Unix time of the dispatcher's last finished round.",
    multiprocess_mode="max",
)
_REAL_TIME_FACTOR = Histogram(
    "cantoria_render_real_time_factor",
    "Seconds of rendering for a second of sound, of finished renderings; below 1 is faster than speech.",
    ("engine",),
    buckets=(0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 4, 8),
)
_ENGINE_SECONDS = Counter(
    "cantoria_engine_seconds_total",
    "Seconds that attempts took from claim to end, whatever their end.",
    ("engine", "kind"),
)
_AUDIO_SECONDS = Counter("cantoria_audio_seconds_total", "Seconds of sound in finished renderings.", ("engine",))
_PROMPT_LOADS = Counter(
    "cantoria_prompt_loads_total", "Prepared voices that renders asked for, by where they were found.", ("level",)
)
_LEASES_LOST = Counter(
    "cantoria_leases_lost_total",
    "Attempts whose lease ran out. noticed_by: the dispatcher that took the job away, or the worker that lost it.",
    ("noticed_by",),
)
_STREAM_LISTENERS = Gauge(
    "cantoria_stream_listeners", "Listeners to speech in the making.", multiprocess_mode="livesum"
)

# There from the start: the first of a kind is an increase from 0, not a series out of nowhere.
for _level in PromptLevel:
    _PROMPT_LOADS.labels(_level.value)
for _noticed_by in ("dispatcher", "worker"):
    _LEASES_LOST.labels(_noticed_by)

_prompt_level: ContextVar[PromptLevel | None] = ContextVar("cantoria_prompt_level", default=None)


def observe_first_audio(*, started: float, is_live: bool, is_warm: bool, text_chars: int) -> None:
    """`started`: `time.perf_counter()` at the request's arrival."""
    _FIRST_AUDIO_SECONDS.labels(
        "stream" if is_live else "whole",
        "warm" if is_warm else "cold",
        "short" if text_chars <= SHORT_TEXT_CHARS else "long",
    ).observe(time.perf_counter() - started)


def count_job(*, kind: str, status: str, code: str) -> None:
    """A job has ended. A code that is none of ours in form would be a label without bounds."""
    known = code if not code or _ERROR_CODE.fullmatch(code) else "other"
    _JOBS.labels(kind, status, known).inc()


def observe_wait(*, kind: str, seconds: float) -> None:
    _JOB_WAIT_SECONDS.labels(kind).observe(max(0.0, seconds))


def show_queues(queues: Mapping[str, QueueState]) -> None:
    for queue, state in queues.items():
        _QUEUE_DUE_JOBS.labels(queue).set(state.due_jobs)
        _QUEUE_OLDEST_DUE_SECONDS.labels(queue).set(state.oldest_due_seconds)
        _QUEUE_RUNNING_JOBS.labels(queue).set(state.running_jobs)


def note_dispatcher_round() -> None:
    _DISPATCHER_ROUND.set_to_current_time()


def count_rendering(*, engine: str, seconds: float, audio_seconds: float) -> None:
    """One finished rendering of `audio_seconds`, which took `seconds`."""
    _AUDIO_SECONDS.labels(engine).inc(audio_seconds)
    if audio_seconds > 0:
        _REAL_TIME_FACTOR.labels(engine).observe(seconds / audio_seconds)


def count_engine_seconds(*, engine: str, kind: str, seconds: float) -> None:
    _ENGINE_SECONDS.labels(engine, kind).inc(max(0.0, seconds))


def count_prompt_load(level: PromptLevel) -> None:
    """A render found its voice there; `is_warm` of this thread tells it to whoever sends the sound."""
    _PROMPT_LOADS.labels(level.value).inc()
    _prompt_level.set(level)


def is_warm() -> bool:
    """Whether the last prepared voice that this thread loaded was in memory."""
    return _prompt_level.get() is PromptLevel.MEMORY


def count_lease_lost(*, noticed_by: str) -> None:
    _LEASES_LOST.labels(noticed_by).inc()


def add_listeners(number: int) -> None:
    """1 when one begins to listen, -1 when it stops."""
    _STREAM_LISTENERS.inc(number)
