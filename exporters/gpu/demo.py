"""Cards that are not there, for those who have none: a busy one, one cut into MIG instances, and one that was lost."""

import math
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from exporters.gpu.families import (
    CLOCK,
    CRITICAL_XIDS,
    DECODER_UTILIZATION,
    DRAM_ACTIVE,
    ECC_ERRORS,
    ENCODER_UTILIZATION,
    ENERGY,
    INFO,
    MEMORY_FREE,
    MEMORY_RESERVED,
    MEMORY_TOTAL,
    MEMORY_USED,
    MEMORY_UTILIZATION,
    MIG_INFO,
    MIG_MEMORY_FREE,
    MIG_MEMORY_TOTAL,
    MIG_MEMORY_USED,
    NVLINK_ERRORS,
    NVLINK_RX,
    NVLINK_TX,
    NVLINK_UP,
    PCIE_GENERATION,
    PCIE_REPLAYS,
    PCIE_RX,
    PCIE_TX,
    PCIE_WIDTH,
    POWER,
    POWER_LIMIT,
    PROCESS_MEMORY,
    PROCESSES,
    REMAPPED_ROWS,
    ROW_REMAP_FAILURE,
    ROW_REMAP_PENDING,
    SM_ACTIVE,
    SM_OCCUPANCY,
    TEMPERATURE,
    TEMPERATURE_LIMIT,
    TENSOR_ACTIVE,
    THROTTLE,
    THROTTLE_REASONS,
    UTILIZATION,
    XID_ERRORS,
    XID_LAST,
)
from exporters.gpu.samples import Reading, Sample, card_metrics, driver_metrics

GIB = 2**30
SINCE = 1.75e9  # when these cards began to count


def demo(at: float) -> Iterator[Metric]:
    """One busy card, one cut into MIG instances, one that fell off the bus."""
    yield from driver_metrics(None, ("demo-590.48", "13.1"))
    yield from card_metrics(
        {
            "demo-gpu-0": Reading((*_card(at, 0, 0.6), *_activity(at, 0, 0.6), *_links(at), *_processes(at))),
            "demo-gpu-1": Reading((*_card(at, 1, 0.2), *_mig(at))),
            "demo-gpu-2": Reading(down="lost"),
        }
    )
    counts, last = XID_ERRORS.metric(), XID_LAST.metric()
    for uuid in ("demo-gpu-0", "demo-gpu-1", "demo-gpu-2"):
        for xid in CRITICAL_XIDS:
            counts.add_metric((uuid, str(xid)), 1 if (uuid, xid) == ("demo-gpu-2", 79) else 0)
    counts.add_metric(("demo-gpu-0", "31"), int((at - SINCE) / 600))
    last.add_metric(("demo-gpu-0", "31"), at - (at - SINCE) % 600)
    last.add_metric(("demo-gpu-2", "79"), at - at % 86400)
    yield from (counts, last)


def _wave(at: float, place: int, middle: float, swing: float = 0.3) -> float:
    """Between `middle` ± `swing`, once around in half an hour."""
    return middle + swing * math.sin(at / 1800 * 2 * math.pi + place)


def _card(at: float, place: int, busy: float) -> Iterator[Sample]:
    load = max(0.0, _wave(at, place, busy))
    total, reserved = 80 * GIB, 0.5 * GIB
    used = (0.2 + 0.6 * load) * (total - reserved)
    yield INFO, (f"demo-card {place}", str(place), f"00000000:0{place + 1}:00.0", "9.0"), 1
    yield UTILIZATION, (), min(1.0, load * 1.1)
    yield MEMORY_UTILIZATION, (), load * 0.5
    yield ENCODER_UTILIZATION, (), load * 0.2
    yield DECODER_UTILIZATION, (), load * 0.3
    yield MEMORY_TOTAL, (), total
    yield MEMORY_USED, (), used
    yield MEMORY_FREE, (), total - reserved - used
    yield MEMORY_RESERVED, (), reserved
    yield POWER, (), 80 + 600 * load
    yield POWER_LIMIT, (), 700
    yield ENERGY, (), 300 * (at - SINCE)
    yield TEMPERATURE, ("gpu",), 35 + 45 * load
    yield TEMPERATURE, ("memory",), 40 + 45 * load
    yield TEMPERATURE_LIMIT, ("slowdown",), 87
    yield TEMPERATURE_LIMIT, ("shutdown",), 92
    for domain, hertz in (("graphics", 1.98e9), ("sm", 1.98e9), ("memory", 2.619e9), ("video", 1.545e9)):
        yield CLOCK, (domain,), hertz
    for reason in THROTTLE_REASONS.values():
        yield THROTTLE, (reason,), 1 if (reason, True) in (("sw_power_cap", load > 0.8), ("idle", load < 0.05)) else 0
    for kind in ("corrected", "uncorrected"):
        for scope in ("volatile", "aggregate"):
            yield ECC_ERRORS, (kind, scope), int((at - SINCE) / 86400) if kind == "corrected" else 0
    yield REMAPPED_ROWS, ("corrected",), 1
    yield REMAPPED_ROWS, ("uncorrected",), 0
    yield ROW_REMAP_PENDING, (), 0
    yield ROW_REMAP_FAILURE, (), 0
    yield PCIE_TX, (), 2e9 * load
    yield PCIE_RX, (), 6e9 * load
    yield PCIE_GENERATION, (), 5
    yield PCIE_WIDTH, (), 16
    yield PCIE_REPLAYS, (), int((at - SINCE) / 600)
    yield PROCESSES, (), 2


def _activity(at: float, place: int, busy: float) -> Iterator[Sample]:
    load = max(0.0, _wave(at, place, busy))
    yield SM_ACTIVE, (), load * 0.9
    yield SM_OCCUPANCY, (), load * 0.5
    yield TENSOR_ACTIVE, (), load * 0.4
    yield DRAM_ACTIVE, (), load * 0.6


def _links(at: float) -> Iterator[Sample]:
    for link in range(4):
        yield NVLINK_UP, (str(link),), 1
    for kind in ("crc_flit", "crc_data", "replay", "recovery"):
        yield NVLINK_ERRORS, (kind,), int((at - SINCE) / 86400) if kind == "replay" else 0
    yield NVLINK_TX, (), 4e8 * (at - SINCE)
    yield NVLINK_RX, (), 3e8 * (at - SINCE)


def _mig(at: float) -> Iterator[Sample]:
    for instance, profile, total in (("1", "3g.40gb", 40 * GIB), ("2", "4g.40gb", 40 * GIB)):
        used = max(0.05, _wave(at, int(instance), 0.4)) * total
        yield MIG_INFO, (instance, "0", f"demo-mig-{instance}", profile), 1
        yield MIG_MEMORY_TOTAL, (instance,), total
        yield MIG_MEMORY_USED, (instance,), used
        yield MIG_MEMORY_FREE, (instance,), total - used


def _processes(at: float) -> Iterator[Sample]:
    for place, (pid, name, pod) in enumerate(
        (("4711", "python3", "demo-trainer-0"), ("4712", "vllm", "demo-vllm-7d9f"))
    ):
        yield PROCESS_MEMORY, (pid, name, "demo", pod), max(0.05, _wave(at, place, 0.3, 0.1)) * 80 * GIB
