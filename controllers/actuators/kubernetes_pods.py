"""A target's pods: which of them work, and which go first when there are to be fewer.

A ReplicaSet ends pods that are not ready first, then those with the lowest `pod-deletion-cost`. So the idlest get a low
one right before a smaller number is set. A StatefulSet ends the highest ordinal whatever the cost.
"""

from collections.abc import Collection, Mapping

from controllers.kubernetes_api import Api, ApiError, Json, Place

COST = "controller.kubernetes.io/pod-deletion-cost"
OURS = "tidewise.io/pod-deletion-cost"  # beside it: that we set it, and to what
VICTIM = -2_000_000_000
IDLEST = -1_000_000_000  # and upwards, by thousandths of work in hand; below any cost that somebody else would write
BUSIEST = IDLEST + 900_000_000
MAX_TAKEN_AWAY = 100  # costs that no longer hold, in one call; the rest with the next


def is_ready(pod: Json) -> bool:
    """Whether the pod counts as working: ready, and not on its way out."""
    if is_leaving(pod):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def is_leaving(pod: Json) -> bool:
    """Whether the pod was told to end: no capacity any more, and still paid for."""
    return bool((pod.get("metadata") or {}).get("deletionTimestamp"))


def name_of(pod: Json) -> str:
    return str((pod.get("metadata") or {}).get("name"))


def cost_changes(
    pods: list[Json], in_hand: Mapping[str, float], leaving: int, victims: Collection[str] = ()
) -> dict[str, int | None]:
    """Pod -> the cost to write, None to take ours away; only those whose cost changes, those that go first.

    leaving: how many of the ready ones go. Victims go first, then the idlest; a pod that does not say what it has in
    hand goes last, for it may be busy. A cost that somebody else wrote is left as it is.
    """
    ready = [pod for pod in pods if is_ready(pod)]
    order = sorted(
        ready,
        key=lambda pod: (name_of(pod) not in victims, in_hand.get(name_of(pod), float("inf")), name_of(pod)),
    )
    going = order[: max(0, leaving)]
    wanted: dict[str, int | None] = dict.fromkeys(name_of(pod) for pod in order[len(going) :])
    ranked: dict[str, int | None] = {
        name_of(pod): VICTIM if name_of(pod) in victims else _cost(in_hand.get(name_of(pod))) for pod in going
    }
    told = {name_of(pod): (pod.get("metadata") or {}).get("annotations") or {} for pod in ready}
    changes = {}
    for name, cost in {**ranked, **wanted}.items():
        present, ours = told[name].get(COST), told[name].get(OURS)
        if present is not None and present != ours:
            continue  # somebody else's
        if present != (None if cost is None else str(cost)):
            changes[name] = cost
    return changes


def _cost(work: float | None) -> int:
    """Of the work itself and not of its rank, so that it stays as it is while others' work changes."""
    return BUSIEST if work is None else min(IDLEST + round(max(0.0, work) * 1000), BUSIEST)


def write_costs(api: Api, namespace: str, changes: Mapping[str, int | None], until: float) -> None:
    """Of all that go, for of those left out the ReplicaSet would choose busy ones, too. A pod that has gone needs none.

    Raises ApiError, also where the time is not enough; what was written by then need not be written again.
    """
    going = [(name, cost) for name, cost in changes.items() if cost is not None]
    staying = [(name, cost) for name, cost in changes.items() if cost is None]
    for name, cost in [*going, *staying[:MAX_TAKEN_AWAY]]:
        value = None if cost is None else str(cost)
        body = {"metadata": {"annotations": {COST: value, OURS: value}}}
        try:
            api.patch(Place("v1", namespace, "pods", name), body, until)
        except ApiError as error:
            if error.status != 404:
                raise
