"""What Prometheus can see: numbers move with what they count, labels stay few, each kind of process shows its own."""

from __future__ import annotations

import datetime as dt
import os
import socket
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import Settings

from billing.models import LedgerEntry
from config import gpu_metrics
from config import metrics as exposed
from config.supervisor import environment_for
from synthesis import prompts, services, worker
from synthesis.contracts import BATCH_QUEUE, SPEECH_QUEUE
from synthesis.engines.errors import EngineError
from synthesis.engines.fake import FakeEngine
from synthesis.management.commands.dispatch_jobs import Dispatcher
from synthesis.metrics import PromptLevel, QueueState, count_job
from synthesis.models import JobKind
from synthesis.selectors import measure_queues
from synthesis.services import LEASE
from tenants.redis import Breaker
from tenants.scoping import tenant_scope
from tests.synthesis.jobs import TEXT, Customer, must_claim, work
from tests.synthesis.serving import serving, working

CURRENCY = "EUR"  # of the plan that the first migration brings
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("database")


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Increase:
    """How much a sample grows from here on."""

    def __init__(self, name: str, **labels: str) -> None:
        self._of = (name, labels)
        self._before = value(name, **labels)

    def __call__(self) -> float:
        name, labels = self._of
        return value(name, **labels) - self._before


def test_a_job_is_counted_from_its_claim_to_its_price(customer: Customer) -> None:
    succeeded = Increase("cantoria_jobs_total", kind="batch", status="succeeded", code="")
    waits = Increase("cantoria_job_wait_seconds_count", kind="batch")
    waited = Increase("cantoria_job_wait_seconds_sum", kind="batch")
    sound = Increase("cantoria_audio_seconds_total", engine="parametric")
    factors = Increase("cantoria_render_real_time_factor_count", engine="parametric")
    engine_seconds = Increase("cantoria_engine_seconds_total", engine="parametric", kind="batch")
    settled = Increase("cantoria_settled_micros_total", currency=CURRENCY)
    job = customer.submit()
    time.sleep(0.3)
    assert work() == 1
    done = customer.job(job.id)
    assert done.audio_frames is not None
    assert (succeeded(), waits(), factors()) == (1, 1, 1)
    assert 0.3 <= waited() < 30
    assert sound() == pytest.approx(done.audio_frames / 24_000)
    assert engine_seconds() > 0
    assert settled() == charge_micros(customer) > 0


def charge_micros(customer: Customer) -> int:
    with tenant_scope(customer.tenant.id):
        return sum(entry.amount_micros for entry in LedgerEntry.objects.all())


def test_a_failure_is_counted_with_its_code_and_nothing_is_settled(customer: Customer, engine: FakeEngine) -> None:
    class HopelessError(EngineError):
        code = "hopeless"
        retryable = False

    failed = Increase("cantoria_jobs_total", kind="batch", status="failed", code="hopeless")
    settled = Increase("cantoria_settled_micros_total", currency=CURRENCY)
    worker.use_engine(Failing(engine, HopelessError("It cannot be said.")))
    customer.submit()
    work()
    assert (failed(), settled()) == (1, 0)


class Failing:
    """An engine that fails at every text."""

    def __init__(self, engine: FakeEngine, error: EngineError) -> None:
        self._engine, self._error = engine, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def synthesize(self, *_: Any, **__: Any) -> Iterator[Any]:
        raise self._error


def test_what_is_rolled_back_is_not_counted(customer: Customer) -> None:
    cancelled = Increase("cantoria_jobs_total", kind="batch", status="cancelled", code="")
    job = customer.submit()
    with pytest.raises(RuntimeError), transaction.atomic():
        services.cancel_job(tenant_id=customer.tenant.id, job_id=job.id)
        raise RuntimeError
    assert cancelled() == 0
    services.cancel_job(tenant_id=customer.tenant.id, job_id=job.id)
    assert cancelled() == 1


def test_a_code_that_is_none_of_ours_makes_no_label() -> None:
    count_job(kind="batch", status="failed", code="Text of a customer!")
    assert value("cantoria_jobs_total", kind="batch", status="failed", code="other") >= 1
    assert "Text of a customer" not in exposition()


def test_a_lost_lease_is_counted_by_who_notices(customer: Customer) -> None:
    by_dispatcher = Increase("cantoria_leases_lost_total", noticed_by="dispatcher")
    job = customer.submit()
    must_claim()
    customer.change(job.id, lease_until=Now() - LEASE)
    services.reap_jobs()
    assert by_dispatcher() == 1


def test_voices_are_counted_by_where_they_were_found(customer: Customer, redis_client: Any) -> None:
    loads = {level: Increase("cantoria_prompt_loads_total", level=level.value) for level in PromptLevel}

    def speak() -> list[float]:
        customer.submit()
        assert work() == 1
        return [loads[level]() for level in PromptLevel]

    assert speak() == [1, 0, 0, 0]
    prompts.memory.clear()
    redis_client.delete(prompts.redis_key(customer.tenant.id, customer.voice_id))
    assert speak() == [1, 0, 1, 0]  # and is in Redis again
    prompts.memory.clear()
    assert speak() == [1, 1, 1, 0]
    worker.use_engine(NewVersion())
    assert speak() == [1, 1, 1, 1]


