"""The tables of `python -m benchmarks.forecast`, for the terminal or for docs."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.scores import JUDGED, LAST, NAIVES, OURS, Score, geometric_mean

if TYPE_CHECKING:
    from benchmarks.forecast import Facts

# The half of the reference traces on which constants may be tuned; the others only confirm.
TUNED_ON = ("genai_requests", "nab_asg_cpu", "nasa_http", "nyc_taxi", "openb_gpu_pods")
ACCURATE = 0.8
WORST = 1.05  # of the best naive's error
POINT, MEAN, PINBALL = 0.58, 0.65, 0.70  # geometric means that are asked for
LONG_DAYS = 14
Line = Sequence[str]


def printed(scores: Sequence[Score], facts: Mapping[str, "Facts"], *, markdown: bool) -> str:
    parts = [
        ("WAPE %, the bin that ends one hour ahead", errors(scores, "point")),
        ("WAPE %, the mean of the hour ahead", errors(scores, "mean1h")),
        ("WAPE relative to the last value's, geometric means", means(scores)),
        ("One-hour means: accuracy %, with the hours before and after known, and noise floor", accuracy(scores)),
        (f"Peaks: coverage % and pinball loss of the {JUDGED:g} quantile", peaks(scores)),
        ("Against what is asked of it", summary(scores)),
    ]
    if any(cost.refits for cost in facts.values()):
        parts.append(("What the walk cost", costs(scores, facts)))
    return "\n\n".join(f"{'### ' if markdown else ''}{title}\n\n{table(rows, markdown)}" for title, rows in parts)


def table(rows: Sequence[Line], markdown: bool) -> str:
    if markdown:
        head, *body = ["| " + " | ".join(row) + " |" for row in rows]
        return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def errors(scores: Sequence[Score], kind: str) -> list[Line]:
    models = _models(scores)
    rows: list[Line] = [("trace", *models, "ratio", "to best naive", "floor")]
    for found in scores:
        wape: dict[str, float] = getattr(found, kind)
        worst, best = found.worst(kind)
        rows.append(
            (
                found.trace,
                *(_percent(wape.get(model)) for model in models),
                f"{found.ratio(kind):.3f}",
                f"{worst:.3f} {best}" + (" !" if worst > WORST else ""),
                _percent(found.floor_point if kind == "point" else found.floor_mean1h),
            )
        )
    return rows


def halves(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """All, and the two halves where both are there."""
    tuned = [found for found in scores if found.trace in TUNED_ON]
    others = [found for found in scores if found.trace not in TUNED_ON]
    whole = {"all": list(scores)}
    return {**whole, "half A (tuned on)": tuned, "half B": others} if tuned and others else whole


def means(scores: Sequence[Score]) -> list[Line]:
    models = [model for model in _models(scores) if model != LAST]
    rows: list[Line] = [("traces", "", *models)]
    for name, part in halves(scores).items():
        for kind in ("point", "mean1h"):
            ratios = [
                geometric_mean(s.ratio(kind, model) for s in part if model in getattr(s, kind)) for model in models
            ]
            rows.append((name, kind, *(f"{ratio:.3f}" for ratio in ratios)))
    return rows


def accuracy(scores: Sequence[Score]) -> list[Line]:
    rows: list[Line] = [("trace", "accuracy", "best naive", "in hindsight", "floor", "80 %")]
    for found in scores:
        naive = 1 - min(found.mean1h[name] for name in NAIVES)
        rows.append(
            (
                found.trace,
                _percent(1 - found.mean1h[OURS]),
                _percent(naive),
                "–" if found.hindsight_mean1h is None else _percent(1 - found.hindsight_mean1h),
                _percent(found.floor_mean1h),
                "reached" if 1 - found.mean1h[OURS] >= ACCURATE else f"missed; {_why(found)}",
            )
        )
    return rows


def _why(found: Score) -> str:
    if found.floor_mean1h is not None and found.floor_mean1h > 1 - ACCURATE:
        return "the floor forbids it"
    allowed = "not counts, no floor" if found.floor_mean1h is None else "the floor would allow it"
    if found.hindsight_mean1h is not None and found.hindsight_mean1h > 1 - ACCURATE:
        return f"{allowed}, but even the hours before and after would miss it"
    return allowed


def peaks(scores: Sequence[Score]) -> list[Line]:
    rows: list[Line] = [("trace", "horizon", "covered", "2 s.e.", "windows", "zero", "verdict", "pinball ratio")]
    for found in scores:
        for at in found.peaks:
            rows.append(
                (
                    found.trace,
                    str(at.horizon_seconds),
                    _percent(at.covered),
                    _percent(2 * at.standard_error),
                    str(at.count),
                    str(at.zeros),
                    at.verdict if found.days >= LONG_DAYS else f"({at.verdict}) under {LONG_DAYS} d",
                    "–" if at.pinball is None else f"{at.pinball:.3f}",
                )
            )
    for name, part in halves(scores).items():
        rows.append((f"geometric mean, {name}", *[""] * 6, f"{_pinball(part):.3f}"))
    return rows


def summary(scores: Sequence[Score]) -> list[Line]:
    point, mean = (geometric_mean(found.ratio(kind) for found in scores) for kind in ("point", "mean1h"))
    rivals = [(found.worst(kind)[0], f"{found.trace} {kind}") for found in scores for kind in ("point", "mean1h")]
    worst, which = max((rival for rival in rivals if math.isfinite(rival[0])), default=(math.nan, "none"))
    missed = [found.trace for found in scores if not 1 - found.mean1h[OURS] >= ACCURATE]
    long = [(found.trace, at) for found in scores if found.days >= LONG_DAYS for at in found.peaks]
    off = [f"{trace} {at.horizon_seconds}: {_percent(at.covered)}" for trace, at in long if at.verdict != "ok"]
    loss = _pinball(scores)
    return [
        ("figure", "is", "asked", "met"),
        ("point: geometric mean of WAPE / last value's", f"{point:.3f}", f"{POINT:g}", _met(point <= POINT)),
        ("one-hour mean: the same", f"{mean:.3f}", f"{MEAN:g}", _met(mean <= MEAN)),
        (f"worst WAPE / best naive's ({which})", f"{worst:.3f}", f"{WORST:g}", _met(worst <= WORST)),
        ("traces whose one-hour means are not 80 % accurate", ", ".join(missed) or "none", "none", _met(not missed)),
        (f"peak coverage off {100 * JUDGED:g} %", ", ".join(off) or f"none of {len(long)}", "none", _met(not off)),
        ("peak pinball / last peak's with conformal residual", f"{loss:.3f}", f"{PINBALL:g}", _met(loss <= PINBALL)),
    ]


def _pinball(scores: Sequence[Score]) -> float:
    return geometric_mean(at.pinball for found in scores for at in found.peaks if at.pinball is not None)


def _met(is_met: bool) -> str:
    return "yes" if is_met else "NO"


def costs(scores: Sequence[Score], facts: Mapping[str, "Facts"]) -> list[Line]:
    rows: list[Line] = [
        ("trace", "origins", "refused", "CPU s", "of it fits", "fits", "gate open", "models", "peers CPU s")
    ]
    for found in scores:
        cost = facts[found.trace]
        used = ", ".join(
            f"{name} {100 * count / max(1, cost.origins):.0f} %"
            for name, count in sorted(cost.models.items(), key=lambda item: -item[1])
        )
        rows.append(
            (
                found.trace,
                str(cost.origins),
                str(cost.refused),
                f"{cost.cpu_seconds:.1f}",
                f"{cost.fit_seconds:.1f}",
                str(cost.refits),
                f"{100 * cost.open / max(1, cost.origins):.0f} %",
                used,
                f"{sum(cost.peer_seconds.values()):.1f}",
            )
        )
    return rows


def _models(scores: Sequence[Score]) -> list[str]:
    found = dict.fromkeys(model for score in scores for model in score.point)
    return [*(name for name in found if name != OURS), OURS]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
