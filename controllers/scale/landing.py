"""The scaler's landing page: every workload now, with the reasons in words. Readable on a phone, without scripts."""

import html
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from controllers.domain import Override
from controllers.scale.meaning import MEANING
from controllers.scale.moments import length
from controllers.scale.records import Record

STYLE = """<style>
:root{color-scheme:light dark}
body{font:16px/1.4 system-ui,sans-serif;margin:1rem;max-width:75rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.4rem .6rem;border-bottom:1px solid #8884}
th{font-weight:600;white-space:nowrap}
td.number{white-space:nowrap;font-variant-numeric:tabular-nums}
td.name{font-weight:600;overflow-wrap:anywhere}
summary{cursor:pointer}
td.why{min-width:13rem}
details ul{margin:.2rem 0;padding-left:1.2rem}
.mode{font-size:.8em;border:1px solid currentColor;border-radius:.6em;padding:0 .45em;opacity:.75}
.bad{color:#c62828}
@media(prefers-color-scheme:dark){.bad{color:#ff8a80}}
@media(max-width:45rem){
thead{display:none}
table,tbody,tr,td{display:block}
tr{border:1px solid #8886;border-radius:.5rem;margin:0 0 .8rem;padding:.3rem 0}
td{border:0;padding:.15rem .7rem}
td:empty{display:none}
td[data-label]::before{content:attr(data-label) " ";opacity:.65;display:inline-block;min-width:5.5rem}
td[data-label=why]::before,td[data-label=overrides]::before,td[data-label=problem]::before{display:block}
}
</style>"""
HEAD = ("workload", "now", "desired", "why", "data", "overrides", "problem")


@dataclass(frozen=True, slots=True)
class Row:
    """One workload. `problem`: why something is unknown or was not done."""

    record: Record
    problem: str | None


def page(rows: Mapping[str, Row], now: float, problems: Mapping[str, str] = {}) -> str:
    """HTML for the body. `problems`: of the process as a whole, sentence by its beginning."""
    said = "".join(f'<p class="bad">{html.escape(what)}: {html.escape(why)}</p>' for what, why in problems.items())
    if not rows:
        return f"{STYLE}{said}<p>No decision yet.</p>"
    head = "".join(f"<th>{title}</th>" for title in HEAD)
    body = "".join(_row(name, row, now) for name, row in sorted(rows.items(), key=_trouble_first))
    return f"{STYLE}<p>{_summary(rows)}</p>{said}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _trouble_first(named: tuple[str, Row]) -> tuple[bool, str]:
    return named[1].problem is None, named[0]


def _summary(rows: Mapping[str, Row]) -> str:
    modes = Counter(row.record.rules.mode.value for row in rows.values())
    troubled = sum(row.problem is not None for row in rows.values())
    count = f"{len(rows)} workload{'' if len(rows) == 1 else 's'}"
    return (
        f"{count}: {', '.join(f'{n} in {mode}' for mode, n in sorted(modes.items()))}; {troubled or 'none'} in trouble."
    )


def _row(name: str, row: Row, now: float) -> str:
    record = row.record
    decision, state = record.decision, record.state
    is_ready = decision.ready == decision.current or decision.ready is None
    present = _number(decision.current) if is_ready else f"{decision.ready} of {_number(decision.current)}"
    desired = _number(decision.desired)
    cells = (
        f'<td class="name">{html.escape(name)} <span class="mode">{record.rules.mode.value}</span></td>',
        _cell("now", present, "number"),
        _cell("desired", desired if decision.desired == decision.current else f"<b>{desired}</b>", "number"),
        _cell("why", _why(record), "why"),
        _cell("data", _age(record, now), "number"),
        _cell("overrides", "<br>".join(html.escape(_override(one, now)) for one in state.overrides)),
        _cell("problem", html.escape(row.problem or ""), "bad"),
    )
    return f"<tr>{''.join(cells)}</tr>"


def _cell(label: str, content: str, kind: str = "") -> str:
    shown = f' class="{kind}"' if kind else ""
    return f'<td{shown} data-label="{label}">{content}</td>' if content else "<td></td>"


def _why(record: Record) -> str:
    """The reasons; their sentences on hover, and below on a tap."""
    reasons = dict.fromkeys((*record.decision.reasons, record.outcome))
    names = ", ".join(f'<span title="{html.escape(MEANING[one])}">{one.value}</span>' for one in reasons)
    words = "".join(f"<li>{html.escape(MEANING[one])}</li>" for one in reasons)
    return f"<details><summary>{names}</summary><ul>{words}</ul></details>"


def _age(record: Record, now: float) -> str:
    """How old the demand is by now that the decision was made from."""
    demand = record.state.demand
    if demand is None:
        return '<span class="bad">unknown</span>'
    age = max(0.0, now - demand.at)
    old = age > record.rules.data_age_limit_seconds + 2 * record.rules.interval_seconds
    text = f"{length(age)} old"
    return f'<span class="bad">{text}</span>' if old else text


def _override(one: Override, now: float) -> str:
    what = (
        f"+{one.surge}" if one.pause is None else {"both": "paused"}.get(one.pause.value, f"paused {one.pause.value}")
    )
    note = f": {one.note}" if one.note else ""
    return f"{what} for {length(max(0.0, one.until - now))} more, by {one.by}{note}"


def _number(number: int | None) -> str:
    return "unknown" if number is None else str(number)