class NewVersion(FakeEngine):
    """The same beep from an engine that learns voices differently."""

    @property
    def version(self) -> str:
        return "another"


def test_the_first_byte_is_measured_warm_and_cold(customer: Customer, settings: Settings) -> None:
    def first_bytes(start: str, **labels: str) -> Increase:
        return Increase("cantoria_first_audio_seconds_count", start=start, **labels)

    warm = first_bytes("warm", kind="stream", text="short")
    cold = first_bytes("cold", kind="stream", text="long")
    whole = first_bytes("cold", kind="whole", text="short")
    seconds = Increase("cantoria_first_audio_seconds_sum", start="warm", kind="stream", text="short")

    def speak(server: str, text: str, **changes: Any) -> None:
        answer = httpx.post(f"{server}/v1/speech", json=customer.body(text, **changes), headers=customer.headers)
        assert answer.status_code == 200
        assert answer.content

    with serving(settings) as server, working():
        speak(server, TEXT)
        assert (warm(), cold(), whole()) == (1, 0, 0)
        assert 0 < seconds() < 10
        prompts.memory.clear()
        speak(server, " ".join([TEXT] * 5))
        assert (warm(), cold(), whole()) == (1, 1, 0)
        speak(server, TEXT, format="flac")
        assert (warm(), cold(), whole()) == (1, 1, 1)
    assert value("cantoria_stream_listeners") == 0


def test_queues_are_measured_over_all_tenants(customer: Customer) -> None:
    assert measure_queues() == {SPEECH_QUEUE: QueueState(0, 0.0, 0), BATCH_QUEUE: QueueState(0, 0.0, 0)}
    waiting, running, later = customer.submit(), customer.submit(), customer.submit()
    customer.change(running.id, created_at=F("created_at") - dt.timedelta(hours=1))
    assert must_claim().job_id == running.id
    customer.change(waiting.id, run_after=F("run_after") - dt.timedelta(seconds=90))
    customer.change(later.id, run_after=F("run_after") + dt.timedelta(seconds=90))
    before = time.time()
    Dispatcher().run_round()
    assert value("cantoria_queue_due_jobs", queue=BATCH_QUEUE) == 1
    assert 90 <= value("cantoria_queue_oldest_due_seconds", queue=BATCH_QUEUE) < 100
    assert value("cantoria_queue_running_jobs", queue=BATCH_QUEUE) == 1
    assert value("cantoria_queue_due_jobs", queue=SPEECH_QUEUE) == 0
    assert value("cantoria_dispatcher_round_timestamp_seconds") >= before


def test_a_round_that_fails_does_not_count_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> int:
        raise psycopg.OperationalError

    monkeypatch.setattr(services, "reap_jobs", fail)
    before = value("cantoria_dispatcher_round_timestamp_seconds")
    with pytest.raises(psycopg.OperationalError):
        Dispatcher().run_round()
    assert value("cantoria_dispatcher_round_timestamp_seconds") == before


def test_the_breaker_shows_until_when_it_is_open() -> None:
    openings = Increase("cantoria_redis_breaker_openings_total")
    breaker = Breaker()
    for _ in range(5):
        breaker.failed()
    assert openings() == 1
    assert 0 < value("cantoria_redis_breaker_open_until_seconds") - time.time() <= 2


# --- where they are shown --------------------------------------------------------------------------


def exposition() -> str:
    return generate_latest(exposed.exposition()).decode()


def test_build_and_workers_are_asked_at_the_scrape(settings: Settings) -> None:
    settings.BUILD_REVISION = "abc123"
    text = exposition()
    assert 'cantoria_build_info{engine="parametric",process="manage"' in text
    assert 'revision="abc123"' in text
    assert "cantoria_live_workers 0.0" in text


def test_no_label_names_a_tenant_or_what_it_sent(customer: Customer) -> None:
    job = customer.submit()
    work()
    text = exposition()
    for identity in (customer.tenant.id, customer.tenant.slug, customer.voice_id, job.id):
        assert str(identity) not in text


def test_values_of_every_label_are_few(customer: Customer) -> None:
    allowed = {
        "kind": {*JobKind.values, "stream", "whole"},
        "status": None,
        "route": None,  # templates of the URL table
        "method": {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "OTHER"},
        "code": None,
        "queue": {SPEECH_QUEUE, BATCH_QUEUE},
        "level": set(PromptLevel),
        "start": {"warm", "cold"},
        "text": {"short", "long"},
        "noticed_by": {"worker", "dispatcher"},
        "currency": None,
        "engine": {"parametric", "gpt_sovits"},
    }
    technical = {"le", "version", "revision", "process", "python", "generation", "implementation"}
    technical |= {"major", "minor", "patchlevel"}
    for family in text_string_to_metric_families(exposition()):
        for sample in family.samples:
            for label, found in sample.labels.items():
                assert label in allowed.keys() | technical, (sample.name, label)
                values = allowed.get(label)
                assert values is None or found in values, (sample.name, label, found)


