"""A replay as one HTML file that needs nothing beside it: the table and two pictures."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from controllers.replay.compare import ORACLE, OURS, Run
from controllers.replay.protocol import Result
from controllers.replay.report import Replayed, table

PICTURED = 4

PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #222 }}
pre {{ font: 12.5px/1.4 ui-monospace, monospace; overflow-x: auto; background: #f6f7f8;
  padding: 1rem; border-radius: 6px }}
img {{ max-width: 100%; height: auto }}
p {{ max-width: 50rem }}
</style></head><body>
<h1>{title}</h1>
<pre>{table}</pre>
<h2>Cost against violations</h2>
<img alt="Cost relative to the oracle against the share of violations, a line a policy"
src="data:image/png;base64,{pareto}">
<h2>Demand and supply</h2>
<p>Black is the demand in replicas, blue what served it, light blue what was paid for.
Red marks are times of shortage.</p>
<img alt="Demand and supply over time, a row a policy" src="data:image/png;base64,{supply}">
</body></html>
"""


def pictured(found: Replayed) -> list[Run]:
    """Whose supply is drawn: ours, the next best that keep the promise (else as they come), the oracle."""
    best = {run.policy: run for run in [*found.usual, *found.tuned()]}
    ours = next((run for run in found.usual if run.policy == OURS), None)
    others = sorted(
        (run for name, run in best.items() if name not in (OURS, ORACLE)),
        key=lambda run: (run.scores[found.promise.violation] > found.promise.limit, run.scores["replica_hours"]),
    )
    limit = [best[ORACLE]] if ORACLE in best else []
    return [*([ours] if ours else []), *others[: PICTURED - len(limit) - (ours is not None)], *limit]


def write(out: Path, found: Replayed, results: Sequence[tuple[Run, Result]]) -> None:
    """Raises OSError, and ImportError without matplotlib."""
    from controllers.replay import picture

    def encoded(image: bytes) -> str:
        return base64.b64encode(image).decode("ascii")

    page = PAGE.format(
        title=escape(f"Replay of {found.of}"),
        table=escape(table(found)),
        pareto=encoded(picture.pareto(found)),
        supply=encoded(picture.supply(found, results)),
    )
    out.write_text(page, encoding="utf-8")
