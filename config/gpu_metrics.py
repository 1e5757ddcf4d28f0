"""The devices of a worker's machine as NVML sees them.

Without `nvidia-ml-py` (the module `pynvml`), a driver or a device there are no such numbers, and nobody is told.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_LABELS: Final = ("gpu", "uuid")  # by its uuid a device counts once where several workers share a machine


class GpuCollector(Collector):
    """Asks at every scrape. Utilisation says that some kernel ran, not how full the device was."""

    def __init__(self) -> None:
        self._nvml = _open_nvml()

    def collect(self) -> Iterator[Metric]:
        if self._nvml is None:
            return
        nvml = self._nvml
        utilization = GaugeMetricFamily("cantoria_gpu_utilization_ratio", "Time with a kernel.", labels=_LABELS)
        used = GaugeMetricFamily("cantoria_gpu_memory_used_bytes", "Memory in use, of all processes.", labels=_LABELS)
        total = GaugeMetricFamily("cantoria_gpu_memory_total_bytes", "Memory of the device.", labels=_LABELS)
        temperature = GaugeMetricFamily("cantoria_gpu_temperature_celsius", "Of the chip.", labels=_LABELS)
        power = GaugeMetricFamily("cantoria_gpu_power_watts", "Drawn now.", labels=_LABELS)
        questions: tuple[tuple[GaugeMetricFamily, Callable[[Any], float]], ...] = (
            (utilization, lambda d: nvml.nvmlDeviceGetUtilizationRates(d).gpu / 100),
            (used, lambda d: nvml.nvmlDeviceGetMemoryInfo(d).used),
            (total, lambda d: nvml.nvmlDeviceGetMemoryInfo(d).total),
            (temperature, lambda d: nvml.nvmlDeviceGetTemperature(d, nvml.NVML_TEMPERATURE_GPU)),
            (power, lambda d: nvml.nvmlDeviceGetPowerUsage(d) / 1000),
        )
        for index, device, uuid in self._devices():
            for family, ask in questions:
                try:
                    family.add_metric((str(index), uuid), ask(device))
                except nvml.NVMLError:
                    continue  # a part of a card, or a virtual one, answers some of these questions only
        yield from (utilization, used, total, temperature, power)

    def _devices(self) -> Iterator[tuple[int, Any, str]]:
        assert self._nvml is not None
        try:
            for index in range(self._nvml.nvmlDeviceGetCount()):
                device = self._nvml.nvmlDeviceGetHandleByIndex(index)
                yield index, device, str(self._nvml.nvmlDeviceGetUUID(device))
        except self._nvml.NVMLError:
            return  # the driver is being replaced, or a card fell off the bus


def _open_nvml() -> Any:
    """NVML, initialised once for the process; None where there is nothing to ask."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml
