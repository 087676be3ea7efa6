"""The tables of `python -m benchmarks.forecast`, for the terminal or for docs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.scores import JUDGED, LAST, NAIVES, OURS, Score, geometric_mean

if TYPE_CHECKING:
    from benchmarks.forecast import Facts

# The half of the reference traces on which constants may be tuned; the others only confirm.
TUNED_ON = ("genai_requests", "nab_asg_cpu", "nasa_http", "nyc_taxi", "openb_gpu_pods")
ACCURATE = 0.8
WORST = 1.05  # of the best naive's error
LONG_DAYS = 14
Line = Sequence[str]


def printed(scores: Sequence[Score], facts: Mapping[str, "Facts"], *, markdown: bool) -> str:
    parts = [
        ("WAPE %, the bin that ends one hour ahead", errors(scores, "point")),
        ("WAPE %, the mean of the hour ahead", errors(scores, "mean1h")),
        ("WAPE relative to the last value's, geometric means", means(scores)),
        ("Accuracy of one-hour means (1 - WAPE), the noise floor and the best naive", accuracy(scores)),
        (f"Peaks: coverage and loss of the {JUDGED:g} quantile", peaks(scores)),
        ("What the walk cost", costs(scores, facts)),
    ]
    return "\n\n".join(
        f"{'### ' if markdown else ''}{title}\n\n{table(rows, markdown)}" for title, rows in parts if rows
    )


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


def means(scores: Sequence[Score]) -> list[Line]:
    halves = {"all": list(scores)}
    if any(found.trace in TUNED_ON for found in scores):
        halves["half A (tuned on)"] = [found for found in scores if found.trace in TUNED_ON]
        halves["half B"] = [found for found in scores if found.trace not in TUNED_ON]
    models = [model for model in _models(scores) if model != LAST]
    rows: list[Line] = [("traces", "", *models)]
    for name, part in halves.items():
        for kind in ("point", "mean1h"):
            ratios = [
                geometric_mean(s.ratio(kind, model) for s in part if model in getattr(s, kind)) for model in models
            ]
            rows.append((name, kind, *(f"{ratio:.3f}" for ratio in ratios)))
    return rows


def accuracy(scores: Sequence[Score]) -> list[Line]:
    rows: list[Line] = [("trace", "accuracy", "best naive", "floor", "80 %")]
    for found in scores:
        ours, floor = 1 - found.mean1h[OURS], found.floor_mean1h
        naive = 1 - min(found.mean1h[name] for name in NAIVES)
        verdict = (
            "reached"
            if ours >= ACCURATE
            else "missed; the floor forbids it"
            if floor is not None and floor > 1 - ACCURATE
            else "missed; the floor allows it"
            if floor is not None
            else "missed"
        )
        rows.append((found.trace, _percent(ours), _percent(naive), _percent(floor), verdict))
    return rows


def peaks(scores: Sequence[Score]) -> list[Line]:
    rows: list[Line] = [("trace", "horizon", "covered", "2 s.e.", "windows", "zero", "verdict", "pinball ratio")]
    ratios = []
    for found in scores:
        for at in found.peaks:
            ratios += [at.pinball] if at.pinball is not None else []
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
    rows.append(("geometric mean", *[""] * 6, f"{geometric_mean(ratios):.3f}"))
    return rows


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
