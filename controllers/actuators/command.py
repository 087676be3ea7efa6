"""Replicas by programs of the user's own: one that prints how many there are, one that is told an absolute number.

Argument lists, never a shell. `apply` reads back: a program that exits 0 and did nothing is an error, not a success.
"""

import json
import re
from collections.abc import Mapping

from controllers.actuators.interface import Actuator, ActuatorError
from controllers.actuators.program import run_program
from controllers.config import CommandTarget
from controllers.domain import Replicas

_PLACEHOLDER = re.compile(r"\{replicas\}|\{victims\}|\{idle\}")  # in one pass: an instance's name is never read as one


def command_actuator(target: CommandTarget) -> Actuator:
    """The actuator for `target.command`."""

    def read_replicas(seconds: float) -> Replicas:
        return parsed(run_program(target.get, min(seconds, target.timeout_seconds)), target.get)

    def apply(
        replicas: int, seconds: float, victims: tuple[str, ...] = (), in_hand: Mapping[str, float] | None = None
    ) -> None:
        seconds = min(seconds, target.timeout_seconds)
        idle = sorted(in_hand or {}, key=lambda name: (in_hand or {})[name])
        filled = {"{replicas}": str(replicas), "{victims}": ",".join(victims), "{idle}": ",".join(idle)}
        argv = [_PLACEHOLDER.sub(lambda found: filled[found[0]], argument) for argument in target.set]
        run_program(argv, seconds)
        told = read_replicas(seconds).wanted
        if told != replicas:
            raise ActuatorError(
                f"{' '.join(argv)}: exited 0, but {' '.join(target.get)} says {told}, not {replicas}; "
                "is something else setting the number?"
            )

    return Actuator(read_replicas, apply)


def parsed(output: str, argv: list[str]) -> Replicas:
    """A number, or JSON with `replicas` (wanted), `ready` (working) and `draining` (told to end, not ended yet).

    Without `ready` all count as working, without `draining` none is on its way out.
    """
    wanted: object
    ready: object
    draining: object = 0
    try:
        answer = json.loads(output)
    except json.JSONDecodeError:
        answer = None
    if isinstance(answer, dict):
        wanted = answer.get("replicas")
        ready = answer.get("ready", wanted)
        draining = answer.get("draining", 0)
    else:
        wanted = ready = answer
    if not (_is_count(wanted) and _is_count(ready) and _is_count(draining)):
        raise ActuatorError(
            f"{' '.join(argv)}: printed {output.strip()[:80]!r}; "
            'it must print a number or {"replicas": wanted, "ready": working}'
        )
    return Replicas(wanted=int(str(wanted)), ready=int(str(ready)), draining=int(str(draining)))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
