"""What was read of a card, as values, and the one place where they become metrics."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.metrics_core import Metric

from exporters.families import Family
from exporters.gpu.families import CARD_PROBLEMS, DRIVER_INFO, DRIVER_PROBLEM, DRIVER_PROBLEMS, DRIVER_UP, PROBLEM, UP

Sample = tuple[Family, tuple[str, ...], float]  # the labels without uuid, which is always the first


@dataclass(frozen=True)
class Reading:
    """Of one card. `down`: why it cannot be read (`CARD_PROBLEMS`). `problems`: sentences of what should have been."""

    samples: tuple[Sample, ...] = ()
    problems: tuple[str, ...] = field(default=())
    down: str | None = None


def driver_metrics(down: str | None, versions: tuple[str, str] | None = None) -> Iterator[Metric]:
    """`down`: why the driver cannot be asked (`DRIVER_PROBLEMS`). `versions`: of the driver and of CUDA."""
    yield DRIVER_UP.of(0 if down else 1)
    problem = DRIVER_PROBLEM.metric()
    for reason in DRIVER_PROBLEMS:
        problem.add_metric((reason,), 1 if reason == down else 0)
    yield problem
    if versions:
        info = DRIVER_INFO.metric()
        info.add_metric(versions, 1)
        yield info


def card_metrics(readings: Mapping[str, Reading]) -> Iterator[Metric]:
    """The series of all cards, by uuid. Of a card that is down: that it is, and nothing else."""
    families: dict[str, Any] = {}

    def add(uuid: str, samples: Iterable[Sample]) -> None:
        for family, labels, value in samples:
            families.setdefault(family.name, family.metric()).add_metric((uuid, *labels), value)

    for uuid, reading in readings.items():
        add(uuid, [(UP, (), 0 if reading.down else 1)])
        add(uuid, [(PROBLEM, (reason,), 1 if reason == reading.down else 0) for reason in CARD_PROBLEMS])
        if reading.down is None:
            add(uuid, reading.samples)
    yield from families.values()
