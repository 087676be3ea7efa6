"""Who else scales a Kubernetes object, and the floor that may be put under them.

A floor is the minimum of the user's own autoscaler, raised for a while. The object itself remembers, in annotations,
what the minimum was, what it was raised to and until when: whoever comes later, or a person, can take it back.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

from controllers.kubernetes_api import Api, ApiError, Json, Place

ORIGINAL = "tidewise.io/floor-original"
FLOOR = "tidewise.io/floor"
UNTIL = "tidewise.io/floor-until"
UNSET = "unset"  # as the original: the field was not there

HPA, SCALED_OBJECT = "HorizontalPodAutoscaler", "ScaledObject"
PAUSES = ("autoscaling.keda.sh/paused", "autoscaling.keda.sh/paused-replicas", "autoscaling.keda.sh/paused-scale-out")
FIELDS = {HPA: ("minReplicas", "maxReplicas"), SCALED_OBJECT: ("minReplicaCount", "maxReplicaCount")}
DEFAULTS = {HPA: (1, 1), SCALED_OBJECT: (0, 100)}
RENEW = 0.5  # of a floor's life: younger ones are left as they are


@dataclass(frozen=True, slots=True)
class Scaler:
    """An HPA or ScaledObject as it was read. `stated`: its minimum; None: it states none, and its default counts."""

    kind: str
    place: Place
    uid: str
    version: str
    stated: int | None
    maximum: int
    annotations: Mapping[str, str]
    target: tuple[str, str, str]  # API group, kind, name of what it scales
    owner: tuple[str, str] | None  # kind and name of what made it, and keeps it as it wants it
    idle: int | None = None  # what KEDA scales to while no trigger is active, whatever the minimum

    @property
    def minimum(self) -> int:
        return DEFAULTS[self.kind][0] if self.stated is None else self.stated

    @property
    def field(self) -> str:
        """Where its minimum stands in its spec."""
        return FIELDS[self.kind][0]

    def __str__(self) -> str:
        return f"the {self.kind} {self.place.name}"


@dataclass(frozen=True, slots=True)
class Floor:
    """What we raised a minimum to. `original`: what it was, None where none was stated; `until`: Unix seconds."""

    original: int | None
    floor: int
    until: float


def find_scalers(
    api: Api, namespace: str, target: tuple[str, str, str], until: float, age_seconds: float = 0.0
) -> list[Scaler]:
    """Those that scale this object (API version, kind, name). An HPA that KEDA made stands for its ScaledObject.

    age_seconds: how old an answer may be that another workload of the namespace has asked for. Raises ApiError.
    """
    group = (target[0].rpartition("/")[0], *target[1:])
    found = [one for one in _recent(api, namespace, until, age_seconds) if one.target == group]
    objects = {one.place.name for one in found if one.kind == SCALED_OBJECT}
    return [one for one in found if one.kind == SCALED_OBJECT or not (one.owner and one.owner[1] in objects)]


@dataclass
class _Looks:
    """The last answer of each namespace of a cluster, and when it was asked for (monotonic). One asks at a time."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    found: dict[str, tuple[float, list[Scaler]]] = field(default_factory=dict)


_LOOKS: WeakKeyDictionary[Api, _Looks] = WeakKeyDictionary()


def _recent(api: Api, namespace: str, until: float, age_seconds: float) -> list[Scaler]:
    """A thousand workloads of one namespace ask for the same list. Raises ApiError."""
    looks = _LOOKS.setdefault(api, _Looks())
    if not looks.lock.acquire(timeout=max(0.0, until - time.monotonic())):
        raise ApiError(f"list scalers in {namespace}: another request for them is still under way")
    try:
        asked_at, scalers = looks.found.get(namespace, (float("-inf"), []))
        now = time.monotonic()
        if now - asked_at >= age_seconds:
            scalers = all_scalers(api, namespace, until)
            looks.found[namespace] = (now, scalers)
        return scalers
    finally:
        looks.lock.release()


def all_scalers(api: Api, namespace: str, until: float) -> list[Scaler]:
    """Every ScaledObject, where KEDA is installed, and every HPA of a namespace. Raises ApiError."""
    # Asked first: without KEDA its objects are refused like everything else that nobody granted.
    keda = api.discover("/apis/keda.sh", until) is not None
    kinds = [SCALED_OBJECT, HPA] if keda else [HPA]
    return [parsed(kind, namespace, body) for kind in kinds for body in api.items(place_of(kind, namespace), until)]


