"""Replicas of a Kubernetes object, by its scale subresource; told only where nothing changed since it was read.

What was read is remembered with its version and UID, and `apply` names both. So a decision is carried out on what it
was made for or not at all: not on an object of the same name that was created anew, and not over somebody else's head.

Where the user's own HPA or KEDA ScaledObject scales the object, its minimum is told instead: a floor, which expires.
"""

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controllers.actuators.interface import Actuator, ActuatorError, PermanentError
from controllers.actuators.kubernetes_floor import read_scaler, tell_floor
from controllers.actuators.kubernetes_objects import object_of, scale_place
from controllers.actuators.kubernetes_pods import cost_changes, is_leaving, is_ready, name_of, write_costs
from controllers.actuators.kubernetes_scalers import HPA, Scaler, find_scalers, obstacle
from controllers.config import Cluster, KubernetesTarget
from controllers.domain import Replicas
from controllers.kubernetes_api import Api, ApiError, Json, Place

# While pods start, an object's status changes several times a second, and its version each time.
ATTEMPTS = 5
WRITE_SHARE = 0.6  # of the deadline; the rest is for reading back what became of it
LOOK_SECONDS = 60.0  # between two looks for other scalers while nothing is told
REFUSED_SECONDS = 600.0  # after a look that was not allowed


def kubernetes_actuator(target: KubernetesTarget, api: Api | None = None) -> Actuator:
    """The actuator for `target.kubernetes`. Workloads of one cluster share the connection."""
    scaled = _Scaled(target, api or shared_api(target.kubeconfig, target.context))
    return Actuator(scaled.read_replicas, scaled.apply, release=scaled.release)


@functools.cache
def shared_api(kubeconfig: Path | None, context: str | None) -> Api:
    """One connection for all workloads of one cluster."""
    return Api(Cluster(kubeconfig=kubeconfig, context=context))


@dataclass(frozen=True, slots=True)
class Scale:
    """An object's scale as it was read."""

    uid: str
    version: str
    wanted: int
    selector: str
    body: Json


