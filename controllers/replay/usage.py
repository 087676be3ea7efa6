"""A month of use, drawn from a shape of demand: who asks for which call, when, how large, how urgent. Pure.

Every draw comes from the seed, so a month can be lived again under other rules with the same jobs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controllers.budget.words import Priority


@dataclass(frozen=True, slots=True)
class Size:
    """A log-normal amount: half are below `median`; cut off at `most`."""

    median: float
    sigma: float
    most: float

    def draw(self, random: np.random.Generator) -> float:
        return min(self.most, self.median * float(np.exp(self.sigma * random.standard_normal())))


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job: a paid call and, where `workload` names one, work on a replica before the call is settled.

    `media`: unit of the price list -> how much of it; `work_per_media`: replica-seconds a unit of it. `output_most` is
    max_tokens, and what is held; a call uses a log-normal part of it. `hours`: of the day; None: at all times.
    """

    name: str
    provider: str
    model: str
    workflow: str
    per_month: float
    shares: Mapping[Priority, float]
    input_tokens: int
    output_most: int = 0
    output_used: Size | None = None
    media_unit: str = ""
    media: Size | None = None
    workload: str = ""
    work_per_media: float = 0.0
    work: Size | None = None
    hours: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work. `most` is what its permit asks for, `actual` what the call turns out to use."""

    id: str
    at: float
    kind: Kind
    priority: Priority
    most: Mapping[str, int]
    actual: Mapping[str, int]
    work_seconds: float
    is_lost: bool  # whoever was to settle it dies: its hold expires


def jobs(
    kinds: Sequence[Kind], weights: Sequence[float], start: float, end: float, seed: int, lost_ratio: float = 0.005
) -> list[Job]:
    """The month's jobs, ascending. `weights`: how demand is spread over [start, end), in even steps.

    Hours of the day count from `start`, which is a midnight.
    """
    drawn = [job for kind in kinds for job in _of(kind, weights, start, end, seed, lost_ratio)]
    return sorted(drawn, key=lambda job: (job.at, job.id))


def _of(
    kind: Kind, weights: Sequence[float], start: float, end: float, seed: int, lost_ratio: float
) -> list[Job]:  # fmt: skip
    random = np.random.default_rng([seed, *kind.name.encode()])
    step = (end - start) / len(weights)
    spread = np.asarray(weights, dtype=np.float64)
    if kind.hours is not None:
        hour = np.arange(len(weights)) * step % 86_400.0 / 3600.0
        spread = spread * ((hour >= kind.hours[0]) & (hour < kind.hours[1]))
    count = int(random.poisson(kind.per_month))
    steps = random.choice(len(weights), count, p=spread / spread.sum())
    times = start + (steps + random.uniform(0.0, 1.0, count)) * step
    priorities = random.choice(len(kind.shares), count, p=list(kind.shares.values()))
    names = list(kind.shares)
    return [
        _job(kind, f"{kind.workflow}/{number}/{kind.name}/0/1", float(at), names[priority], lost_ratio, random)
        for number, (at, priority) in enumerate(zip(times, priorities, strict=True))
    ]


def _job(
    kind: Kind, name: str, at: float, priority: Priority, lost_ratio: float, random: np.random.Generator
) -> Job:  # fmt: skip
    most, media = {"input_tokens": kind.input_tokens}, 0.0
    if kind.media is not None:
        media = kind.media.draw(random)
        most[kind.media_unit] = int(np.ceil(media))
    actual = dict(most)
    if kind.output_most:
        used = kind.output_used.draw(random) if kind.output_used else float(kind.output_most)
        most["output_tokens"] = kind.output_most
        actual["output_tokens"] = min(kind.output_most, int(used))
    work = kind.work.draw(random) if kind.work else media * kind.work_per_media
    return Job(name, at, kind, priority, most, actual, work, bool(random.random() < lost_ratio))
