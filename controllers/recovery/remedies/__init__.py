"""Remedies: one file and one line each. A rung of a ladder is a name in this dict.

`page` is not in it although it is a rung: it is no attempt that ends, it stands until its reason is over (`page.py`).
"""

from collections.abc import Callable

from controllers.config.recovery import RecoveryTarget
from controllers.recovery.operation import Step
from controllers.recovery.remedies.interface import Ask, Outcome, Remedy
from controllers.recovery.remedies.replace import replace_remedy
from controllers.recovery.remedies.restart import restart_remedy

# Each makes the remedy of one target, or None where the target has no such section.
REMEDIES: dict[Step, Callable[[RecoveryTarget], Remedy | None]] = {
    Step.RESTART: restart_remedy,
    Step.REPLACE: replace_remedy,
}

__all__ = ["REMEDIES", "Ask", "Outcome", "Remedy"]