class _Scaled:
    """One object, and its scale as the present decision saw it."""

    def __init__(self, target: KubernetesTarget, api: Api) -> None:
        self._target = target
        self._api = api
        self._object = object_of(target)
        self._place: Place | None = None
        self._seen: Scale | None = None
        self._pods_seen: list[Json] | None = None
        self._scalers: list[Scaler] = []  # besides us, as last seen
        self._look_again_at = 0.0  # monotonic

    def read_replicas(self, seconds: float) -> Replicas:
        until = self._until(seconds)
        try:
            scale = self._seen = self._read(until)
            floor = self._floor_now(until)
            pods = self._pods_seen = self._pods(scale, until)
            leaving = sum(1 for pod in pods if is_leaving(pod))
            return Replicas(wanted=scale.wanted, ready=sum(map(is_ready, pods)), draining=leaving, floor=floor)
        except ApiError as error:
            raise _for_actuator(error) from None

    def apply(
        self, replicas: int, seconds: float, victims: tuple[str, ...] = (), in_hand: Mapping[str, float] | None = None
    ) -> None:
        until = self._until(seconds)
        try:
            seen = self._seen or self._read(until)
            self._seen = None  # what it is now comes out of what follows; after a failure it is read anew
            scaler = self._scaler(until)
            if scaler is not None:
                self._put_floor(scaler, seen, replicas, victims, in_hand, until)
                return
            self._spare_the_busy(seen, seen.wanted - replicas, victims, in_hand, until)
            if victims and replicas < seen.wanted:
                self._evict(seen, victims, until)
            self._seen = self._set(seen, replicas, until)
        except ApiError as error:
            raise _for_actuator(error) from None

    def release(self, seconds: float) -> None:
        """Gives the user's own minimum back, where we raised it."""
        until = self._until(seconds)
        try:
            for scaler in self._scalers:
                tell_floor(self._api, read_scaler(self._api, scaler, until), None, time.time(), 0.0, until)
        except ApiError as error:
            if error.status != 404:  # else it is gone, and its minimum with it
                raise _for_actuator(error) from None

    def _put_floor(
        self,
        scaler: Scaler,
        seen: Scale,
        replicas: int,
        victims: tuple[str, ...],
        in_hand: Mapping[str, float] | None,
        until: float,
    ) -> None:
        if scaler.kind == HPA and seen.wanted == 0 and replicas > 0:
            raise PermanentError(
                f"{self._target.namespace}/{self._name}: has 0 replicas, which switches {scaler} off, whatever its "
                "minimum; scale it to 1 by hand to switch it on"
            )
        self._spare_the_busy(seen, seen.wanted - replicas, victims, in_hand, until)
        if victims and replicas < scaler.minimum:
            self._evict(seen, victims, until)
        self._look_again_at = 0.0  # as above: after a failure it is read anew
        self._scalers = [tell_floor(self._api, scaler, replicas, time.time(), self._target.floor_seconds, until)]
        self._look_again_at = time.monotonic() + LOOK_SECONDS

    def _floor_now(self, until: float) -> int | None:
        """The minimum of the user's own autoscaler, where there is one under which a floor can be put."""
        if self._target.beside == "refuse":
            return None
        try:
            scalers = self._look(until)
        except ApiError as error:
            if error.status != 403:
                raise
            self._scalers = []  # not granted where nothing is told; `apply` names what it lacks
            self._look_again_at = time.monotonic() + REFUSED_SECONDS
            return None
        return scalers[0].minimum if scalers and obstacle(scalers) is None else None

    def _look(self, until: float) -> list[Scaler]:
        """Those that scale the object as well: looked for now and then, and read anew each time. Raises ApiError."""
        now = time.monotonic()
        if now >= self._look_again_at:
            self._scalers = self._found(until, LOOK_SECONDS / 2)
            self._look_again_at = now + LOOK_SECONDS
        try:
            self._scalers = [read_scaler(self._api, scaler, until) for scaler in self._scalers]
        except ApiError as error:
            if error.status != 404:
                raise
            self._scalers = self._found(until)
        return self._scalers

    def _found(self, until: float, age_seconds: float = 0.0) -> list[Scaler]:
        return find_scalers(self._api, self._target.namespace, self._object, until, age_seconds)

    def _scaler(self, until: float) -> Scaler | None:
        """The one whose floor is told; None where nobody else scales the object.

        Two that set one number undo each other's work, so beside one that bears no floor nothing is told.
        """
        scalers = self._scalers  # those that the decision saw
        if not scalers or self._target.beside == "refuse" or time.monotonic() >= self._look_again_at:
            scalers = self._scalers = self._found(until)
            self._look_again_at = time.monotonic() + LOOK_SECONDS
        if not scalers:
            return None
        name = f"{self._target.namespace}/{self._name}"
        if self._target.beside == "refuse":
            raise PermanentError(
                f"{name}: {scalers[0]} scales it as well, and each would undo what the other does; delete that "
                f"{scalers[0].kind}, write beside: floor, or set this workload's mode to shadow or recommend"
            )
        if (why := obstacle(scalers)) is not None:
            raise PermanentError(f"{name}: {why}")
        return scalers[0]

    def _spare_the_busy(
        self,
        seen: Scale,
        leaving: int,
        victims: tuple[str, ...],
        in_hand: Mapping[str, float] | None,
        until: float,
    ) -> None:
        """Where work in hand is known, has the idlest pods go first. In vain on a StatefulSet: its last one goes."""
        if not in_hand or self._object[1] == "StatefulSet":
            return
        pods = self._pods_seen if self._pods_seen is not None else self._pods(seen, until)
        write_costs(self._api, self._target.namespace, cost_changes(pods, in_hand, leaving, victims), until)

    def _set(self, seen: Scale, replicas: int, until: float) -> Scale:
        """The scale after it was set. A version outdated by something else than the number is taken anew."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._write(seen, replicas, until)
            except ApiError as error:
                if error.status != 409 or attempt == ATTEMPTS:
                    raise
            found = self._read(until)
            self._refuse_another(seen, found)
            if found.wanted == replicas:
                return found
            if found.wanted != seen.wanted:
                raise ActuatorError(
                    f"{self._at(until)}: somebody else set {found.wanted} instead of {seen.wanted} meanwhile; "
                    "left alone, the next decision starts from there"
                )
            seen = found
        raise AssertionError("unreachable")

    def _write(self, seen: Scale, replicas: int, until: float) -> Scale:
        """Tells the number; where the answer does not come or says nothing, reads back what became of it."""
        place = self._at(until)
        meta = seen.body["metadata"]
        body = {
            **seen.body,
            "metadata": {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion")},
            "spec": {"replicas": replicas},
        }
        now = time.monotonic()
        try:
            scale = parsed(self._api.replace(place, body, now + (until - now) * WRITE_SHARE), place)
        except ApiError as error:
            if not error.maybe_done:
                raise
            scale = self._read(until)
            self._refuse_another(seen, scale)
            if scale.wanted != replicas:
                raise ActuatorError(f"{error}; read back: it still has {scale.wanted}") from None
        if scale.wanted != replicas:
            raise ActuatorError(
                f"{place}: was told {replicas} and made it {scale.wanted}; does an admission webhook bound it?"
            )
        return scale

    def _read(self, until: float) -> Scale:
        place = self._at(until)
        return parsed(self._api.read(place, until), place)

    def _evict(self, seen: Scale, victims: tuple[str, ...], until: float) -> None:
        """Asks to end those of this object's own pods that are ready; others its owner ends first by itself.

        A PodDisruptionBudget may say not now (429), which is an error. What the owner starts in their place is not
        ready yet when the smaller number is set, and so goes first.
        """
        ours = {name_of(pod) for pod in self._pods(seen, until) if is_ready(pod)}
        for pod in ours.intersection(victims):
            place = Place("v1", self._target.namespace, "pods", pod, "eviction")
            meta = {"name": pod, "namespace": self._target.namespace}
            body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
            try:
                self._api.create(place, body, until)
            except ApiError as error:
                if error.status != 404:
                    raise

    def _pods(self, scale: Scale, until: float) -> list[Json]:
        """The pods of the object's selector."""
        if not scale.selector:
            raise PermanentError(
                f"{self._at(until)}: its scale names no selector, so its pods cannot be counted; "
                "set labelSelectorPath in the scale subresource of its CustomResourceDefinition"
            )
        return self._api.items(Place("v1", self._target.namespace, "pods"), until, labelSelector=scale.selector)

    def _refuse_another(self, seen: Scale, found: Scale) -> None:
        if found.uid != seen.uid:
            raise ActuatorError(
                f"{self._target.namespace}/{self._name}: was deleted and created anew meanwhile; "
                "left alone, the next decision is made for the new one"
            )

    @property
    def _name(self) -> str:
        return "/".join(self._object[1:])

    def _at(self, until: float) -> Place:
        """Where the object's scale is; found out once."""
        if self._place is None:
            self._place = scale_place(self._api, self._target, until)
        return self._place

    def _until(self, seconds: float) -> float:
        return time.monotonic() + min(seconds, self._target.timeout_seconds)


def parsed(body: Json, place: Place) -> Scale:
    """A scale out of the API's answer. Zero replicas are left out there. Raises ActuatorError."""
    meta, spec, status = (body.get(key) or {} for key in ("metadata", "spec", "status"))
    wanted = spec.get("replicas", 0)
    if body.get("kind") != "Scale" or not meta.get("uid") or not isinstance(wanted, int):
        raise ActuatorError(f"{place}: the answer is no scale; is another server behind this address?")
    return Scale(meta["uid"], meta["resourceVersion"], wanted, status.get("selector", ""), body)


def _for_actuator(error: ApiError) -> ActuatorError:
    return PermanentError(str(error)) if error.permanent else ActuatorError(str(error))
