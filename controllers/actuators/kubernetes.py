"""Replicas of a Kubernetes object, by its scale subresource; told only where nothing changed since it was read.

What was read is remembered with its version and UID, and `apply` names both. So a decision is carried out on what it
was made for or not at all: not on an object of the same name that was created anew, and not over somebody else's head.
"""

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controllers.actuators.interface import Actuator, ActuatorError, PermanentError
from controllers.config import Cluster, KubernetesTarget
from controllers.domain import Replicas
from controllers.kubernetes_api import Api, ApiError, Json, Place, group_path

# While pods start, an object's status changes several times a second, and its version each time.
ATTEMPTS = 5
WRITE_SHARE = 0.6  # of the deadline; the rest is for reading back what became of it


def kubernetes_actuator(target: KubernetesTarget, api: Api | None = None) -> Actuator:
    """The actuator for `target.kubernetes`. Workloads of one cluster share the connection."""
    scaled = _Scaled(target, api or shared_api(target.kubeconfig, target.context))
    return Actuator(scaled.read_replicas, scaled.apply)


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
        self._place: Place | None = None
        self._seen: Scale | None = None

    def read_replicas(self, seconds: float) -> Replicas:
        until = self._until(seconds)
        try:
            scale = self._seen = self._read(until)
            pods = self._pods(scale, until)
            leaving = sum(1 for pod in pods if is_leaving(pod))
            return Replicas(wanted=scale.wanted, ready=sum(map(is_ready, pods)), draining=leaving)
        except ApiError as error:
            raise _for_actuator(error) from None

    def apply(
        self, replicas: int, seconds: float, victims: tuple[str, ...] = (), in_hand: Mapping[str, float] | None = None
    ) -> None:
        until = self._until(seconds)
        try:
            seen = self._seen or self._read(until)
            self._seen = None  # what it is now comes out of what follows; after a failure it is read anew
            self._refuse_beside_others(until)
            if victims and replicas < seen.wanted:
                self._evict(seen, victims, until)
            self._seen = self._set(seen, replicas, until)
        except ApiError as error:
            raise _for_actuator(error) from None

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
        ours = {str((pod.get("metadata") or {}).get("name")) for pod in self._pods(seen, until) if is_ready(pod)}
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

    def _refuse_beside_others(self, until: float) -> None:
        """Two that set one number undo each other's work, so neither an HPA nor KEDA may have this object as well."""
        namespace = self._target.namespace
        scalers = {"HorizontalPodAutoscaler": Place("autoscaling/v2", namespace, "horizontalpodautoscalers")}
        # Asked first: without KEDA its objects are refused like everything else that nobody granted.
        if self._api.discover("/apis/keda.sh", until) is not None:
            scalers = {"ScaledObject": Place("keda.sh/v1alpha1", namespace, "scaledobjects"), **scalers}
        for kind, place in scalers.items():
            for scaler in self._api.items(place, until):
                if _same_object((scaler.get("spec") or {}).get("scaleTargetRef"), self._object):
                    name = (scaler.get("metadata") or {}).get("name")
                    raise PermanentError(
                        f"{namespace}/{self._name}: the {kind} {name} scales it as well, and each would undo what the "
                        f"other does; delete that {kind}, or set this workload's mode to shadow or recommend"
                    )

    @property
    def _object(self) -> tuple[str, str, str]:
        """(API version, kind, name)."""
        target = self._target
        if target.generic is not None:
            return target.generic.api_version, target.generic.kind, target.generic.name
        kind, name = ("Deployment", target.deployment) if target.deployment else ("StatefulSet", target.statefulset)
        return "apps/v1", kind, str(name)

    @property
    def _name(self) -> str:
        return "/".join(self._object[1:])

    def _at(self, until: float) -> Place:
        """Where the object's scale is; for a kind that is not Kubernetes' own the server is asked, once."""
        if self._place is None:
            api_version, kind, name = self._object
            resource = f"{kind.lower()}s" if self._target.generic is None else self._resource(api_version, kind, until)
            self._place = Place(api_version, self._target.namespace, resource, name, "scale")
        return self._place

    def _resource(self, api_version: str, kind: str, until: float) -> str:
        """The plural under which the server serves `kind`."""
        served = (self._api.discover(group_path(api_version), until) or {}).get("resources") or []
        names = {entry.get("name"): entry.get("kind") for entry in served}
        for name, its_kind in names.items():
            if its_kind == kind and f"{name}/scale" in names:
                return str(name)
        found = "has no scale subresource" if kind in names.values() else "is not served by this cluster"
        raise PermanentError(f"target.kubernetes.generic: {kind} of {api_version} {found}; correct it")

    def _until(self, seconds: float) -> float:
        return time.monotonic() + min(seconds, self._target.timeout_seconds)


def parsed(body: Json, place: Place) -> Scale:
    """A scale out of the API's answer. Zero replicas are left out there. Raises ActuatorError."""
    meta, spec, status = (body.get(key) or {} for key in ("metadata", "spec", "status"))
    wanted = spec.get("replicas", 0)
    if body.get("kind") != "Scale" or not meta.get("uid") or not isinstance(wanted, int):
        raise ActuatorError(f"{place}: the answer is no scale; is another server behind this address?")
    return Scale(meta["uid"], meta["resourceVersion"], wanted, status.get("selector", ""), body)


def is_ready(pod: Json) -> bool:
    """Whether the pod counts as working: ready, and not on its way out."""
    if is_leaving(pod):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def is_leaving(pod: Json) -> bool:
    """Whether the pod was told to end: no capacity any more, and still paid for."""
    return bool((pod.get("metadata") or {}).get("deletionTimestamp"))


def _same_object(reference: Json | None, target: tuple[str, str, str]) -> bool:
    """Whether a scaler's reference means this object. All versions of a group do; KEDA's default is a Deployment."""
    reference = reference or {}
    group = str(reference.get("apiVersion", "apps/v1")).rpartition("/")[0]
    api_version, kind, name = target
    return (group, reference.get("kind", "Deployment"), reference.get("name")) == (
        api_version.rpartition("/")[0],
        kind,
        name,
    )


def _for_actuator(error: ApiError) -> ActuatorError:
    return PermanentError(str(error)) if error.permanent else ActuatorError(str(error))
