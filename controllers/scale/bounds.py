"""What bounds a number of replicas, whatever the work: rate limits, stabilisation, what is paid for, people. Pure."""

from controllers.domain import Direction, Reason
from controllers.scale.state import Changed, Rules, State


class Steps:
    """A number on its way through the steps of a decision; each that changes it leaves its reason.

    `current`: what the target was told last.
    """

    def __init__(self, current: int, number: int, reasons: tuple[Reason, ...]) -> None:
        self.number = number
        self.current = current
        self._reasons = list(reasons)
        self._changes: list[Changed] = []

    def to(self, reason: Reason, number: int) -> None:
        if number != self.number:
            self._changes.append(Changed(reason, self.number, number))
            self._reasons.append(reason)
            self.number = number

    def at_least(self, reason: Reason, number: int) -> None:
        self.to(reason, max(self.number, number))

    def at_most(self, reason: Reason, number: int) -> None:
        self.to(reason, min(self.number, number))

    @property
    def reasons(self) -> tuple[Reason, ...]:
        return tuple(dict.fromkeys(self._reasons))

    @property
    def changes(self) -> tuple[Changed, ...]:
        return tuple(self._changes)


def within_bounds(steps: Steps, least: int, most: int) -> None:
    steps.at_most(Reason.MAX_REPLICAS, most)
    steps.at_least(Reason.MIN_REPLICAS, least)


def surge(state: State) -> int:
    """So many more were asked for by people, in all."""
    return sum(override.surge for override in state.overrides)


def paused(steps: Steps, state: State) -> None:
    """A pause lets the number not grow, not fall, or neither."""
    for override in state.overrides:
        if override.pause in (Direction.UP, Direction.BOTH):
            steps.at_most(Reason.PAUSED, steps.current)
        if override.pause in (Direction.DOWN, Direction.BOTH):
            steps.at_least(Reason.PAUSED, steps.current)


def rate_limited(number: int, current: int, state: State, rules: Rules) -> int:
    """At most `up_per_minute` above the lowest, `down_per_minute` below the highest number told in the last minute."""
    if number > current and rules.up_per_minute is not None:
        return max(current, min(number, min(_told_lately(current, state)) + rules.up_per_minute))
    if number < current and rules.down_per_minute is not None:
        return min(current, max(number, max(_told_lately(current, state)) - rules.down_per_minute))
    return number


def _told_lately(current: int, state: State) -> list[int]:
    return [told.replicas for told in state.wanted if state.now - told.at <= 60.0] + [current]


def stabilized(number: int, current: int, state: State, rules: Rules) -> int:
    """Scale-in goes no lower than the highest recommendation of the window (as the HPA's does).

    While the window is not wholly known, as after a first start, nothing is scaled in.
    """
    window = rules.stabilization_window_seconds
    if number >= current or window <= 0:
        return number
    if state.known_since is None or state.now - state.known_since < window:
        return current
    lately = [past.replicas for past in state.recommendations if state.now - past.at <= window]
    return min(current, max([number, *lately]))


def paid_already(number: int, current: int, state: State, rules: Rules) -> int:
    """Scale-in ends none whose minimum billing time is not over: it would be paid for all the same."""
    if number >= current or not state.started:
        return number
    return max(number, min(current, young(state, rules)))


def young(state: State, rules: Rules) -> int:
    """Replicas whose minimum billing time is not over."""
    return sum(asked.replicas for asked in state.started if state.now - asked.at < rules.minimum_run_seconds)
