"""The process that inspects uploads: its limits, its deaths, and what it leaves behind, which is nothing."""

from __future__ import annotations

import gc
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.voices.uploads import encode, flac_of_constants, speech
from voices.errors import AudioUnreadableError, InspectionTimeoutError, UploadRejectedError
from voices.inspection.limits import ProcessLimits
from voices.intake import InspectedClip, Inspector

PROJECT_ROOT = Path(__file__).resolve().parents[2]
GOOD = encode(speech(5.0))
# The most work that fits into an upload, in 350 kB: loud and flat, so that all of it is looked at for clipping, and in
# channels that cancel each other, so that it is decoded twice.
HEAVY = flac_of_constants(400, 44_100, values=(0x4000, -0x4000) * 4)


def inspect(inspector: Inspector, data: bytes) -> InspectedClip:
    return inspector.inspect(io.BytesIO(data), declared_filename=None, declared_content_type=None)


@pytest.fixture
def inspector() -> Iterator[Inspector]:
    inspector = Inspector()
    inspector.warm_up()
    yield inspector
    inspector.close()


def children_of(process_id: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]


def wait_for(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def is_alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_clip_that_takes_too_long_is_refused_and_the_next_one_works() -> None:
    inspector = Inspector(limits=ProcessLimits(wall_seconds=1.0))
    try:
        with pytest.raises(InspectionTimeoutError) as caught:
            inspect(inspector, HEAVY)
        assert caught.value.details["limit_seconds"] == 1.0
        assert inspect(inspector, GOOD).duration_seconds > 3
        program = inspector.process_id
        assert program is not None
        wait_for(lambda: children_of(program) == [])  # the child is ended, not forgotten
    finally:
        inspector.close()


def test_a_clip_that_needs_too_much_memory_is_refused_and_the_next_one_works() -> None:
    inspector = Inspector(limits=ProcessLimits(memory_bytes=350 << 20))
    try:
        with pytest.raises(AudioUnreadableError):
            inspect(inspector, flac_of_constants(600, 48_000))  # 115 MB of samples are kept
        assert inspect(inspector, GOOD).duration_seconds > 3
    finally:
        inspector.close()


def test_a_clip_that_needs_too_much_processor_time_is_refused_and_the_next_one_works() -> None:
    inspector = Inspector(limits=ProcessLimits(cpu_seconds=1))
    try:
        with pytest.raises(InspectionTimeoutError) as caught:
            inspect(inspector, HEAVY)
        assert caught.value.details["limit_seconds"] == 1
        assert inspect(inspector, GOOD).duration_seconds > 3
    finally:
        inspector.close()


def test_the_heaviest_upload_stays_within_the_limits(inspector: Inspector) -> None:
    started = time.monotonic()
    with pytest.raises(UploadRejectedError) as caught:
        inspect(inspector, HEAVY)
    assert caught.value.code == "audio_no_speech"  # it was decoded and measured to the end
    assert time.monotonic() - started < 15


def test_a_child_that_is_killed_costs_one_upload(inspector: Inspector) -> None:
    program = inspector.process_id
    assert program is not None
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(inspect, inspector, HEAVY)
        wait_for(lambda: children_of(program))
        os.kill(children_of(program)[0], signal.SIGSEGV)
        with pytest.raises(AudioUnreadableError):
            future.result(timeout=20)
    assert inspector.process_id == program
    assert inspect(inspector, GOOD).duration_seconds > 3


def test_the_program_is_restarted_when_it_dies(inspector: Inspector) -> None:
    expected = inspect(inspector, GOOD)
    for _ in range(2):
        program = inspector.process_id
        assert program is not None
        os.kill(program, signal.SIGKILL)
        assert inspect(inspector, GOOD) == expected
        assert inspector.process_id != program


def test_the_program_killed_before_it_answered_is_asked_again(inspector: Inspector) -> None:
    program = inspector.process_id
    assert program is not None
    os.kill(program, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(inspect, inspector, GOOD)
        time.sleep(0.1)  # the question is in its socket, unread
        os.kill(program, signal.SIGKILL)
        assert future.result(timeout=30).duration_seconds > 3


def test_a_program_that_hangs_is_replaced() -> None:
    inspector = Inspector(limits=ProcessLimits(wall_seconds=1.0))
    try:
        inspect(inspector, GOOD)
        program = inspector.process_id
        assert program is not None
        os.kill(program, signal.SIGSTOP)
        with pytest.raises(InspectionTimeoutError):
            inspect(inspector, GOOD)
        assert inspect(inspector, GOOD).duration_seconds > 3
        assert not is_alive(program)
    finally:
        inspector.close()


def test_eight_threads_get_their_own_answers(inspector: Inspector) -> None:
    uploads = [encode(speech(4.0 + 0.1 * number, 16_000, seed=number), 16_000) for number in range(8)]
    expected = [inspect(inspector, data).sha256 for data in uploads]
    assert len(set(expected)) == 8
    errors = 0

    def work(number: int) -> list[str]:
        nonlocal errors
        digests = []
        for turn in range(6):
            digests.append(inspect(inspector, uploads[number]).sha256)
            if turn % 3 == number % 3:
                with pytest.raises(UploadRejectedError):
                    inspect(inspector, b"no audio")
        return digests

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [[digest] * 6 for digest in expected]


def test_nothing_is_left_behind(inspector: Inspector) -> None:
    def resident_kb() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    def descriptors(process_id: int | str) -> int:
        return len(os.listdir(f"/proc/{process_id}/fd"))

    program = inspector.process_id
    assert program is not None
    bomb = flac_of_constants(3600)

    def round_trip() -> None:
        inspect(inspector, GOOD)
        for data in (bomb, GOOD[:5000], b"text"):
            with pytest.raises(UploadRejectedError):
                inspect(inspector, data)

    for _ in range(3):
        round_trip()
    gc.collect()
    files, program_files, memory_kb = descriptors("self"), descriptors(program), resident_kb()
    temporary = set(os.listdir(tempfile.gettempdir()))
    for _ in range(20):
        round_trip()
    gc.collect()
    wait_for(lambda: children_of(program) == [])
    assert (descriptors("self"), descriptors(program)) == (files, program_files)
    assert resident_kb() - memory_kb < 20_000
    new = set(os.listdir(tempfile.gettempdir())) - temporary
    assert not [name for name in new if "upload" in name or name.endswith((".wav", ".flac"))]


def test_the_child_holds_nothing_but_the_upload_and_its_answer(inspector: Inspector) -> None:
    program = inspector.process_id
    assert program is not None
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(inspect, inspector, HEAVY)
        wait_for(lambda: children_of(program))
        child = children_of(program)[0]
        # Its limits come last, one after the other: seen too early, a child is still on its way into the sandbox.
        wait_for(lambda: "NoNewPrivs:\t1" in Path(f"/proc/{child}/status").read_text())
        wait_for(lambda: str(1 << 30) in Path(f"/proc/{child}/limits").read_text())
        os.kill(child, signal.SIGSTOP)  # stands still while we look
        try:
            status = Path(f"/proc/{child}/status").read_text()
            limits = Path(f"/proc/{child}/limits").read_text()
            open_files = {
                number: os.readlink(f"/proc/{child}/fd/{number}") for number in os.listdir(f"/proc/{child}/fd")
            }
        finally:
            os.kill(child, signal.SIGCONT)
        with pytest.raises(UploadRejectedError):
            future.result(timeout=60)
    assert set(open_files) == {"0", "1", "2"}
    assert "memfd:upload" in open_files["0"]
    assert open_files["1"].startswith("pipe:")
    assert open_files["2"] == os.devnull
    wait = {line.split("  ")[0]: line for line in limits.splitlines()}
    assert str(1 << 30) in wait["Max address space"]
    assert " 20 " in wait["Max cpu time"]
    assert " 0 " in wait["Max file size"]
    assert "NoNewPrivs:\t1" in status
    if os.geteuid() == 0:
        assert "Uid:\t65534\t65534\t65534\t65534" in status
    secrets = Path(f"/proc/{program}/environ").read_bytes()
    assert {entry.split(b"=")[0] for entry in secrets.split(b"\0") if entry} == {
        b"PATH",
        b"OPENBLAS_NUM_THREADS",
        b"OMP_NUM_THREADS",
    }


def test_the_program_ends_with_the_process_it_serves() -> None:
    script = (
        "import io, sys, time\n"
        "from voices.intake import Inspector\n"
        "inspector = Inspector()\n"
        "inspector.warm_up()\n"
        "print(inspector.process_id, flush=True)\n"
        "time.sleep(60)\n"
    )
    server = subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    program = int(server.stdout.readline())
    assert is_alive(program)
    server.kill()
    server.wait()
    server.stdout.close()
    wait_for(lambda: not is_alive(program))


def test_a_forked_process_has_a_program_of_its_own() -> None:
    script = (
        "import io, os, sys\n"
        "from voices import intake\n"
        "data = sys.stdin.buffer.read()\n"
        "def digest():\n"
        "    file = io.BytesIO(data)\n"
        "    return intake.inspect_upload(file, declared_filename=None, declared_content_type=None).sha256\n"
        "mine, pid = digest(), intake._inspector.process_id\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if digest() == mine and intake._inspector.process_id != pid else 1)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "print(status, digest() == mine, intake._inspector.process_id == pid)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, input=GOOD, capture_output=True, check=True)
    assert done.stdout.split() == [b"0", b"True", b"True"]


def test_the_calling_process_loads_no_decoder() -> None:
    script = (
        "import io, sys\n"
        "from voices.intake import inspect_upload\n"
        "inspect_upload(io.BytesIO(sys.stdin.buffer.read()), declared_filename='a.wav', declared_content_type=None)\n"
        "print([name for name in ('soundfile', 'numpy', 'scipy', 'soxr', 'django') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, input=GOOD, capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


def test_a_ten_second_clip_takes_little_time(inspector: Inspector) -> None:
    data = encode(speech(10.0, 44_100), 44_100)
    times = []
    for _ in range(5):
        started = time.monotonic()
        inspect(inspector, data)
        times.append(time.monotonic() - started)
    assert min(times) < 0.3  # 0.06 s on an idle machine


def test_threads_that_wait_for_each_other_do_not_deadlock() -> None:
    inspector = Inspector(concurrency=1)
    barrier = threading.Barrier(4)

    def work(_: int) -> float:
        barrier.wait()
        return inspect(inspector, GOOD).duration_seconds

    try:
        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(work, range(4)))) == 1
    finally:
        inspector.close()