def place_of(kind: str, namespace: str, name: str | None = None) -> Place:
    if kind == HPA:
        return Place("autoscaling/v2", namespace, "horizontalpodautoscalers", name)
    return Place("keda.sh/v1alpha1", namespace, "scaledobjects", name)


def parsed(kind: str, namespace: str, body: Json) -> Scaler:
    """A scaler out of the API's answer. All versions of a target's group are one; KEDA's default is a Deployment."""
    meta, spec = body.get("metadata") or {}, body.get("spec") or {}
    reference = spec.get("scaleTargetRef") or {}
    least, most = FIELDS[kind]
    owner = next((one for one in meta.get("ownerReferences") or [] if one.get("controller")), None)
    return Scaler(
        kind=kind,
        place=place_of(kind, namespace, str(meta.get("name"))),
        uid=str(meta.get("uid")),
        version=str(meta.get("resourceVersion")),
        stated=spec.get(least),
        maximum=spec.get(most) or DEFAULTS[kind][1],
        annotations=meta.get("annotations") or {},
        target=(
            str(reference.get("apiVersion") or "apps/v1").rpartition("/")[0],
            str(reference.get("kind") or "Deployment"),
            str(reference.get("name")),
        ),
        owner=(str(owner.get("kind")), str(owner.get("name"))) if owner else None,
        idle=spec.get("idleReplicaCount"),
    )


def obstacle(scalers: list[Scaler]) -> str | None:
    """Why no floor can be put there, and what to do; None where one can."""
    if len(scalers) > 1:
        names = " and ".join(map(str, scalers))
        return f"{names} scale it, and each undoes what the other does; delete all but one"
    (scaler,) = scalers
    if scaler.owner is not None:
        kind, name = scaler.owner
        return (
            f"{scaler} belongs to the {kind} {name}, which would put its minimum back; "
            "raise it there, or set this workload's mode to recommend"
        )
    for key in PAUSES:
        if (value := scaler.annotations.get(key)) not in (None, "", "false"):
            return f"{scaler} is paused ({key}: {value}) and left alone until that annotation is gone"
    return None


def floor_of(scaler: Scaler) -> Floor | None:
    """Our floor, if it is in force: somebody who set another minimum since has ended it."""
    told = scaler.annotations
    original, floor = told.get(ORIGINAL, ""), told.get(FLOOR, "")
    if not (original == UNSET or original.isdecimal()) or not floor.isdecimal() or int(floor) != scaler.stated:
        return None
    return Floor(None if original == UNSET else int(original), int(floor), _parsed_time(told.get(UNTIL, "")))


def is_marked(scaler: Scaler) -> bool:
    """Whether anything of ours is on it, be it outdated."""
    return any(key in scaler.annotations for key in (ORIGINAL, FLOOR, UNTIL))


def own_minimum(scaler: Scaler) -> int:
    """The user's own minimum, under our floor."""
    floor = floor_of(scaler)
    if floor is None:
        return scaler.minimum
    return DEFAULTS[scaler.kind][0] if floor.original is None else floor.original


def change(scaler: Scaler, wanted: int | None, now: float, seconds: float) -> Json | None:
    """The merge patch that makes `wanted` the floor for `seconds` from now; None where nothing has to change.

    wanted: within the user's own minimum and maximum whatever is asked; None: the floor is given up. The patch names
    the version that was read, one field of the spec, and our annotations; nothing else is touched.
    """
    present = floor_of(scaler)
    original = present.original if present else scaler.stated
    floor = min(max(wanted or 0, own_minimum(scaler)), scaler.maximum)
    if floor <= own_minimum(scaler):
        if not is_marked(scaler):
            return None
        spec = {scaler.field: original} if present else {}  # a minimum that somebody set since stays
        return _patch(scaler, spec, {ORIGINAL: None, FLOOR: None, UNTIL: None})
    if present and present.floor == floor and present.until - now > RENEW * seconds:
        return None
    until = datetime.fromtimestamp(now + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {ORIGINAL: UNSET if original is None else str(original), FLOOR: str(floor), UNTIL: until}
    return _patch(scaler, {scaler.field: floor}, told)


def _patch(scaler: Scaler, spec: Json, annotations: Mapping[str, str | None]) -> Json:
    meta = {"resourceVersion": scaler.version, "annotations": dict(annotations)}
    return {"metadata": meta, **({"spec": spec} if spec else {})}


def _parsed_time(text: str) -> float:
    """Unix seconds. What cannot be read has passed: a floor that nobody can date does not stay for ever."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
