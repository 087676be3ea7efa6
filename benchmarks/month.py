"""The first user's month, lived through the real ledger and decisions: without limits, with them, with the cap alone.

    python -m benchmarks.month [SEED …]

Every request goes through the ledger's own HTTP routes to a real SQLite file; prices are those of genai-prices,
exchange rates those of the European Central Bank; the scaler's purse takes and renews the holds of replicas, the live
decide() says how many. The cap alone is the peer: everybody asks as if critical, so that only the limit refuses.

Assumed, because no trace tells it: what kinds of jobs there are, how many, how large, how urgent (KINDS), for how long
a result is of use (PATIENCE), when somebody who was refused asks again (AGAIN), what replicas cost and how long they
take. When jobs come follows the Azure trace of the demo: its hours and weekdays, the weekends in their place.
"""

import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import structlog

from controllers.budget.periods import bounds
from controllers.budget.statement import Statement, statement, statement_text
from controllers.budget.words import MICRO, Priority
from controllers.config import Config
from controllers.domain import Mode
from controllers.replay.month import Lived, Plan, live
from controllers.replay.till import InProcess
from controllers.replay.usage import Kind, Size, jobs
from controllers.scale.run import rules_of
from demo.trace import read_azure

MONTH, ZONE, DAYS = "2026-09", ZoneInfo("Asia/Seoul"), 30
TOTAL, USAGE, FIXED = 24_900, 15_000, 9_900
NO_LIMIT = 10**9
# Where the trace, which begins on a Friday, has the Tuesday on which the month begins; its weeks are then repeated.
FIRST_DAY, WHOLE_WEEKS = 4, 28
LOW, HIGH = 1.0, 15.0  # what the trace's P1 and P99 are stretched to, as in the demo
HOUR, DAY = 3600.0, 86_400.0
TURN_SECONDS = 900.0

CRITICAL, NORMAL, DEFERRABLE = Priority.CRITICAL, Priority.NORMAL, Priority.DEFERRABLE
PATIENCE = {CRITICAL: 4 * HOUR, NORMAL: DAY, DEFERRABLE: 7 * DAY}
AGAIN = {CRITICAL: 600.0, NORMAL: 4 * HOUR, DEFERRABLE: DAY}
KINDS = (
    # a camera's clip of a minute: cut on a CPU replica for four times its length, then shown to a vision model
    Kind(
        name="clip",
        provider="google",
        model="gemini-2.5-flash",
        workflow="n8n-clips",
        per_month=1200,
        shares={CRITICAL: 0.25, NORMAL: 0.45, DEFERRABLE: 0.30},
        input_tokens=400,
        output_most=1000,
        output_used=Size(350, 0.4, 1000),
        media_unit="video_seconds",
        media=Size(60, 0.6, 300),
        workload="default/video",
        work_per_media=4.0,
    ),
    # somebody asks about what was seen: a language model, no replica
    Kind(
        name="question",
        provider="openai",
        model="gpt-5-mini",
        workflow="n8n-questions",
        per_month=800,
        shares={CRITICAL: 0.20, NORMAL: 0.80},
        input_tokens=6000,
        output_most=1500,
        output_used=Size(500, 0.5, 1500),
    ),
    # each night at two the day's footage is indexed on a GPU replica
    Kind(
        name="footage",
        provider="openai",
        model="text-embedding-3-small",
        workflow="n8n-nightly",
        per_month=360,
        shares={DEFERRABLE: 1.0},
        input_tokens=4000,
        workload="default/gpu",
        work=Size(100, 0.4, 400),
        hours=(2.0, 2.2),
    ),
)


@dataclass(frozen=True, slots=True)
class Month:
    """A month that was lived. Amounts in KRW; `highest_*`: after any row of the ledger, fixed costs included."""

    lived: Lived
    statement: Statement
    posted: float
    highest_posted: float
    highest_promised: float
    level_changes: int

    @property
    def total(self) -> float:
        return self.posted + FIXED


