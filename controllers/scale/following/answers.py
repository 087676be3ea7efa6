"""What is answered to whoever asks for a workload's number: the number, or why there is none. Never a 0 instead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controllers.actuators.publish import Board
from controllers.config import Workload
from controllers.domain import Mode

METRIC_NAME = "tidewise-desired-replicas"


class NotPublishedError(Exception):
    """Nobody publishes a number of that name: a mistake of who asks."""


class UnknownNumberError(Exception):
    """There is a workload, and for now no number of it."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of all workloads whose target is `publish`."""

    board: Board
    modes: Mapping[str, Mode]  # by identity, of those
    others: frozenset[str]  # identities of the configuration's other workloads

    def of(self, workload: str) -> int:
        """Raises NotPublishedError, UnknownNumberError; their words are for who asked."""
        if workload not in self.modes:
            raise NotPublishedError(self._not_published(workload))
        number = self.board.number(workload)
        if number is not None:
            return number
        mode = self.modes[workload]
        if mode is not Mode.ACT:
            raise UnknownNumberError(f"{workload} is in mode {mode}: nothing is published until it is 'act'")
        raise UnknownNumberError(
            f"the number of {workload} is unknown now: no decision that rests on measurements is recent enough, or "
            "another replica of the scaler leads"
        )

    def _not_published(self, workload: str) -> str:
        if workload in self.others:
            return f"{workload} is scaled by Tidewise itself; give it the target 'publish' to follow its number"
        known = ", ".join(sorted(self.modes)) or "none"
        return f"'{workload}' is no workload with the target 'publish'; known: {known}"


def numbers(board: Board, workloads: Sequence[Workload]) -> Numbers:
    """Of a configuration's workloads."""
    published = {w.identity: w.mode for w in workloads if w.target.publish is not None}
    return Numbers(board, published, frozenset(w.identity for w in workloads) - published.keys())
