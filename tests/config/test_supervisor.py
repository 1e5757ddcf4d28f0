"""Processes under the supervisor: started, restarted, stopped in order, none left behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from config.supervisor import Program, Supervisor, environment_for

LOYAL = """
import signal, sys, time
name = sys.argv[1]
def leave(number, frame):
    print(f"{name} leaves", flush=True); sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print(f"{name} is here", flush=True)
while True: time.sleep(0.02)
"""
STUBBORN_WITH_CHILD = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(f"child {child.pid}", flush=True)
time.sleep(60)
"""


def program(name: str, code: str, *, stop_seconds: float = 5) -> Program:
    return Program(name=name, kind="web", arguments=["-c", code, name], stop_seconds=stop_seconds)


def run(programs: Sequence[Program], until: Callable[[str], bool], *, seconds: float = 20) -> tuple[str, Supervisor]:
    """Supervise until the output satisfies `until`; returns the output and the supervisor, everything stopped."""
    output = io.StringIO()
    supervisor = Supervisor(programs, output=output, servers=None)
    deadline = time.monotonic() + seconds
    supervisor.run(until=lambda: until(output.getvalue()) or time.monotonic() > deadline)
    return output.getvalue(), supervisor


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


def test_output_is_prefixed_and_processes_stop_in_order() -> None:
    output, supervisor = run(
        [program("web", LOYAL), program("worker", LOYAL)],
        until=lambda text: text.count("is here") == 2,
    )
    lines = output.splitlines()
    assert sorted(lines[:2]) == ["web        | web is here", "worker     | worker is here"]
    assert lines[2:] == ["web        | web leaves", "worker     | worker leaves"]
    assert supervisor.crashes == 0


def test_a_crashed_process_is_started_again_with_back_off() -> None:
    output, supervisor = run(
        [program("web", "print('up'); raise SystemExit(3)")], until=lambda text: text.count("ended with code 3") == 2
    )
    assert "starts again in 0.5 s" in output
    assert "starts again in 1.0 s" in output
    assert supervisor.crashes == 2


def test_what_does_not_stop_is_killed_with_all_it_started() -> None:
    output, _ = run([program("web", STUBBORN_WITH_CHILD, stop_seconds=0.3)], until=lambda text: "child" in text)
    assert "does not stop; killed" in output
    child = int(output.split("child ")[1].split()[0])
    deadline = time.monotonic() + 5
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(child)


def test_a_signal_stops_everything() -> None:
    def send_once(text: str) -> bool:
        if "is here" in text:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    output, supervisor = run([program("web", LOYAL)], until=send_once)
    assert supervisor.was_asked_to_stop
    assert output.endswith("web        | web leaves\n")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_children_follow_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path.cwd())!r})
from config.supervisor import Program, Supervisor
code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
child = Program(name="web", kind="web", arguments=["-c", code], stop_seconds=1)
Supervisor([child], output=sys.stdout, servers=None).run(until=lambda: False)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline().split("|")[1])
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 5
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(child)


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        ("web", {"DATABASE_URL"}),
        ("admin", {"DATABASE_URL", "DATABASE_URL_STAFF"}),
        ("worker", {"DATABASE_URL", "DATABASE_URL_DISPATCH"}),
        ("dispatcher", {"DATABASE_URL", "DATABASE_URL_DISPATCH"}),
    ],
)
def test_credentials_of_other_roles_are_taken_away(kind: str, kept: set[str]) -> None:
    names = ("DATABASE_URL", "DATABASE_URL_MIGRATE", "DATABASE_URL_STAFF", "DATABASE_URL_DISPATCH")
    environment = environment_for(kind, {**dict.fromkeys(names, "postgresql://"), "REDIS_URL": "redis://"})
    assert {name for name in environment if name.startswith("DATABASE_URL")} == kept
    assert environment["CANTORIA_PROCESS"] == kind
    assert environment["REDIS_URL"] == "redis://"
