"""A target's pods: which of them work, and which go first when there are to be fewer.

A ReplicaSet ends pods that are not ready first, then those with the lowest `pod-deletion-cost`. So the idlest get a low
one right before a smaller number is set. A StatefulSet ends the highest ordinal whatever the cost.
"""

from collections.abc import Collection, Mapping

from controllers.kubernetes_api import Api, ApiError, Json, Place

COST = "controller.kubernetes.io/pod-deletion-cost"
OURS = "tidewise.io/pod-deletion-cost"  # beside it: that we set it, and to what
VICTIM = -2_000_000_000
IDLEST = -1_000_000_000  # and upwards; below any cost that somebody else would write
MAX_PATCHES = 100  # in one call


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
        name_of(pod): VICTIM if name_of(pod) in victims else IDLEST + place for place, pod in enumerate(going)
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


def write_costs(api: Api, namespace: str, changes: Mapping[str, int | None], until: float) -> None:
    """At most MAX_PATCHES of them, in order. A pod that is gone by then needs none. Raises ApiError."""
    for name, cost in list(changes.items())[:MAX_PATCHES]:
        value = None if cost is None else str(cost)
        body = {"metadata": {"annotations": {COST: value, OURS: value}}}
        try:
            api.patch(Place("v1", namespace, "pods", name), body, until)
        except ApiError as error:
            if error.status != 404:
                raise
