"""How long finished jobs had waited and took: read from the jobs that a system keeps for a while in a sorted set."""

from collections.abc import Sequence

from exporters.families import Observations
from exporters.queue.state import SECONDS_BOUNDS
from exporters.redis_server import Command

MOST_JOBS = 100  # looked at in one scrape and one set; of more, the newest


class Times:
    """Two histograms, of the jobs that were finished since the exporter started."""

    def __init__(self) -> None:
        self.wait = Observations(SECONDS_BOUNDS)
        self.process = Observations(SECONDS_BOUNDS)

    def observe(self, due: float | None, started: float | None, ended: float | None) -> None:
        """One job, by Unix seconds; a time that is not known (or lies after the next one) is not guessed."""
        if due is not None and started is not None:
            self.wait.observe(max(0.0, started - due))  # clocks of producers and workers differ a little
        if started is not None and ended is not None and ended >= started:
            self.process.observe(ended - started)


class Finished:
    """What is new in a sorted set whose scores rise as jobs are finished. Nothing that was there at the first look is.

    counted: how many there were in all since then; exact as long as no job leaves the set before it was looked at.
    """

    def __init__(self, key: str | bytes) -> None:
        self._key = key
        self._last: float | None = None
        self._seen: frozenset[bytes] = frozenset()  # those that have the last score: others may get the same
        self.counted = 0

    def commands(self) -> list[Command]:
        """How many have come since, and the newest of them."""
        since = "-inf" if self._last is None else repr(self._last)
        most = MOST_JOBS + len(self._seen)
        newest = ("ZREVRANGEBYSCORE", self._key, "(+inf", since, "WITHSCORES", "LIMIT", 0, most)
        return [Command("ZCOUNT", self._key, since, "(+inf"), Command(*newest)]

    def new(self, count: int, newest: Sequence[bytes]) -> list[bytes]:
        """The names of the new ones, by the replies to `commands()`."""
        pairs = iter(newest)
        scores = {name: float(score) for name, score in zip(pairs, pairs, strict=True)}
        first, before, seen = self._last is None, self._last, self._seen
        if scores:
            self._last = max(scores.values())
            still = seen if self._last == before else frozenset()
            self._seen = still | frozenset(name for name, score in scores.items() if score == self._last)
        elif first:
            self._last = 0.0
        if first:
            return []
        whole = len(scores) >= count
        self.counted += max(0, count - len(seen & scores.keys() if whole else seen))
        return [name for name in scores if name not in seen][:MOST_JOBS]
