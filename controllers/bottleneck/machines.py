"""Machines at their limit: CPU, memory, disk, file systems, GPUs. Pure.

Nothing tells which machine a replica runs on, so every machine that is measured counts. One that is busy and on which
nothing waits (its pressure is known and low) is not at its limit: 95 % of a CPU in use is money well spent.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from controllers.bottleneck.facts import (
    GPU_BUSY,
    GPU_MEMORY,
    GPU_THROTTLED,
    NODE_CPU,
    NODE_DISK,
    NODE_FILESYSTEM,
    NODE_MEMORY,
    NODE_PRESSURE,
    Facts,
    Finding,
    Measure,
    Method,
    Resource,
)
from controllers.bottleneck.measures import measured

FULL_GPU = 0.95
ROOM_LEFT = 0.05


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a machine. Thresholds are those of the alerts; `calm`: below it nothing waits for this part.

    `kind`: of the pressure that counts; waiting for CPU is usual, that all tasks stand still (`full`) never is.
    """

    resource: Resource
    busy_series: str
    busy: float
    pressure: str
    kind: str
    stalled: float
    calm: float
    change: str


PARTS = (
    Part(
        Resource.NODE_CPU,
        NODE_CPU,
        0.9,
        "cpu",
        "some",
        0.6,
        0.2,
        "add a machine or move something off {where}; more replicas on it would only wait for its CPU",
    ),
    Part(
        Resource.NODE_MEMORY,
        NODE_MEMORY,
        0.9,
        "memory",
        "full",
        0.2,
        0.02,
        "give {where} more memory, move something off it, or lower what one replica holds",
    ),
    Part(
        Resource.NODE_IO,
        NODE_DISK,
        0.9,
        "io",
        "full",
        0.2,
        0.05,
        "give {where} a faster disk, move something off it, or read and write less per piece of work",
    ),
)


def machines(facts: Facts) -> Iterator[Finding]:
    """The parts that are at their limit."""
    for part in PARTS:
        for where in _instances(facts, part):
            evidence = tuple(_part(facts, part, where))
            stalled = [m for m in evidence if m.method is Method.SATURATION]
            calm = bool(stalled) and max(m.value for m in stalled) < part.calm
            beyond = [m for m in evidence if m.since is not None and not (calm and m.method is Method.UTILIZATION)]
            if beyond:
                says = f"{where} has too little {part.pressure} for what runs on it"
                yield Finding(part.resource, where, evidence, says, part.change.format(where=where))
    for measure in _filesystems(facts):
        if measure.since is not None:
            where = measure.resource.removeprefix("filesystem ")
            yield Finding(
                Resource.NODE_FILESYSTEM,
                where,
                (measure,),
                f"{where} is full",
                f"make room on {where}, or a larger volume; work that cannot write fails or waits",
            )
    for measure in _gpus(facts):
        if measure.since is not None:
            yield Finding(
                Resource.GPU, measure.resource, (measure,), f"{measure.resource} is at its limit", _gpu(measure)
            )


def machines_measured(facts: Facts) -> Iterator[Measure]:
    """Everything that is known of every machine."""
    for part in PARTS:
        for where in _instances(facts, part):
            yield from _part(facts, part, where)
    yield from _filesystems(facts)
    yield from _gpus(facts)


def _instances(facts: Facts, part: Part) -> list[str]:
    pressure = facts.traces(NODE_PRESSURE, resource=part.pressure, kind=part.kind)
    found = [*facts.traces(part.busy_series), *pressure]
    return sorted({trace.labels.get("instance", "") for trace in found})


def _part(facts: Facts, part: Part, where: str) -> Iterator[Measure]:
    name = f"{where} {part.pressure}"
    yield from measured(
        facts, part.busy_series, name, Method.UTILIZATION, part.busy, "ratio", labels={"instance": where}
    )
    labels = {"instance": where, "resource": part.pressure, "kind": part.kind}
    what = "of the time tasks stood still"
    yield from measured(facts, NODE_PRESSURE, name, Method.SATURATION, part.stalled, "ratio", what=what, labels=labels)


def _filesystems(facts: Facts) -> Iterator[Measure]:
    for trace in facts.traces(NODE_FILESYSTEM):
        instance, mountpoint = trace.labels.get("instance", ""), trace.labels.get("mountpoint", "")
        yield from measured(
            facts,
            NODE_FILESYSTEM,
            f"filesystem {instance} {mountpoint}",
            Method.UTILIZATION,
            ROOM_LEFT,
            "ratio",
            what="left",
            low=True,
            labels={"instance": instance, "mountpoint": mountpoint},
        )


def _gpus(facts: Facts) -> Iterator[Measure]:
    for name, method, limit, unit in (
        (GPU_BUSY, Method.UTILIZATION, FULL_GPU, "ratio"),
        (GPU_MEMORY, Method.UTILIZATION, FULL_GPU, "ratio"),
        (GPU_THROTTLED, Method.SATURATION, 1.0, ""),
    ):
        for trace in facts.traces(name):
            gpu = f"GPU {trace.labels.get('uuid', '')}".strip()
            for measure in measured(facts, name, gpu, method, limit, unit):
                if measure.series == trace.name:
                    yield measure


def _gpu(measure: Measure) -> str:
    if measure.series.startswith(GPU_THROTTLED):
        return "it is throttled: look at its temperature and power limit"
    if measure.series.startswith(GPU_MEMORY):
        return "its memory is full: a smaller batch or model, or another GPU"
    return "add a GPU or a machine with one; more replicas on this one would share it"
