"""One card, read through NVML: what the card does not know is left out, and not asked for again for a while."""

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from exporters.families import Family
from exporters.gpu.families import (
    CLOCK,
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
)
from exporters.gpu.samples import Reading, Sample
from exporters.labels import clean

T = TypeVar("T")

REMEMBER_SECONDS = 600.0  # that a card does not know something; switching MIG on or off changes what it knows
SHORTEST_WINDOW_SECONDS, LONGEST_WINDOW_SECONDS = 0.5, 600.0  # over which activity is measured

# Error codes of NVML.
LOST = {15: "lost", 28: "lost", 16: "reset_required"}
DRIVER_GONE = {1: "error", 9: "driver_not_loaded", 12: "library_not_found", 18: "version_mismatch"}
NO_PERMISSION = 4
NEVER = {3, NO_PERMISSION, 13, 22, 25, 26}  # not supported, not permitted, unknown to this driver
NOT_NOW = {2, 6, 7, 21, 27}  # no data, nothing found, the list grew between two calls


class CardDownError(Exception):
    """The card itself does not work. `str()`: the reason, of `CARD_PROBLEMS`."""


class DriverDownError(Exception):
    """The driver does not work. `reason`: of `DRIVER_PROBLEMS`; `str()`: a sentence."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True)
class Question:
    """`calls`: functions of NVML and their arguments after the card; the first that the driver and the card know."""

    calls: tuple[tuple[str, tuple[int, ...]], ...]
    tell: Callable[[Any], Sequence[Sample]]


def _ask(call: str, *arguments: int, tell: Callable[[Any], Sequence[Sample]]) -> Question:
    return Question(((call, arguments),), tell)


def _clock(domain: str) -> Callable[[int], Sequence[Sample]]:
    return lambda megahertz: [(CLOCK, (domain,), megahertz * 1e6)]


def _memory(memory: Any) -> list[Sample]:
    samples: list[Sample] = [
        (MEMORY_TOTAL, (), memory.total),
        (MEMORY_USED, (), memory.used),
        (MEMORY_FREE, (), memory.free),
    ]
    if hasattr(memory, "reserved"):
        samples.append((MEMORY_RESERVED, (), memory.reserved))
    return samples


def _throttle(bits: int) -> list[Sample]:
    return [(THROTTLE, (reason,), 1 if bits & bit else 0) for bit, reason in THROTTLE_REASONS.items()]


QUESTIONS = (
    _ask(
        "nvmlDeviceGetUtilizationRates",
        tell=lambda rates: [(UTILIZATION, (), rates.gpu / 100), (MEMORY_UTILIZATION, (), rates.memory / 100)],
    ),
    _ask("nvmlDeviceGetEncoderUtilization", tell=lambda answer: [(ENCODER_UTILIZATION, (), answer[0] / 100)]),
    _ask("nvmlDeviceGetDecoderUtilization", tell=lambda answer: [(DECODER_UTILIZATION, (), answer[0] / 100)]),
    Question((("nvmlDeviceGetMemoryInfo", (0x02000028,)), ("nvmlDeviceGetMemoryInfo", ())), _memory),
    _ask("nvmlDeviceGetPowerUsage", tell=lambda milliwatts: [(POWER, (), milliwatts / 1000)]),
    _ask("nvmlDeviceGetEnforcedPowerLimit", tell=lambda milliwatts: [(POWER_LIMIT, (), milliwatts / 1000)]),
    _ask("nvmlDeviceGetTemperature", 0, tell=lambda celsius: [(TEMPERATURE, ("gpu",), celsius)]),
    _ask("nvmlDeviceGetClockInfo", 0, tell=_clock("graphics")),
    _ask("nvmlDeviceGetClockInfo", 1, tell=_clock("sm")),
    _ask("nvmlDeviceGetClockInfo", 2, tell=_clock("memory")),
    _ask("nvmlDeviceGetClockInfo", 3, tell=_clock("video")),
    Question(
        (("nvmlDeviceGetCurrentClocksEventReasons", ()), ("nvmlDeviceGetCurrentClocksThrottleReasons", ())), _throttle
    ),
    _ask("nvmlDeviceGetCurrPcieLinkGeneration", tell=lambda number: [(PCIE_GENERATION, (), number)]),
    _ask("nvmlDeviceGetCurrPcieLinkWidth", tell=lambda lanes: [(PCIE_WIDTH, (), lanes)]),
)
# Each takes the driver 20 ms; asked only where the card does not measure it by itself.
PCIE_QUESTIONS = (
    _ask("nvmlDeviceGetPcieThroughput", 0, tell=lambda kilobytes: [(PCIE_TX, (), kilobytes * 1000)]),
    _ask("nvmlDeviceGetPcieThroughput", 1, tell=lambda kilobytes: [(PCIE_RX, (), kilobytes * 1000)]),
)
FIXED_QUESTIONS = (
    _ask("nvmlDeviceGetTemperatureThreshold", 0, tell=lambda celsius: [(TEMPERATURE_LIMIT, ("shutdown",), celsius)]),
    _ask("nvmlDeviceGetTemperatureThreshold", 1, tell=lambda celsius: [(TEMPERATURE_LIMIT, ("slowdown",), celsius)]),
)

ALL_LINKS = 0xFFFFFFFF
# (field, scope) of nvmlDeviceGetFieldValues, all of which are one call -> what it is, and the factor to base units.
FIELDS: Mapping[tuple[int, int], tuple[Family, tuple[str, ...], float]] = {
    (3, 0): (ECC_ERRORS, ("corrected", "volatile"), 1),
    (4, 0): (ECC_ERRORS, ("uncorrected", "volatile"), 1),
    (5, 0): (ECC_ERRORS, ("corrected", "aggregate"), 1),
    (6, 0): (ECC_ERRORS, ("uncorrected", "aggregate"), 1),
    (82, 0): (TEMPERATURE, ("memory",), 1),
    (83, 0): (ENERGY, (), 1e-3),
    (94, 0): (PCIE_REPLAYS, (), 1),
    (142, 0): (REMAPPED_ROWS, ("corrected",), 1),
    (143, 0): (REMAPPED_ROWS, ("uncorrected",), 1),
    (144, 0): (ROW_REMAP_PENDING, (), 1),
    (145, 0): (ROW_REMAP_FAILURE, (), 1),
    (38, 0): (NVLINK_ERRORS, ("crc_flit",), 1),
    (45, 0): (NVLINK_ERRORS, ("crc_data",), 1),
    (52, 0): (NVLINK_ERRORS, ("replay",), 1),
    (59, 0): (NVLINK_ERRORS, ("recovery",), 1),
    (138, ALL_LINKS): (NVLINK_TX, (), 1024),
    (139, ALL_LINKS): (NVLINK_RX, (), 1024),
}
LINK_COUNT = 91  # a field as well
LINK_ERRORS = {161: "replay", 162: "recovery", 163: "crc"}  # of one link each, where there are no totals: since Hopper
FIELD_VALUES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by the number of the value's type

# Metrics of GPM -> the factor to base units.
ACTIVITY: Mapping[int, tuple[Family, float]] = {
    2: (SM_ACTIVE, 0.01),
    3: (SM_OCCUPANCY, 0.01),
    5: (TENSOR_ACTIVE, 0.01),
    10: (DRAM_ACTIVE, 0.01),
    20: (PCIE_TX, 2**20),
    21: (PCIE_RX, 2**20),
}


class Card:
    """A card as NVML has it between two initialisations. `read()` may hang; one thread at a time.

    `owned`: memory by process -> what to say of it; None: nothing is said of single processes.
    """

    def __init__(
        self,
        nvml: Any,
        handle: Any,
        uuid: str,
        index: int,
        owned: Callable[[Mapping[int, int]], Sequence[Sample]] | None,
    ) -> None:
        self.uuid, self.handle = uuid, handle
        self._nvml, self._index, self._owned = nvml, index, owned
        self._unknown: dict[str, float] = {}  # what the card does not know -> until when it is not asked
        self._problems: list[str] = []
        self._fixed: list[Sample] = []
        self._knows_fixed = False  # all of them, so that they are not asked for again
        self._window: tuple[Any, float] | None = None  # the sample of activity before, and its time.monotonic()
        self._active: list[Sample] = []  # what was measured up to it
        self._links = 0

    def read(self) -> Reading:
        """Everything. Raises DriverDownError."""
        self._problems = []
        try:
            samples = list(self._samples())
        except CardDownError as down:
            return Reading(down=str(down))
        problems = tuple(f"{self.uuid}: {problem}" for problem in self._problems)
        return Reading(
            tuple(samples), problems, down="error" if problems and len(samples) <= len(self._fixed) else None
        )

    def _samples(self) -> Iterator[Sample]:
        if not self._knows_fixed:
            self._fixed = [self._info(), *self._answers(FIXED_QUESTIONS)]
            self._links = self._try("links", self._count_links) or 0
            self._knows_fixed = not self._problems
        yield from self._fixed
        yield from self._answers(QUESTIONS)
        fields = self._try("fields", self._fields) or []
        yield from fields
        if self._links and not any(family is NVLINK_ERRORS for family, _, _ in fields):
            yield from self._try("link errors", self._link_errors) or ()
        activity = self._try("activity", self._activity)
        if activity is None:
            yield from self._answers(PCIE_QUESTIONS)
        yield from activity or ()
        for link in range(self._links):
            state = self._try(f"nvlink {link}", self._call, "nvmlDeviceGetNvLinkState", link)
            if state is not None:
                yield NVLINK_UP, (str(link),), state
        yield from self._try("mig", self._mig) or ()
        memory = self._try("processes", self._processes)
        if memory is not None:
            yield PROCESSES, (), len(memory)
            if self._owned is not None:
                yield from self._owned({pid: used for pid, used in memory.items() if used is not None})

    def _try(self, name: str, ask: Callable[..., T], *arguments: Any) -> T | None:
        """What `ask` gives; None where the card cannot tell. Raises CardDownError, DriverDownError."""
        now = time.monotonic()
        if self._unknown.get(name, 0) > now:
            return None
        try:
            return ask(*arguments)
        except (CardDownError, DriverDownError):
            raise
        except Exception as error:  # also text that is no UTF-8, which the bindings do not foresee
            code = getattr(error, "value", None)
            if code in LOST:
                raise CardDownError(LOST[code]) from error
            if code in DRIVER_GONE:
                raise DriverDownError(DRIVER_GONE[code], str(error)) from error
            if code in NEVER:
                self._unknown[name] = now + REMEMBER_SECONDS
            elif code not in NOT_NOW:
                self._problems.append(f"{name}: {error}")
            return None

    def _call(self, function: str, *arguments: int) -> Any:
        return getattr(self._nvml, function)(self.handle, *arguments)

    def _answers(self, questions: Sequence[Question]) -> Iterator[Sample]:
        for question in questions:
            for call, arguments in question.calls:
                name = " ".join([call, *map(str, arguments)])
                answer = self._try(name, self._call, call, *arguments)
                if answer is not None:
                    yield from question.tell(answer)
                    break

    def _info(self) -> Sample:
        pci = self._try("pci", self._call, "nvmlDeviceGetPciInfo")
        version = self._try("compute capability", self._call, "nvmlDeviceGetCudaComputeCapability")
        name = self._try("name", self._name)
        capability = ".".join(map(str, version)) if version else ""
        return INFO, (clean(name or ""), str(self._index), clean(str(pci.busId) if pci else ""), capability), 1

    def _name(self) -> str:
        try:
            return str(self._call("nvmlDeviceGetName"))
        except UnicodeDecodeError:  # and it will be no text the next time either
            return ""

    def _count_links(self) -> int:
        [value] = self._nvml.nvmlDeviceGetFieldValues(self.handle, [LINK_COUNT])
        return int(field_value(value) or 0) if value.nvmlReturn == 0 else 0

    def _fields(self) -> list[Sample]:
        """All fields that the card knows, in one call."""
        now = time.monotonic()
        asked = [key for key in FIELDS if self._unknown.get(f"field {key}", 0) <= now]
        samples: list[Sample] = []
        for key, value in zip(asked, self._nvml.nvmlDeviceGetFieldValues(self.handle, asked), strict=True):
            if value.nvmlReturn in LOST:
                raise CardDownError(LOST[value.nvmlReturn])
            if value.nvmlReturn == 0 and (number := field_value(value)) is not None:
                family, labels, factor = FIELDS[key]
                samples.append((family, labels, number * factor))
            elif value.nvmlReturn in NEVER:
                self._unknown[f"field {key}"] = now + REMEMBER_SECONDS
        return samples

    def _link_errors(self) -> list[Sample]:
        """Summed over all links, in one call as well."""
        asked = [(field, link) for field in LINK_ERRORS for link in range(self._links)]
        totals: dict[int, float] = {}
        for (field, _), value in zip(asked, self._nvml.nvmlDeviceGetFieldValues(self.handle, asked), strict=True):
            if value.nvmlReturn == 0 and (number := field_value(value)) is not None:
                totals[field] = totals.get(field, 0) + number
        if not totals:
            raise self._nvml.NVMLError(self._nvml.NVML_ERROR_NOT_SUPPORTED)
        return [(NVLINK_ERRORS, (LINK_ERRORS[field],), total) for field, total in totals.items()]

    def _activity(self) -> list[Sample]:
        """Since the scrape before; nothing at the first one.

        Two that come at once, as those of a pair of Prometheus do, get the same: what happened between them is noise.
        """
        if not self._nvml.nvmlGpmQueryDeviceSupport(self.handle).isSupportedDevice:
            raise self._nvml.NVMLError(self._nvml.NVML_ERROR_NOT_SUPPORTED)
        now = time.monotonic()
        if self._window is not None and now - self._window[1] < SHORTEST_WINDOW_SECONDS:
            return self._active
        sample = self._nvml.nvmlGpmSampleAlloc()
        try:
            self._nvml.nvmlGpmSampleGet(self.handle, sample)
            before, at = self._window or (None, -math.inf)
            self._active = self._between(before, sample) if now - at <= LONGEST_WINDOW_SECONDS else []
            self.close()
        except BaseException:
            self._nvml.nvmlGpmSampleFree(sample)
            raise
        self._window = (sample, now)
        return self._active

    def _between(self, before: Any, after: Any) -> list[Sample]:
        asked = self._nvml.c_nvmlGpmMetricsGet_t()
        asked.version, asked.numMetrics = self._nvml.NVML_GPM_METRICS_GET_VERSION, len(ACTIVITY)
        asked.sample1, asked.sample2 = before, after
        for place, metric in enumerate(ACTIVITY):
            asked.metrics[place].metricId = metric
        self._nvml.nvmlGpmMetricsGet(asked)
        return [
            (family, (), answer.value * factor)
            for answer, (family, factor) in zip(asked.metrics[: len(ACTIVITY)], ACTIVITY.values(), strict=True)
            if answer.nvmlReturn == 0 and math.isfinite(answer.value)
        ]

    def close(self) -> None:
        """Give back what NVML holds for this card."""
        if self._window is not None:
            self._nvml.nvmlGpmSampleFree(self._window[0])
            self._window = None

    def _mig(self) -> list[Sample]:
        if self._call("nvmlDeviceGetMigMode")[0] != 1:
            return []
        samples: list[Sample] = []
        seen: set[str] = set()
        for place in range(self._call("nvmlDeviceGetMaxMigDeviceCount")):
            device = self._try(f"mig {place}", self._call, "nvmlDeviceGetMigDeviceHandleByIndex", place)
            if device is None:
                continue
            instance = str(self._nvml.nvmlDeviceGetGpuInstanceId(device))
            compute = str(self._nvml.nvmlDeviceGetComputeInstanceId(device))
            uuid = clean(self._nvml.nvmlDeviceGetUUID(device))
            profile = mig_profile(self._nvml.nvmlDeviceGetName(device))
            samples.append((MIG_INFO, (instance, compute, uuid, profile), 1))
            if instance not in seen:
                seen.add(instance)
                memory = self._nvml.nvmlDeviceGetMemoryInfo(device)
                samples += [
                    (MIG_MEMORY_TOTAL, (instance,), memory.total),
                    (MIG_MEMORY_USED, (instance,), memory.used),
                    (MIG_MEMORY_FREE, (instance,), memory.free),
                ]
        return samples

    def _processes(self) -> dict[int, int | None]:
        """Memory by process; None: the driver does not tell. One that computes and draws is in both lists."""
        memory: dict[tuple[int, int], int | None] = {}
        lists = [self._call("nvmlDeviceGetComputeRunningProcesses_v3")]
        graphics = self._try("graphics processes", self._call, "nvmlDeviceGetGraphicsRunningProcesses_v3")
        for one in (process for processes in (*lists, graphics or ()) for process in processes):
            key = (one.pid, one.gpuInstanceId)
            known = memory.get(key)
            memory[key] = one.usedGpuMemory if known is None else max(known, one.usedGpuMemory or 0)
        totals: dict[int, int | None] = {}
        for (pid, _), used in memory.items():
            known = totals.get(pid)
            totals[pid] = used if known is None else known + (used or 0)
        return totals


def field_value(value: Any) -> float | None:
    """The number in a value of nvmlDeviceGetFieldValues; None: of a type that is not known."""
    if not 0 <= value.valueType < len(FIELD_VALUES):
        return None
    return float(getattr(value.value, FIELD_VALUES[value.valueType]))


def mig_profile(name: str) -> str:
    """`1g.5gb` of `NVIDIA A100-SXM4-40GB MIG 1g.5gb`, which is what a MIG device is called; else the whole name."""
    found = re.search(r"\bMIG (\S+)$", name)
    return clean(found[1] if found else name)
