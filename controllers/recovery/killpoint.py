"""Where a test lets the process die as a power cut would: TIDEWISE_KILL_AT=POINT ends it with SIGKILL at that point.

The points are named after the journal's writes: `KIND:before` and `KIND:after` (`reserved:after`), and a number picks
a later one (`reserved:before:2`). Unset, which is always except in tests, nothing happens.
"""

import os
import signal
from collections import Counter

VARIABLE = "TIDEWISE_KILL_AT"
_passed: Counter[str] = Counter()


def pass_by(point: str) -> None:
    """The process ends here if it was told to."""
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    _passed[point] += 1
    if wanted in (f"{point}:{_passed[point]}", point if _passed[point] == 1 else None):
        os.kill(os.getpid(), signal.SIGKILL)
