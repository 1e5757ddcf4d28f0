"""The espeak worker program and its client: equal bytes, crashes, time limits, no litter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from synthesis.engines.errors import EngineCrashedError, EngineError
from synthesis.engines.parametric import espeak
from synthesis.engines.parametric.espeak import EspeakPool
from synthesis.engines.parametric.languages import LANGUAGES
from synthesis.engines.parametric.source_bank import ESPEAK_VARIANT

SENTENCES = [("Where is the green boat?", "en-us+f5"), ("今天天气很好。", "cmn+f5"), ("Il pleut.", "fr+f5")]
# These have no words for numbers.
LETTERS_ONLY = {"chr-latn": "osiyo", "cv": "салам", "sjn": "mellon"}


@pytest.fixture
def pool() -> Iterator[EspeakPool]:
    made = EspeakPool(2)
    yield made
    made.close()


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not is_true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_language_of_the_table_gives_sound(code: str, every_language_pool: EspeakPool) -> None:
    voice = LANGUAGES[code].espeak_voice + ESPEAK_VARIANT
    speech = every_language_pool.speak(LETTERS_ONLY.get(code, "123"), voice, 165)
    loudness = float(abs(speech.samples.astype(float)).mean())
    assert len(speech.samples) > 0.25 * speech.sample_rate_hz
    assert loudness > 300.0
    assert any(event.kind == "word" for event in speech.events)


@pytest.fixture(scope="module")
def every_language_pool() -> Iterator[EspeakPool]:
    made = EspeakPool(2)
    yield made
    made.close()


def test_equal_requests_give_equal_bytes_over_orders_threads_and_restarts() -> None:
    heard: dict[tuple[str, str], set[bytes]] = {sentence: set() for sentence in SENTENCES}
    for size in (1, 2, 3):
        pool = EspeakPool(size)
        order = [SENTENCES[(index * size + index // 3) % 3] for index in range(60)]
        with ThreadPoolExecutor(4) as threads:
            spoken = threads.map(pool.speak, *zip(*order, strict=True), [165] * len(order))
            for sentence, speech in zip(order, spoken, strict=True):
                heard[sentence].add(speech.samples.tobytes() + repr(speech.events).encode())
        pool.close()
    assert [len(versions) for versions in heard.values()] == [1, 1, 1]


def test_bytes_do_not_depend_on_the_worker_environment(pool: EspeakPool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = pool.speak(*SENTENCES[0], 165).samples.tobytes()
    monkeypatch.setattr(espeak, "_ENVIRONMENT", {"PADDING": "x" * 9_000, "LC_ALL": "C"})
    other = EspeakPool(1)
    assert other.speak(*SENTENCES[0], 165).samples.tobytes() == expected
    other.close()


def test_an_unknown_voice_is_an_error_and_not_the_voice_before(pool: EspeakPool) -> None:
    pool.speak("one", "fr+f5", 165)
    with pytest.raises(EngineError) as caught:
        pool.speak("one", "no-such-voice", 165)
    assert caught.value.details["reason"] == "unknown_voice"
    assert not caught.value.retryable


def test_a_killed_worker_costs_one_request(pool: EspeakPool) -> None:
    expected = pool.speak(*SENTENCES[0], 165).samples.tobytes()
    (pid,) = pool.worker_pids
    os.kill(pid, signal.SIGSTOP)  # the call below is under way when the worker dies
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(pool.speak, *SENTENCES[0], 165)
        time.sleep(0.2)
        assert not call.done()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineCrashedError) as caught:
            call.result(timeout=10)
    assert caught.value.retryable
    assert pool.speak(*SENTENCES[0], 165).samples.tobytes() == expected
    assert pid not in pool.worker_pids
    assert not Path(f"/proc/{pid}").exists()  # reaped, no zombie


def test_a_worker_that_died_while_idle_costs_nothing(pool: EspeakPool) -> None:
    expected = pool.speak(*SENTENCES[0], 165).samples.tobytes()
    (pid,) = pool.worker_pids
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))
    assert pool.speak(*SENTENCES[0], 165).samples.tobytes() == expected


def test_a_worker_that_hangs_is_killed_at_the_deadline() -> None:
    pool = EspeakPool(1, timeout_seconds=0.5)
    pool.speak("one", "en-us+f5", 165)
    (pid,) = pool.worker_pids
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(EngineCrashedError):
        pool.speak("two", "en-us+f5", 165)
    assert time.monotonic() - started < 3.0
    assert not Path(f"/proc/{pid}").exists()
    pool.speak("three", "en-us+f5", 165)
    pool.close()


def test_closing_ends_the_workers_and_leaves_no_descriptors() -> None:
    before = len(os.listdir("/proc/self/fd"))
    pool = EspeakPool(2)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda said: pool.speak(said[0], said[1], 165), SENTENCES * 4))
    pids = pool.worker_pids
    assert 1 <= len(pids) <= 2
    pool.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(EngineError):
        pool.speak("one", "en-us+f5", 165)


def test_no_more_workers_than_asked_for() -> None:
    pool = EspeakPool(1)
    barrier = threading.Barrier(4)

    def call(_: int) -> int:
        barrier.wait()
        pool.speak(*SENTENCES[0], 165)
        return len(pool.worker_pids)

    with ThreadPoolExecutor(4) as threads:
        assert max(threads.map(call, range(4))) == 1
    pool.close()


def test_workers_end_when_their_client_is_killed() -> None:
    program = (
        "import sys, time\n"
        "from synthesis.engines.parametric.espeak import EspeakPool\n"
        "pool = EspeakPool(1)\n"
        "pool.speak('one', 'en-us+f5', 165)\n"
        "print(pool.worker_pids[0], flush=True)\n"
        "time.sleep(60)\n"
    )
    root = Path(espeak.__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        pid = int(client.stdout.readline())
        assert is_running(pid)
        client.kill()
    wait_until(lambda: not is_running(pid))


def test_a_forked_client_speaks_with_workers_of_its_own(pool: EspeakPool) -> None:
    expected = pool.speak(*SENTENCES[0], 165).samples.tobytes()
    pids = pool.worker_pids
    child = os.fork()
    if child == 0:
        status = 1
        try:
            same = pool.speak(*SENTENCES[0], 165).samples.tobytes() == expected
            status = 0 if same and not set(pids) & set(pool.worker_pids) else 2
            pool.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.speak(*SENTENCES[0], 165).samples.tobytes() == expected
    assert pool.worker_pids == pids


def test_the_worker_program_is_apart_from_the_rest() -> None:
    source = espeak.WORKER_PROGRAM.read_text()
    assert "SPDX-License-Identifier: GPL-3.0-or-later" in source
    assert "import synthesis" not in source
    assert "from synthesis" not in source
    licence = (espeak.WORKER_PROGRAM.parent / "COPYING").read_text()
    assert "GNU GENERAL PUBLIC LICENSE" in licence
    assert not (espeak.WORKER_PROGRAM.parent / "__init__.py").exists()  # nobody imports it