def configuration(folder: Path, *, limited: bool) -> Config:
    """As a user would write it; without limits both are a billion."""
    token = folder / "token"
    token.write_text("a-token-of-the-month-0123456789\n")
    untouched = {"command": {"get": ["false"], "set": ["false", "{replicas}"]}}  # the replay is its own target
    return Config.model_validate(
        {
            "workloads": [
                {
                    "name": "video",
                    "demand": {"queue": "clips"},
                    "target": untouched,
                    "replicas": {"min": 0, "max": 4},
                    "slo": {"wait_seconds": 900},
                    "capacity": {"service_seconds": 280},
                    "price": {"per_replica_hour": "12 KRW"},
                    "mode": "act",
                },
                {
                    "name": "gpu",
                    "demand": {"queue": "footage"},
                    "target": untouched,
                    "replicas": {"min": 0, "max": 2},
                    "slo": {"wait_seconds": 7200},
                    "capacity": {"service_seconds": 110},
                    "price": {"per_replica_hour": "240 KRW"},
                    "lead_time_seconds": 120,
                    "mode": "act",
                },
            ],
            "scale": {"interval_seconds": TURN_SECONDS},
            "budget": {
                "total": f"{TOTAL if limited else NO_LIMIT} KRW",
                "usage": f"{USAGE if limited else NO_LIMIT} KRW",
                "fixed": [{"name": "server", "monthly": f"{FIXED} KRW"}],
                "time_zone": ZONE.key,
                "token_file": str(token),
                "ledger": str(folder / "ledger.sqlite"),
                "tokens_per_second": {"video_seconds": 263},
                "gross": {"tax": 1.1, "fx_buffer": 1.03},
                "replica_hold": {"ttl_seconds": TURN_SECONDS, "grace_seconds": 900},
            },
        }
    )


def weights() -> list[float]:
    """How the month's demand is spread over its five minutes: the trace, stretched, day by day."""
    values = read_azure().values
    low, high = np.percentile(values, [1, 99])
    stretched = np.maximum(LOW + (values - low) / (high - low) * (HIGH - LOW), 0.0)
    days = [(FIRST_DAY + day) % WHOLE_WEEKS for day in range(DAYS)]
    return [float(value) for day in days for value in stretched[288 * day : 288 * (day + 1)]]


def live_month(folder: Path, seed: int, *, limited: bool = True, alike: bool = False) -> Month:
    """Lives the month in a folder that has no ledger yet."""
    start, end = bounds(MONTH, ZONE)
    config = configuration(folder, limited=limited)
    if config.budget is None:
        raise RuntimeError("the configuration has no budget")
    plan = Plan(start, end, TURN_SECONDS, PATIENCE, AGAIN, alike)
    rules = [rules_of(workload, config) for workload in config.workloads]
    if any(one.mode is not Mode.ACT for one in rules):
        raise RuntimeError("a replay of decisions that are not carried out spends nothing")
    with InProcess(config, config.budget, start) as till:
        lived = live(jobs(KINDS, weights(), start, end, seed), till, rules, plan)
    with closing(sqlite3.connect(config.budget.ledger)) as ledger:
        return _month(lived, ledger)


def _month(lived: Lived, ledger: sqlite3.Connection) -> Month:
    """Walks through all rows in their order: what was spent, and promised, after each of them."""
    posted = held = fixed = highest_posted = highest_promised = 0
    sql = "SELECT posted, held, committed FROM entry WHERE period = ? ORDER BY id"
    for row in ledger.execute(sql, (MONTH,)):
        posted, held, fixed = posted + row[0], held + row[1], fixed + row[2]
        highest_posted = max(highest_posted, posted + fixed)
        highest_promised = max(highest_promised, posted + held + fixed)
    changes = ledger.execute("SELECT COUNT(*) FROM level_change WHERE period = ? AND budget = 'usage'", (MONTH,))
    return Month(
        lived,
        statement(ledger, MONTH),
        posted / MICRO,
        highest_posted / MICRO,
        highest_promised / MICRO,
        int(changes.fetchone()[0]),
    )


def served_text(lived: Lived) -> str:
    """'critical 98 % of 413, normal 85 % of 1206, deferrable 8 % of 739'"""
    return ", ".join(
        f"{priority.value} {lived.served[priority] / lived.asked[priority]:.1%} of {lived.asked[priority]}"
        for priority in Priority
        if lived.asked[priority]
    )


def main(argv: Sequence[str]) -> int:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(50)
    )  # each change of a level is no news here
    for seed in [int(text) for text in argv] or [1]:
        with tempfile.TemporaryDirectory() as name:
            ways = {"without limits": (False, False), "with limits": (True, False), "the cap alone": (True, True)}
            months = {}
            for way, (limited, alike) in ways.items():
                folder = Path(name) / way.replace(" ", "-")
                folder.mkdir()
                months[way] = month = live_month(folder, seed, limited=limited, alike=alike)
                print(
                    f"seed {seed}, {way}: {month.total:,.0f} KRW, never above {month.highest_promised:,.0f} with holds;"
                    f" served {served_text(month.lived)}; {month.level_changes} changes of level",
                    flush=True,
                )
        print("\n".join(statement_text(months["with limits"].statement, "KRW")))
        ours, theirs = (months[way].lived.served_ratio(CRITICAL) or 0.0 for way in ("with limits", "the cap alone"))
        print(f"critical jobs served, levels : the cap alone = {ours / theirs:.2f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
