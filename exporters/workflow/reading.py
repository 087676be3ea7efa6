"""What one look at an n8n gives, whatever it was read from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from exporters.workflow.executions import Tally
from exporters.workflow.state import Count, Open, Workflow

Counts = Mapping[str, Mapping[str, Count]]  # workflow -> mode -> count


@dataclass(frozen=True)
class Reading:
    """counts: n8n's own, None where it keeps none; still_open: None where not every open execution is known."""

    workflows: Sequence[Workflow]
    beyond: int = 0  # workflows that are not shown, because there are too many
    counts: Counts | None = None
    still_open: Mapping[str, Open] | None = None
    problems: list[str] = field(default_factory=list)


class Reader(Protocol):
    """Reads one n8n; what has ended since the last look goes into the tally."""

    def read(self, deadline: float, tally: Tally) -> Reading:
        """Raises where nothing can be said. `deadline`: a time.monotonic() value."""


def moment(value: object) -> float | None:
    """A time as databases and the API write it, in Unix seconds; without a zone it is UTC. None where it is none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value / 1000 if value > 1e11 else float(value)
    return None
