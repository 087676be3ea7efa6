"""A month's statement and the present state as tables, straight from the ledger's rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from sqlite3 import Connection
from typing import Any

from controllers.budget import rows
from controllers.budget.decide import Decision, Limit
from controllers.budget.words import Level, Scope, plain, shown


@dataclass(frozen=True, slots=True)
class Line:
    """One scope of a month, in micro-units. `units`: what was used, as reported."""

    scope: Scope
    held: int
    posted: int
    committed: int
    entries: int
    units: Mapping[str, float] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """The scope in words: 'google/gemini-2.5-flash (ocr)'."""
        scope = self.scope
        if scope.provider:
            name = f"{scope.provider}/{scope.model}" if scope.model else scope.provider
        else:
            name = "replicas" if scope.workload and not scope.service else scope.service or "other"
            name = f"{name} (fixed)" if self.committed else name
        return f"{name} ({scope.service})" if scope.provider and scope.service else name


@dataclass(frozen=True, slots=True)
class Statement:
    """A month as the ledger has it, the dearest line first."""

    period: str
    lines: tuple[Line, ...]

    @property
    def posted(self) -> int:
        return sum(line.posted for line in self.lines)

    @property
    def held(self) -> int:
        return sum(line.held for line in self.lines)

    @property
    def committed(self) -> int:
        return sum(line.committed for line in self.lines)


def statement(db: Connection, period: str) -> Statement:
    """Of one month; no lines where nothing happened."""
    units = rows.units_by_scope(db, period)
    return Statement(period, tuple(Line(*found, units=units.get(found[0], {})) for found in rows.by_scope(db, period)))


def as_json(month: Statement, currency: str) -> dict[str, Any]:
    """As GET /statement answers it; amounts are decimal text."""
    return {
        "period": month.period,
        "currency": currency,
        "posted": plain(month.posted),
        "held": plain(month.held),
        "committed": plain(month.committed),
        "lines": [
            {
                "provider": line.scope.provider,
                "service": line.scope.service,
                "model": line.scope.model,
                "workflow": line.scope.workflow,
                "workload": line.scope.workload,
                "posted": plain(line.posted),
                "held": plain(line.held),
                "committed": plain(line.committed),
                "entries": line.entries,
                "units": line.units,
            }
            for line in month.lines
        ],
    }


def statement_text(month: Statement, currency: str, limits: Sequence[Limit] = ()) -> Iterator[str]:
    """For the terminal. `limits`: what the month is compared with."""
    yield f"Statement {month.period}, {currency}"
    yield ""
    if not month.lines:
        yield "nothing was spent, held or committed"
        return
    table = [("what", "workflow", "workload", "rows", "posted", "held", "committed")]
    table += [
        (line.what, line.scope.workflow, line.scope.workload, str(line.entries), *_money(line)) for line in month.lines
    ]
    table.append(("", "", "", "", "", "", ""))
    table.append(("in all", "", "", "", shown(month.posted), shown(month.held), shown(month.committed)))
    yield from columns(table, right=3)
    yield ""
    yield f"{shown(month.posted + month.committed)} {currency} spent" + (
        f"; {shown(month.held)} held are not yet decided" if month.held else ""
    )
    for limit in limits:
        spent = month.posted + (month.committed if limit.counts_fixed else 0)
        yield f"of the budget '{limit.name}' ({shown(limit.amount)}): {shown(spent)}{_share(spent, limit.amount)}"


def status_text(decision: Decision, currency: str, levels: Mapping[str, Level], holds: int) -> Iterator[str]:
    """The budgets now, for the terminal. `levels`: as recorded, which is what permits follow."""
    yield f"Budget {decision.period}, {currency}"
    yield ""
    table: list[tuple[str, ...]] = [
        ("budget", "limit", "posted", "held", "committed", "left", "used", "month-end", "level")
    ]
    for one in decision.budgets:
        amounts = (shown(amount) for amount in (one.limit, one.posted, one.held, one.committed, one.remaining))
        used = f"{one.spent / one.limit:.0%}" if one.limit else "-"
        projected = "unknown" if one.projected is None else shown(one.projected)
        table.append((one.name, *amounts, used, projected, levels.get(one.name, Level.NORMAL).name.lower()))
    yield from columns(table, right=1)
    yield ""
    yield f"{holds} {'hold is' if holds == 1 else 'holds are'} open; used = posted and fixed costs, of the limit;"
    yield "month-end = what is gone, and the recent rate over the demand that is left"
    for one in decision.budgets:
        if one.notified:
            yield f"people were told that {one.notified:.0%} of '{one.name}' are spent"


def columns(table: Sequence[Sequence[str]], right: int) -> Iterator[str]:
    """The rows with aligned columns; those from `right` on are numbers."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        cells = [
            text.rjust(width) if i >= right else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _money(line: Line) -> tuple[str, str, str]:
    return shown(line.posted), shown(line.held), shown(line.committed)


def _share(spent: int, limit: int) -> str:
    return f" ({spent / limit:.0%})" if limit else ""
