"""What `tidewise check` finds out about Kubernetes targets: how they will be told, with what rights, and whether a busy
worker is given the time to finish when it is told to end."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from controllers.actuators.interface import PermanentError
from controllers.actuators.kubernetes import shared_api
from controllers.actuators.kubernetes_objects import object_of, scale_place
from controllers.actuators.kubernetes_pods import is_leaving
from controllers.actuators.kubernetes_scalers import HPA, SCALED_OBJECT, Scaler, find_scalers, obstacle, own_minimum
from controllers.actuators.kubernetes_scalers import place_of as scalers_place
from controllers.config import Config, KubernetesTarget, Lease, Workload
from controllers.domain import Mode
from controllers.kubernetes_api import Api, ApiError, Json, Place
from controllers.sources.prometheus import Source, SourceError

SECONDS = 10.0  # for one workload
LONGEST_QUERY = "max by (system, queue) (max_over_time(queue:process_seconds:p99_5m[1d]))"
LONGEST = 3.0  # times the mean: 95 % of what takes an exponential time is done by then


@dataclass(frozen=True, slots=True)
class Found:
    """What the cluster says of one target. None: not known.

    `scalers`: who else scales it; `missing`: the rights that are lacking; `grace_seconds`: from being told to end to
    being killed, the shortest of its pods.
    """

    scalers: tuple[Scaler, ...] | None = ()
    missing: tuple[str, ...] = ()
    grace_seconds: float | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """`missing`: something without which an acting workload is not told."""

    lines: tuple[str, ...]
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Takes:
    """Seconds that one piece of work takes, as measured. None: nobody does."""

    mean: float | None = None
    longest: float | None = None  # the 99th percentile of some five minutes


def taken(config: Config, source: Source | None, means: Mapping[str, float]) -> dict[str, Takes]:
    """By workload. `means`: as measured. The longest are asked for, where a system keeps the times of its work."""
    longest: dict[tuple[str, str], float] = {}
    if source is not None:
        try:
            found = source.instant(LONGEST_QUERY, deadline_seconds=SECONDS)
            for series in found:
                queue = series.labels.get("system", ""), series.labels.get("queue", "")
                longest[queue] = series.samples[-1].value
        except SourceError as error:
            print(f"warning: how long the longest work takes could not be asked ({error}); its mean counts")
    return {
        one.identity: Takes(means.get(one.identity), longest.get((one.demand.system, one.demand.queue or "")))
        for one in config.workloads
    }


def report(config: Config, takes: Mapping[str, Takes]) -> Report:
    """What is to be said of all Kubernetes targets. `takes`: by workload."""
    lines: list[str] = []
    missing = False
    silent: set[tuple[object, object]] = set()
    for workload, target in [pair for one in config.workloads for pair in _told_as(one)]:
        if (cluster := (target.kubeconfig, target.context)) in silent:
            continue
        api = shared_api(target.kubeconfig, target.context)
        try:
            found = look(api, workload, target, _is_replaced(config, workload), time.monotonic() + SECONDS)
        except ApiError as error:
            silent.add(cluster)
            lines.append(f"warning: Kubernetes cannot be asked ({error}), so its targets were not looked at")
            continue
        said = told(workload, target, found, takes.get(workload.identity, Takes()))
        lines += [f"{workload.identity}: {line}" for line in said]
        acts = workload.mode is Mode.ACT
        missing = missing or (acts and bool(found.missing or found.problem or _refusal(target, found)))
    lease = config.scale.lease
    if lease is not None and (lease.kubeconfig, lease.context) not in silent and (lacks := _lacking(lease)):
        lines.append(f"scale.lease: warning: {lacks}, and without it nobody acts; grant it, see docs/kubernetes.md")
        missing = missing or any(one.mode is Mode.ACT for one in config.workloads)
    return Report(tuple(lines), missing)


def _lacking(lease: Lease) -> str | None:
    """What cannot be done with the lease; None where the scaler can lead by it."""
    api, until = shared_api(lease.kubeconfig, lease.context), time.monotonic() + SECONDS
    place = Place("coordination.k8s.io/v1", lease.namespace, "leases", lease.name)
    try:
        missing = _missing(api, [("get", place), ("update", place)], until)
        if not missing and not _is_there(api, place, until):
            missing = _missing(api, [("create", replace(place, name=None))], until)
    except ApiError as error:
        return f"it cannot be looked at ({error})"
    return f"it may not {', '.join(missing)} in namespace {lease.namespace}" if missing else None


def _is_there(api: Api, place: Place, until: float) -> bool:
    try:
        api.read(place, until)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    return True


def _told_as(workload: Workload) -> list[tuple[Workload, KubernetesTarget]]:
    """Its Kubernetes targets. One of several is never a floor: those are added up, and a floor is no number."""
    targets = workload.target.all_kubernetes
    if workload.target.several is not None:
        targets = [target.model_copy(update={"beside": "refuse"}) for target in targets]
    return [(workload, target) for target in targets]


def look(api: Api, workload: Workload, target: KubernetesTarget, replaced: bool, until: float) -> Found:
    """Raises ApiError when the cluster tells nothing at all."""
    try:
        scale = scale_place(api, target, until)
    except PermanentError as error:
        return Found(problem=str(error))
    found = Found()
    pods = Place("v1", target.namespace, "pods")
    needed = [("get", scale), ("list", pods)]
    if workload.mode is Mode.ACT:
        needed += [("list", scalers_place(HPA, target.namespace))]
        if api.discover("/apis/keda.sh", until) is not None:
            needed += [("list", scalers_place(SCALED_OBJECT, target.namespace))]
    missing = _missing(api, needed, until)
    try:
        scalers = find_scalers(api, target.namespace, object_of(target), until)
        found = replace(found, scalers=tuple(scalers))
    except ApiError as error:
        if error.status != 403:
            raise
        found = replace(found, scalers=None)
    if workload.mode is Mode.ACT and _refusal(target, found) is None:
        missing += _missing(api, _to_act(workload, target, found, scale, replaced), until)
    found = replace(found, missing=tuple(missing))
    try:
        body = api.read(scale, until)
        return replace(found, grace_seconds=_grace_seconds(api, scale, body, until))
    except ApiError as error:
        if error.status == 404:
            return replace(found, problem=str(error))
        if error.status != 403:
            raise
        return found


def _to_act(
    workload: Workload, target: KubernetesTarget, found: Found, scale: Place, replaced: bool
) -> list[tuple[str, Place]]:
    """The rights that carrying a decision out takes, beside those to look."""
    needed = [(verb, scaler.place) for scaler in found.scalers or () for verb in ("get", "patch")] or [
        ("update", scale)
    ]
    if workload.in_hand is not None and object_of(target)[1] != "StatefulSet":
        needed.append(("patch", Place("v1", target.namespace, "pods")))
    if replaced:
        needed.append(("create", Place("v1", target.namespace, "pods", subresource="eviction")))
    return needed


def _missing(api: Api, needed: list[tuple[str, Place]], until: float) -> list[str]:
    return [f"{verb} {place.right}" for verb, place in needed if not api.may(verb, place, until)]


def _grace_seconds(api: Api, scale: Place, body: Json, until: float) -> float | None:
    """Of its pods, the shortest; while there are none, of the template, where that may be read."""
    try:
        selector = (body.get("status") or {}).get("selector")
        place = Place("v1", scale.namespace, "pods")
        pods = api.items(place, until, labelSelector=selector) if selector else []
        graces = [(pod.get("spec") or {}).get("terminationGracePeriodSeconds") for pod in pods if not is_leaving(pod)]
        if known := [float(grace) for grace in graces if grace is not None]:
            return min(known)
        template = api.read(replace(scale, subresource=None), until).get("spec", {}).get("template") or {}
        grace = (template.get("spec") or {}).get("terminationGracePeriodSeconds")
        return None if grace is None else float(grace)
    except ApiError as error:
        if error.status == 403:
            return None
        raise


def told(workload: Workload, target: KubernetesTarget, found: Found, takes: Takes) -> list[str]:
    """The lines about one target: how it will be told, then the warnings."""
    _, kind, name = object_of(target)
    if found.problem is not None:
        return [f"warning: {found.problem}"]
    lines = [f"{kind} {name} in {target.namespace}: {_how(target, found)}"]
    if found.missing:
        rights = ", ".join(found.missing)
        lines.append(f"warning: it may not {rights} in namespace {target.namespace}; grant it, see docs/kubernetes.md")
    if (grace := _grace(workload, kind, name, found.grace_seconds, takes)) is not None:
        lines.append(f"warning: {grace}")
    for scaler in found.scalers or ():
        if workload.replicas.max > scaler.maximum:
            lines.append(
                f"warning: {scaler} has at most {scaler.maximum} and replicas.max is {workload.replicas.max}; "
                "a floor goes no higher than its maximum: raise one or lower the other"
            )
        if scaler.idle is not None:
            lines.append(
                f"warning: {scaler} has idleReplicaCount {scaler.idle}, to which KEDA scales while no trigger is "
                "active, whatever the minimum; without it the floor would hold then as well"
            )
    if workload.in_hand is not None and kind == "StatefulSet":
        lines.append("warning: in_hand chooses nobody here: a StatefulSet ends the highest ordinal first, busy or not")
    return lines


def _how(target: KubernetesTarget, found: Found) -> str:
    if found.scalers is None:
        return "it may not list HPAs and ScaledObjects here, so whether one scales it as well is not known"
    if not found.scalers:
        return "its number is set"
    if (refusal := _refusal(target, found)) is not None:
        return f"nothing is told: {refusal}"
    (scaler,) = found.scalers
    bounds = f"its own minimum is {own_minimum(scaler)}, its maximum {scaler.maximum}"
    return f"a floor is put under {scaler} ({bounds}), for {target.floor_seconds:g} s at a time"


def _refusal(target: KubernetesTarget, found: Found) -> str | None:
    if not found.scalers:
        return None
    if target.beside == "refuse":
        return f"{found.scalers[0]} scales it as well, and target.kubernetes.beside is refuse"
    return obstacle(list(found.scalers))


def _grace(workload: Workload, kind: str, name: str, grace: float | None, takes: Takes) -> str | None:
    """Why a busy worker may be killed, and what to write; None where it may finish, or nothing is known."""
    mean, source = max(
        (takes.mean or 0.0, "as measured"),
        (workload.capacity.service_seconds or 0.0, "as capacity.service_seconds says"),
        key=lambda one: one[0],
    )
    needed = math.ceil(LONGEST * mean if takes.longest is None else max(takes.longest, mean))
    if grace is None or grace >= needed:
        return None
    fate = "a busy worker is killed before it is done" if grace < mean else "longer ones are cut off"
    longest = "" if takes.longest is None else f", and up to {takes.longest:.3g} s (99 % of it)"
    return (
        f"its pods have {grace:g} s to end in (terminationGracePeriodSeconds) and one piece of work takes "
        f"{mean:.3g} s on average, {source}{longest}: {fate} when it is scaled in; write "
        f"terminationGracePeriodSeconds: {needed} in the pod template of {kind} {name}"
    )


def _is_replaced(config: Config, workload: Workload) -> bool:
    """Whether recovery may have its instances replaced."""
    if config.recovery is None or workload.mode is not Mode.ACT:
        return False
    return any(one.replace is not None and one.workload == workload.identity for one in config.recovery.targets)
