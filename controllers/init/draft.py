"""A workload of a first configuration: what was found about it, and what of it is a guess. Values and text only."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

LEAST_REPLICAS, MOST_REPLICAS = 0, 10  # where nothing says so
# Of two names that share only these nothing follows.
WORDS_OF_NO_MEANING = frozenset(
    re.findall(
        r"\w+",
        "app apps asg backend consumer consumers cron deploy deployment group hpa job jobs main pool prod production "
        "queue queues scaler service services staging svc task tasks test web worker workers",
    )
)


@dataclass(frozen=True, slots=True)
class Value:
    """What is written for a key; `guess`: why that, where nobody said so."""

    value: Mapping[str, Any]
    guess: str | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """`origin`: where it was found. `demand` None: nothing there says what arrives. `notes`: what was left out."""

    name: str
    namespace: str
    origin: str
    target: Value
    replicas: Value
    demand: Value | None = None
    capacity: Value | None = None
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that Prometheus knows."""

    system: str
    name: str


def label(text: str) -> str:
    """The nearest name that a workload may have."""
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.")[:63].strip("-.") or "workload"


def bounds(least: int, most: int, guess: str | None = None) -> Value:
    """A maximum of 0, as a group that is switched off has, is none."""
    if most < 1:
        return Value({"min": 0, "max": 1}, f"its maximum is {most}: switched off")
    return Value({"min": max(0, min(least, most)), "max": most}, guess)


def joined(drafts: Sequence[Draft], queues: Sequence[Queue], services: Sequence[str]) -> list[Draft]:
    """Each draft with a demand, each queue with a draft, and no name twice.

    A draft whose demand is a queue of unknown system gets the system from Prometheus. One without a demand gets the
    service of its name, or the queue whose name is nearest. Queues that are left get a workload of their own.
    """
    taken: set[Queue] = set()
    found: list[Draft] = []
    for draft in drafts:
        done = _with_demand(draft, queues, services, taken)
        found.append(done)
    found += [_of_queue(queue) for queue in queues if queue not in taken]
    return _distinct(found)


def _with_demand(draft: Draft, queues: Sequence[Queue], services: Sequence[str], taken: set[Queue]) -> Draft:
    asked = draft.demand.value if draft.demand else {}
    if "queue" in asked:
        same = [queue for queue in queues if queue.name == asked["queue"]]
        exact = [queue for queue in same if queue.system == asked.get("system")] or same
        if len(exact) == 1:
            taken.add(exact[0])
            return replace(draft, demand=Value({"queue": exact[0].name, "system": exact[0].system}))
        return draft
    if draft.demand is not None and draft.demand.guess is None:
        return draft
    if draft.name in services:
        why = "the service of the same name; it is measured, which is better than CPU or nothing"
        return replace(draft, demand=Value({"service": draft.name}, why), capacity=None)
    by_cpu = "container_cpu_usage" in str(asked.get("promql"))
    if draft.demand is not None and not by_cpu:
        return draft
    near = _nearest(draft, [queue for queue in queues if queue not in taken])
    if near is not None:
        taken.add(near)
        why = "the queue whose name is nearest" + ("; what was found goes by CPU" if by_cpu else "")
        return replace(draft, demand=Value({"queue": near.name, "system": near.system}, why), capacity=None)
    if draft.demand is not None:
        return draft
    why = "nothing found says what arrives; name its queue, its service, or a promql (per second)"
    return replace(draft, demand=Value({"service": draft.name}, why))


def _nearest(draft: Draft, queues: Sequence[Queue]) -> Queue | None:
    """The one queue that shares most words of meaning; None where none or several do."""
    words = _meaning(draft.name)
    scores = [(len(words & _meaning(queue.name)), queue) for queue in queues]
    best = max((score for score, _ in scores), default=0)
    found = [queue for score, queue in scores if score == best]
    return found[0] if best and len(found) == 1 else None


def _meaning(name: str) -> set[str]:
    return {word for word in re.split(r"[^a-z0-9]+", name.lower()) if len(word) > 1} - WORDS_OF_NO_MEANING


def _of_queue(queue: Queue) -> Draft:
    target = {"command": {"get": ["echo", "1"], "set": ["false", "{replicas}"]}}
    why = "nothing found says where its workers run: name the programs that tell and set how many, or another target"
    return Draft(
        name=label(queue.name),
        namespace="default",
        origin=f"the {queue.system} queue {queue.name} in Prometheus",
        target=Value(target, why),
        replicas=Value({"min": LEAST_REPLICAS, "max": MOST_REPLICAS}, "how many there may be"),
        demand=Value({"queue": queue.name, "system": queue.system}),
    )


def _distinct(drafts: Iterable[Draft]) -> list[Draft]:
    seen: set[str] = set()
    found: list[Draft] = []
    for draft in drafts:
        name, number = draft.name, 2
        while f"{draft.namespace}/{name}" in seen:
            name, number = f"{draft.name[:60].rstrip('-.')}-{number}", number + 1
        seen.add(f"{draft.namespace}/{name}")
        found.append(replace(draft, name=name))
    return found


def text(drafts: Sequence[Draft], prometheus: str, looked: Sequence[str]) -> str:
    """The file. `looked`: what was looked at, a sentence each."""
    lines = ["# A first configuration, written by `tidewise init` from what it found:"]
    lines += [f"#   {_words(sentence)}" for sentence in looked]
    lines += [
        "# Every workload is in shadow: it is decided and published, and nothing is touched.",
        "# What stands behind 'guess:' nobody said so; look at it, then remove the comment.",
        f"prometheus: {_flow({'url': prometheus})}",
        "workloads:",
    ]
    for draft in drafts:
        lines += ["", *_workload(draft)]
    return "\n".join(lines) + "\n"


def _workload(draft: Draft) -> Iterator[str]:
    yield f"  # {_words(f'from {draft.origin}')}"
    yield from (f"  # {_words(note)}" for note in draft.notes)
    yield f"  - name: {_scalar(draft.name)}"
    if draft.namespace != "default":
        yield f"    namespace: {_scalar(draft.namespace)}"
    for key in ("demand", "target", "replicas", "capacity"):
        value: Value | None = getattr(draft, key)
        if value is not None:
            if value.guess:
                yield f"    # guess: {_words(value.guess)}"
            yield f"    {key}: {_flow(value.value)}"
    yield "    mode: shadow"


def _words(found: str) -> str:
    """On one line, whatever somebody's cluster has in it: it stands in a comment."""
    return " ".join("".join(one if one.isprintable() else " " for one in found).split())


def _flow(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=100_000, allow_unicode=True).strip()


def _scalar(value: str) -> str:
    return yaml.safe_dump([value], default_flow_style=True).strip()[1:-1]
