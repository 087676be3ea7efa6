"""What a replay found: as a table for people, and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controllers.replay.compare import ORACLE, OURS, AtLevel, Run, levels, tuned
from controllers.replay.protocol import LEVELS, PEAK_PERCENTILE, PEAK_REPLICAS, Setting


@dataclass(frozen=True, slots=True)
class Promise:
    """What is held against what was played: the share of time short (or of work late, for a queue) that is allowed."""

    objective: float
    is_queue: bool = False

    @property
    def limit(self) -> float:
        return 1.0 - self.objective

    @property
    def violation(self) -> str:
        """The score that it is about."""
        return "late" if self.is_queue else "under"


@dataclass(frozen=True, slots=True)
class Replayed:
    """`currency`: of the price; None: it has none, so money is told in replica-hours."""

    of: str
    setting: Setting
    promise: Promise
    currency: str | None
    runs: Sequence[Run]
    notes: Sequence[str] = ()

    @property
    def usual(self) -> list[Run]:
        return [run for run in self.runs if run.usual]

    def tuned(self) -> list[Run]:
        """Each policy's cheapest knob that would have kept the promise, where one does."""
        names = dict.fromkeys(run.policy for run in self.runs)
        found = (tuned(self.runs, name, self.promise.limit, self.promise.violation) for name in names)
        return [run for run in found if run is not None]


def table(found: Replayed) -> str:
    """The figures, for people."""
    setting, promise = found.setting, found.promise
    days = setting.ticks * setting.tick_seconds / 86_400
    begin, end = (_date(at) for at in (setting.begin, setting.begin + setting.ticks * setting.tick_seconds))
    promised = (
        f"{_share(promise.objective)} of the work in time"
        if promise.is_queue
        else f"{_share(promise.objective)} of the time served"
    )
    lead = _seconds(setting.lead_seconds)
    lines = [
        found.of,
        f"{days:.1f} days, {begin} to {end}, in ticks of {setting.tick_seconds:g} s, after {_history(setting)} before",
        f"one replica serves {setting.capacity:.4g}, from {lead} after it is asked for; promised: {promised}",
        "",
        "as they come",
        *_rows(found.usual, found),
    ]
    if any(not run.usual for run in found.runs):
        what = "of the work late" if promise.is_queue else "of the time short"
        lines += [
            "",
            f"set in hindsight to what is cheapest with at most {_percent(promise.limit)} {what}",
            *_rows(found.tuned(), found),
            "",
            f"{'cost x oracle, tuned to be short at most':<44}" + "".join(f"{_limit(level):>12}" for level in LEVELS),
            *_levels(found),
        ]
    return "\n".join(line.rstrip() for line in [*lines, *(["", *found.notes] if found.notes else [])])


def _rows(runs: Sequence[Run], found: Replayed) -> list[str]:
    money = found.currency or "replica-h"
    head = (
        f"  {'policy':<20}{money:>12}{'x oracle':>10}{'short':>9}{'SLO min':>9}{'unserved':>10}"
        f"{'late':>8}{'p95 wait':>10}{'actions':>9}{'turns':>7}  knobs"
    )
    rows = []
    for run in sorted(runs, key=lambda run: run.scores["replica_hours"]):
        score = run.scores
        rows.append(
            f"  {_shown(run.policy):<20}{score['money']:>12,.1f}{score['cost_to_oracle']:>10.3f}"
            f"{_percent(score['under']):>9}"
            f"{score['slo_minutes']:>9,.0f}{_percent(score['unserved']):>10}{_percent(score['late']):>8}"
            f"{_seconds(score['wait_p95']):>10}{score['actions']:>9,.0f}{score['reversals']:>7,.0f}  {run.knob.label}"
        )
    return [head, *rows]


def _levels(found: Replayed) -> list[str]:
    each: Mapping[str, list[AtLevel]] = levels(found.runs)
    order = sorted(each, key=lambda name: [one.cost if one.cost is not None else float("inf") for one in each[name]])
    return [
        f"  {_shown(name):<42}" + "".join(f"{'–' if one.cost is None else f'{one.cost:.3f}':>12}" for one in each[name])
        for name in order
    ]


def as_json(found: Replayed) -> dict[str, Any]:
    """All figures. Shares are ratios; what is infinite or unknown is null."""
    setting = found.setting
    each = levels(found.runs)
    kept = {id(run) for run in found.tuned()}
    return {
        "of": found.of,
        "setting": {
            "begin": _iso(setting.begin),
            "end": _iso(setting.begin + setting.ticks * setting.tick_seconds),
            "ticks": setting.ticks,
            "tick_seconds": setting.tick_seconds,
            "step_seconds": setting.step_seconds,
            "history_steps": len(setting.history),
            "capacity": setting.capacity,
            "lead_seconds": setting.lead_seconds,
            "price_per_replica_hour": setting.price_per_replica_hour if found.currency else None,
            "currency": found.currency,
            "objective": found.promise.objective,
            "is_queue": found.promise.is_queue,
        },
        "runs": [
            {
                "policy": run.policy,
                "knobs": run.knob.label,
                "usual": run.usual,
                "keeps_promise_cheapest": id(run) in kept,
                **{name: _finite(value) for name, value in run.scores.items()},
            }
            for run in found.runs
        ],
        "levels": {
            name: {
                f"{limit:g}": {"cost_to_oracle": one.cost, "knobs": one.knob, "interpolated": one.between}
                for limit, one in zip(LEVELS, ones, strict=True)
            }
            for name, ones in each.items()
        },
        "notes": list(found.notes),
    }


def learned_capacity() -> str:
    """What is said where no capacity was given."""
    return (
        f"No capacity was given: one replica serves the {PEAK_PERCENTILE}th percentile of the demand over "
        f"{PEAK_REPLICAS:g}; give --capacity for yours."
    )


def _shown(name: str) -> str:
    return {OURS: "tidewise (act)", ORACLE: "oracle (a limit)"}.get(name, name)


def _limit(level: float) -> str:
    return f"{level:.0%}".replace("%", " %")


def _share(ratio: float) -> str:
    return f"{ratio:.1%}".replace("%", " %")


def _history(setting: Setting) -> str:
    return f"{len(setting.history) * setting.step_seconds / 86_400:.1f} days"


def _percent(ratio: float) -> str:
    return f"{ratio:.2%}".replace("%", " %")


def _seconds(seconds: float) -> str:
    if seconds == float("inf"):
        return "never"
    return (
        f"{seconds:.0f} s"
        if seconds < 600
        else f"{seconds / 60:.0f} min"
        if seconds < 36_000
        else f"{seconds / 3600:.0f} h"
    )


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).strftime("%Y-%m-%d %H:%M")


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).isoformat().replace("+00:00", "Z")


def _finite(value: float) -> float | None:
    return value if value - value == 0 else None
