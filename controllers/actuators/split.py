"""How a number of replicas is divided among several targets. Pure.

The cheapest is filled first and the dearest emptied first; without prices the first of the list counts as the
cheapest. Working replicas are not given up for a promise: a dearer one goes when the cheaper ones that were asked for
in its place work, and not before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

# Of all, so many may be held twice while work moves to a cheaper target; at least one.
MOVED_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Part:
    """One target. `price`: an hour of a replica; None: the order of the list counts.

    `is_open`: whether it may be asked for more; False while it cools down after it had no capacity.
    """

    name: str
    smallest: int
    largest: int
    wanted: int
    ready: int
    price: Decimal | None = None
    is_open: bool = True

    @property
    def room(self) -> int:
        return max(0, self.largest - self.wanted) if self.is_open else 0

    @property
    def unready(self) -> int:
        return max(0, self.wanted - self.ready)


def split(total: int, parts: Sequence[Part]) -> tuple[int, ...]:
    """How `total` is divided in the end, when all have capacity: the sum is `total` within the bounds of all.

    Each has its smallest first. More in all never means less anywhere.
    """
    numbers = [part.smallest for part in parts]
    left = total - sum(numbers)
    for index in cheapest_first(parts):
        taken = max(0, min(left, parts[index].largest - numbers[index]))
        numbers[index] += taken
        left -= taken
    return tuple(numbers)


def next_numbers(total: int, parts: Sequence[Part]) -> tuple[int, ...]:
    """What each is told now, on the way to `split`. Each stays within its bounds once it is there.

    More than there is: the cheapest with room grow. Less: the dearest shrink, by no more than leaves as many working
    as there are, or `total`. As many: a few move to a cheaper one, which grows first; the dearer shrinks later.
    """
    parts = [_within_bounds(part) for part in parts]
    present = sum(part.wanted for part in parts)
    if total > present:
        return _grown(total - present, parts)
    if total < present:
        return _shrunk(total, parts)
    return _moved(total, parts)


def cheapest_first(parts: Sequence[Part]) -> list[int]:
    """Their places in the list. Of the same price the earlier counts as the cheaper."""
    return sorted(range(len(parts)), key=lambda index: (parts[index].price or Decimal(0), index))


def _within_bounds(part: Part) -> Part:
    """What somebody else put outside comes back; one that is closed is not asked for its smallest."""
    wanted = min(part.wanted, part.largest)
    return replace(part, wanted=max(wanted, part.smallest) if part.is_open else wanted)


def _grown(more: int, parts: Sequence[Part]) -> tuple[int, ...]:
    numbers = [part.wanted for part in parts]
    for index in cheapest_first(parts):
        taken = min(more, parts[index].room)
        numbers[index] += taken
        more -= taken
    return tuple(numbers)


def _shrunk(total: int, parts: Sequence[Part]) -> tuple[int, ...]:
    """A target that shrinks gives up those that do not work yet first. The cheaper ones wait for the dearer."""
    numbers = [part.wanted for part in parts]
    excess = sum(numbers) - total
    may_lose = max(0, sum(part.ready for part in parts) - total)  # of those that work
    for index in reversed(cheapest_first(parts)):
        part = parts[index]
        above = max(0, part.wanted - part.smallest)
        unready = min(excess, part.unready, above)
        working = min(excess - unready, may_lose, above - unready)
        numbers[index] -= unready + working
        excess -= unready + working
        may_lose -= working
        if numbers[index] > part.smallest:
            break
    return tuple(numbers)


def _is_cheaper(one: Part, other: Part) -> bool:
    """Where prices are unknown the order of the list says so; the same price is no reason to move."""
    return one.price is None or other.price is None or one.price < other.price


def _moved(total: int, parts: Sequence[Part]) -> tuple[int, ...]:
    numbers = [part.wanted for part in parts]
    if any(part.unready for part in parts):
        return tuple(numbers)  # one move after the other, and none while capacity is missing
    order = cheapest_first(parts)
    for place, index in enumerate(order):
        dearer = [parts[other] for other in order[place + 1 :] if _is_cheaper(parts[index], parts[other])]
        surplus = sum(max(0, part.wanted - part.smallest) for part in dearer)
        more = min(parts[index].room, surplus, max(1, total // MOVED_AT_ONCE))
        if more > 0:
            numbers[index] += more
            return tuple(numbers)
    return tuple(numbers)