PROGRAM = """
import os, sys, time, urllib.request
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings.test"
import django
from config.settings import test
test.CANTORIA_PROCESS = sys.argv[1]
test.METRICS_PORT = int(sys.argv[2])
django.setup()
if sys.argv[1] == "worker":
    from celery.signals import worker_init  # the tasks, which would load the engine, are not imported yet
    worker_init.send(sender=None)
print(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[2]}/metrics").read().decode())
"""


@pytest.mark.parametrize("kind", ["worker", "dispatcher"])
def test_a_process_without_http_serves_its_numbers_on_the_loopback(kind: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, str(free_port())], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert f'process="{kind}"' in result.stdout
    assert "cantoria_prompt_loads_total" in result.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nothing_listens_unasked_and_a_taken_port_is_no_reason_to_stop(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings.METRICS_PORT = taken.getsockname()[1]
        exposed.serve_metrics()
    started: list[int] = []
    monkeypatch.setattr(exposed, "start_http_server", lambda port, **_: started.append(port))
    settings.METRICS_PORT = 0
    exposed.serve_metrics()
    assert started == []


def test_worker_and_dispatcher_of_one_machine_do_not_want_the_same_port() -> None:
    ports = {kind: environment_for(kind, {"METRICS_PORT": "9101"})["METRICS_PORT"] for kind in ("worker", "dispatcher")}
    assert ports == {"worker": "9101", "dispatcher": "9102"}
    assert "METRICS_PORT" not in environment_for("dispatcher", {})


WRITER = """
import sys, time
sys.path.insert(0, ".")
from synthesis import metrics
metrics.count_job(kind="speech", status="succeeded", code="")
metrics.add_listeners(2)
print("written", flush=True)
sys.stdin.read()
"""


def test_web_processes_of_one_port_are_added_up_and_the_dead_leave(tmp_path: Path) -> None:
    environment = {**os.environ, exposed.MULTIPROCESS_VARIABLE: str(tmp_path)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "written\n"
        assert merged(tmp_path) == {"jobs": 2, "listeners": 4}
        writers[0].kill()
        writers[0].wait()
        assert merged(tmp_path) == {"jobs": 2, "listeners": 2}
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def merged(folder: Path) -> dict[str, float]:
    families = {family.name: family for family in exposed._Siblings(folder).collect()}
    return {
        "jobs": sum(sample.value for sample in families["cantoria_jobs"].samples),
        "listeners": sum(sample.value for sample in families["cantoria_stream_listeners"].samples),
    }


# --- the device ------------------------------------------------------------------------------------


class FakeNvmlError(Exception):
    pass


def fake_nvml(*, devices: int, knows_power: bool = True) -> types.ModuleType:
    nvml: Any = types.ModuleType("pynvml")
    nvml.NVMLError = FakeNvmlError
    nvml.NVML_TEMPERATURE_GPU = 0

    def power(device: int) -> int:
        if not knows_power:
            raise FakeNvmlError
        return 250_000

    nvml.nvmlInit = lambda: None
    nvml.nvmlDeviceGetCount = lambda: devices
    nvml.nvmlDeviceGetHandleByIndex = lambda index: index
    nvml.nvmlDeviceGetUUID = lambda device: f"GPU-{device}"
    nvml.nvmlDeviceGetUtilizationRates = lambda device: types.SimpleNamespace(gpu=87)
    nvml.nvmlDeviceGetMemoryInfo = lambda device: types.SimpleNamespace(used=3 << 30, total=8 << 30)
    nvml.nvmlDeviceGetTemperature = lambda device, sensor: 64
    nvml.nvmlDeviceGetPowerUsage = power
    module: types.ModuleType = nvml
    return module


def gpu_samples() -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels["gpu"]): sample.value
        for family in gpu_metrics.GpuCollector().collect()
        for sample in family.samples
    }


def test_devices_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(devices=2))
    samples = gpu_samples()
    assert samples["cantoria_gpu_utilization_ratio", "1"] == 0.87
    assert samples["cantoria_gpu_memory_used_bytes", "0"] == 3 << 30
    assert samples["cantoria_gpu_memory_total_bytes", "0"] == 8 << 30
    assert samples["cantoria_gpu_temperature_celsius", "0"] == 64
    assert samples["cantoria_gpu_power_watts", "0"] == 250


def test_a_device_that_hides_its_power_shows_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(devices=1, knows_power=False))
    assert {name for name, _ in gpu_samples()} == {
        "cantoria_gpu_utilization_ratio",
        "cantoria_gpu_memory_used_bytes",
        "cantoria_gpu_memory_total_bytes",
        "cantoria_gpu_temperature_celsius",
    }


def test_without_a_library_or_a_driver_there_are_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_samples() == {}
    broken: Any = fake_nvml(devices=1)

    def no_driver() -> None:
        raise FakeNvmlError

    broken.nvmlInit = no_driver
    monkeypatch.setitem(sys.modules, "pynvml", broken)
    assert gpu_samples() == {}
