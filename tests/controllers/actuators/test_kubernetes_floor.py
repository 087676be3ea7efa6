"""A floor under the user's own autoscaler: on a server that misbehaves on request, and on a real control plane."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controllers.actuators.interface import Actuator, ActuatorError, NoCapacityError, PermanentError
from controllers.actuators.kubernetes import kubernetes_actuator
from controllers.actuators.kubernetes_floor import has_expired
from controllers.actuators.kubernetes_scalers import FLOOR, HPA, ORIGINAL, SCALED_OBJECT, UNTIL, change, parsed
from controllers.actuators.shadow import in_shadow
from controllers.config import Cluster, KubernetesTarget
from controllers.kubernetes_api import Api
from testbed.kube.cluster import AnswerError
from testbed.kube.cluster import Cluster as ControlPlane

Json = dict[str, Any]

SCALE = "/apis/apps/v1/namespaces/prod/deployments/worker/scale"
PODS = "/api/v1/namespaces/prod/pods"
HPAS = "/apis/autoscaling/v2/namespaces/prod/horizontalpodautoscalers"
SCALED_OBJECTS = "/apis/keda.sh/v1alpha1/namespaces/prod/scaledobjects"
NOW = 1_800_000_000.0
REFERENCE = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"}


def hpa(least: int | None = 2, most: int = 10, name: str = "busy", **meta: Any) -> Json:
    spec = {"scaleTargetRef": REFERENCE, "maxReplicas": most, **({} if least is None else {"minReplicas": least})}
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "7", **meta}, "spec": spec}


def scaled_object(least: int | None = None, name: str = "jobs", **meta: Any) -> Json:
    spec = {"scaleTargetRef": {"name": "worker"}, **({} if least is None else {"minReplicaCount": least})}
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": "7", **meta}, "spec": spec}


def told(original: str, floor: str, until: float = NOW + 600) -> Json:
    return {ORIGINAL: original, FLOOR: floor, UNTIL: stamp(until)}


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


GONE = {ORIGINAL: None, FLOOR: None, UNTIL: None}
CHANGES: list[tuple[str, str, Json, int | None, int | None, Json | None]] = [
    # what it is; the object; what is wanted; the minimum in the patch (None: none in it); annotations (None: no patch)
    ("more than the minimum raises it", HPA, hpa(2), 5, 5, told("2", "5")),
    ("less than the user's own changes nothing", HPA, hpa(2), 1, None, None),
    ("the user's own changes nothing", HPA, hpa(2), 2, None, None),
    ("more than the maximum is the maximum", HPA, hpa(2, most=4), 9, 4, told("2", "4")),
    ("the same floor is left while it is young", HPA, hpa(5, annotations=told("2", "5", NOW + 400)), 5, None, None),
    ("and told again when half its time is over", HPA, hpa(5, annotations=told("2", "5", NOW + 200)), 5, 5,
     told("2", "5")),
    ("another floor is told over it", HPA, hpa(5, annotations=told("2", "5")), 3, 3, told("2", "3")),
    ("no longer needed: the user's own is back", HPA, hpa(5, annotations=told("2", "5")), 1, 2, GONE),
    ("given up: the user's own is back", HPA, hpa(5, annotations=told("2", "5")), None, 2, GONE),
    ("given up, and there is none", HPA, hpa(2), None, None, None),
    ("the user set another: it counts as the own", HPA, hpa(3, annotations=told("2", "5")), 6, 6, told("3", "6")),
    ("the user set another, which is enough: it stays", HPA, hpa(7, annotations=told("2", "5")), 6, None, GONE),
    ("the user set another, and the floor is given up", HPA, hpa(3, annotations=told("2", "5")), None, None, GONE),
    ("an original that is no number says nothing", HPA, hpa(5, annotations=told("two", "5")), 6, 6, told("5", "6")),
    ("an HPA that states none has one", HPA, hpa(None), 1, None, None),
    ("KEDA that states none has zero", SCALED_OBJECT, scaled_object(), 1, 1, told("unset", "1")),
    ("zero for KEDA changes nothing", SCALED_OBJECT, scaled_object(), 0, None, None),
    ("KEDA has its zero back", SCALED_OBJECT, scaled_object(4, annotations=told("0", "4")), 0, 0, GONE),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "body", "wanted", "least", "annotations"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
def test_what_is_written(
    kind: str, body: Json, wanted: int | None, least: int | None, annotations: Json | None
) -> None:
    patch = change(parsed(kind, "prod", body), wanted, NOW, 600.0)
    if annotations is None:
        assert patch is None
        return
    field = "minReplicas" if kind == HPA else "minReplicaCount"
    spec = {} if least is None else {"spec": {field: least}}
    assert patch == {"metadata": {"resourceVersion": "7", "annotations": annotations}, **spec}


def test_a_minimum_that_was_not_stated_is_taken_out_again() -> None:
    present = parsed(SCALED_OBJECT, "prod", scaled_object(3, annotations=told("unset", "3")))
    assert change(present, None, NOW, 600.0) == {
        "metadata": {"resourceVersion": "7", "annotations": GONE},
        "spec": {"minReplicaCount": None},
    }


@pytest.mark.parametrize(
    ("annotations", "expired"),
    [
        (told("2", "5", NOW + 1), False),
        (told("2", "5", NOW - 1), True),
        (told("2", "4"), True),  # somebody set another since
        ({**told("2", "5"), UNTIL: "tomorrow"}, True),
    ],
)
def test_when_a_floor_is_over(annotations: Json, expired: bool) -> None:
    assert has_expired(parsed(HPA, "prod", hpa(5, annotations=annotations)), NOW) is expired


# -------------------------------------------------------------------------- on a server that misbehaves on request


def deployment_scale(replicas: int) -> Json:
    meta = {"name": "worker", "namespace": "prod"}
    spec = {"replicas": replicas} if replicas else {}
    return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta, "spec": spec,
            "status": {"replicas": replicas, "selector": "app=worker"}}  # fmt: skip


@pytest.fixture
def api(fake_api: Any) -> Any:
    """prod/worker with three replicas, scaled by the HPA `busy` between two and ten."""
    fake_api.put(SCALE, deployment_scale(3))
    fake_api.objects[PODS] = {"items": []}
    have(fake_api, hpa())
    return fake_api


def have(api: Any, *bodies: Json, at: str = HPAS) -> None:
    """These scalers and no others; of ScaledObjects, with KEDA installed."""
    api.collections.add(at)
    for path in [path for path in api.objects if path.startswith(f"{at}/")]:
        del api.objects[path]
    for body in bodies:
        api.put(f"{at}/{body['metadata']['name']}", body)
    if at == SCALED_OBJECTS:
        api.objects["/apis/keda.sh"] = {"kind": "APIGroup"}


def minimum(api: Any, at: str = f"{HPAS}/busy") -> int | None:
    return next((api.objects[at]["spec"][key] for key in ("minReplicas", "minReplicaCount")
                 if key in api.objects[at]["spec"]), None)  # fmt: skip


@pytest.fixture
def actuator(api: Any, kubeconfig: Path) -> Actuator:
    return actuator_on(kubeconfig)


def actuator_on(kubeconfig: Path, **options: Any) -> Actuator:
    target = KubernetesTarget(kubeconfig=kubeconfig, **{"namespace": "prod", "deployment": "worker", **options})
    return kubernetes_actuator(target, Api(Cluster(kubeconfig=kubeconfig)))


def test_a_floor_is_told_and_nothing_else_is_touched(api: Any, actuator: Actuator) -> None:
    before = api.objects[f"{HPAS}/busy"]
    assert (actuator.read_replicas(5).wanted, actuator.read_replicas(5).floor) == (3, 2)
    actuator.apply(5, 5)
    after = api.objects[f"{HPAS}/busy"]
    assert api.writes() == [f"{HPAS}/busy"]
    assert after["spec"] == {**before["spec"], "minReplicas": 5}
    written = after["metadata"].pop("annotations")
    assert {key: written[key] for key in (ORIGINAL, FLOOR)} == {ORIGINAL: "2", FLOOR: "5"}
    assert abs(datetime.fromisoformat(written[UNTIL]).timestamp() - time.time() - 600) < 30
    assert {**after["metadata"], "resourceVersion": 0} == {**before["metadata"], "resourceVersion": 0}
    assert actuator.read_replicas(5).floor == 5


def test_it_is_told_again_only_when_there_is_need(api: Any, actuator: Actuator) -> None:
    for replicas in (5, 5, 5, 4, 1, 1):
        actuator.read_replicas(5)
        actuator.apply(replicas, 5)
    assert api.writes() == [f"{HPAS}/busy"] * 3
    assert minimum(api) == 2
    assert api.objects[f"{HPAS}/busy"]["metadata"]["annotations"] == {}


def test_at_an_orderly_end_the_users_own_minimum_is_back(api: Any, actuator: Actuator) -> None:
    actuator.read_replicas(5)
    actuator.apply(5, 5)
    assert actuator.release is not None
    actuator.release(5)
    assert minimum(api) == 2
    actuator.release(5)
    del api.objects[f"{HPAS}/busy"]
    actuator.release(5)
    assert api.writes() == [f"{HPAS}/busy"] * 2


def test_another_process_takes_over_a_floor_that_it_finds(api: Any, kubeconfig: Path) -> None:
    have(api, hpa(5, annotations=told("2", "5", time.time() - 60)))
    successor = actuator_on(kubeconfig)
    assert successor.read_replicas(5).floor == 5
    successor.apply(2, 5)
    assert minimum(api) == 2


def test_shadow_sees_the_floor_and_gives_up_none(api: Any, actuator: Actuator) -> None:
    shadow = in_shadow(actuator)
    assert shadow.read_replicas(5).floor == 2
    shadow.apply(9, 5)
    assert shadow.release is None
    assert api.writes() == []


def test_what_may_not_be_looked_for_is_missed_only_where_something_is_told(
    api: Any, actuator: Actuator, fault: Any
) -> None:
    api.faults = [fault("GET", "/horizontalpodautoscalers", 403) for _ in range(2)]
    assert actuator.read_replicas(5).floor is None
    assert actuator.read_replicas(5).floor is None
    assert len(api.faults) == 1, "not asked again and again"
    with pytest.raises(PermanentError, match="may not list horizontalpodautoscalers in API group autoscaling"):
        actuator.apply(5, 5)


def test_the_right_to_tell_a_floor_is_named(api: Any, actuator: Actuator, fault: Any) -> None:
    api.faults = [fault("PATCH", "/busy", 403)]
    with pytest.raises(PermanentError, match="may not patch horizontalpodautoscalers in API group autoscaling"):
        actuator.apply(5, 5)


def test_its_own_maximum_bounds_the_floor_and_is_said(api: Any, actuator: Actuator) -> None:
    with pytest.raises(NoCapacityError, match="12 were decided and its own maximum is 10; raise that") as error:
        actuator.apply(12, 5)
    assert (error.value.told, minimum(api)) == (10, 10)
    assert actuator.release is not None
    actuator.release(5)
    assert minimum(api) == 2


def test_kedas_own_hpa_is_left_to_keda(api: Any, actuator: Actuator) -> None:
    have(api, scaled_object(), at=SCALED_OBJECTS)
    owner = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "jobs", "controller": True}
    have(api, hpa(1, name="keda-hpa-jobs", ownerReferences=[owner]))
    assert actuator.read_replicas(5).floor == 0
    actuator.apply(4, 5)
    assert api.writes() == [f"{SCALED_OBJECTS}/jobs"]
    assert minimum(api, f"{SCALED_OBJECTS}/jobs") == 4
    actuator.apply(0, 5)
    assert minimum(api, f"{SCALED_OBJECTS}/jobs") is None


def test_keda_is_raised_from_zero_and_an_hpa_is_not(api: Any, actuator: Actuator, kubeconfig: Path) -> None:
    api.put(SCALE, deployment_scale(0))
    actuator.read_replicas(5)
    with pytest.raises(PermanentError, match="has 0 replicas, which switches the HorizontalPodAutoscaler busy off"):
        actuator.apply(3, 5)
    have(api)
    have(api, scaled_object(), at=SCALED_OBJECTS)
    keda = actuator_on(kubeconfig)
    keda.apply(3, 5)
    assert api.writes() == [f"{SCALED_OBJECTS}/jobs"]


OPERATOR = {"apiVersion": "example/v1", "kind": "Fleet", "name": "video", "controller": True}


@pytest.mark.parametrize(
    ("scalers", "expected"),
    [
        ([hpa(), hpa(name="other")], "the HorizontalPodAutoscaler busy and the HorizontalPodAutoscaler other scale it"),
        ([hpa(ownerReferences=[OPERATOR])], "busy belongs to the Fleet video, which would put its minimum back"),
        (
            [hpa(annotations={"autoscaling.keda.sh/paused-replicas": "4"})],
            r"is paused \(autoscaling.keda.sh/paused-replicas: 4\) and left alone",
        ),
        ([hpa(annotations={"autoscaling.keda.sh/paused": "true"})], r"is paused \(autoscaling.keda.sh/paused: true\)"),
    ],
)
def test_what_bears_no_floor_is_left_alone(
    api: Any, actuator: Actuator, scalers: list[Json], expected: str
) -> None:  # fmt: skip
    have(api, *scalers)
    assert actuator.read_replicas(5).floor is None
    with pytest.raises(PermanentError, match=expected):
        actuator.apply(5, 5)
    assert api.writes() == []


def test_a_pause_that_is_over_is_none(api: Any, actuator: Actuator) -> None:
    have(api, hpa(annotations={"autoscaling.keda.sh/paused": "false"}))
    actuator.apply(5, 5)
    assert minimum(api) == 5


def test_without_the_other_scaler_the_number_itself_is_told_again(api: Any, actuator: Actuator) -> None:
    actuator.read_replicas(5)
    actuator.apply(5, 5)
    have(api)
    assert actuator.read_replicas(5).floor is None
    actuator.apply(4, 5)
    assert api.writes() == [f"{HPAS}/busy", SCALE]


def test_workloads_of_one_namespace_share_a_look(api: Any, kubeconfig: Path) -> None:
    shared = Api(Cluster(kubeconfig=kubeconfig))
    targets = [KubernetesTarget(kubeconfig=kubeconfig, namespace="prod", deployment=name) for name in ("worker", "web")]
    api.put(SCALE.replace("worker", "web"), deployment_scale(1))
    floors = [kubernetes_actuator(target, shared).read_replicas(5).floor for target in targets]
    assert floors == [2, None]
    assert api.asked.count(("GET", HPAS)) == 1


# -------- faults 15, 16, 18, 23 of a floor


def test_a_version_outdated_by_its_status_is_taken_anew(api: Any, actuator: Actuator) -> None:
    actuator.read_replicas(5)
    api.touch(f"{HPAS}/busy")
    actuator.apply(5, 5)
    assert (minimum(api), api.writes()) == (5, [f"{HPAS}/busy"] * 2)


def test_a_minimum_that_somebody_set_meanwhile_is_left_alone(api: Any, actuator: Actuator) -> None:
    actuator.read_replicas(5)
    api.put(f"{HPAS}/busy", hpa(4))
    with pytest.raises(ActuatorError, match="somebody else made its minimum 4 instead of 2 meanwhile; left alone"):
        actuator.apply(5, 5)
    assert minimum(api) == 4
    actuator.read_replicas(5)
    actuator.apply(5, 5)
    assert api.objects[f"{HPAS}/busy"]["metadata"]["annotations"][ORIGINAL] == "4"


def test_a_scaler_of_the_same_name_that_was_created_anew_is_left_alone(api: Any, actuator: Actuator) -> None:
    actuator.read_replicas(5)
    anew = hpa()
    anew["metadata"]["uid"] = "uid-2"
    api.put(f"{HPAS}/busy", anew)
    with pytest.raises(ActuatorError, match="prod/horizontalpodautoscalers/busy: was deleted and created anew"):
        actuator.apply(5, 5)
    assert minimum(api) == 2


@pytest.mark.parametrize(("done", "expected"), [(True, 5), (False, 2)])
def test_a_lost_answer_is_read_back(api: Any, actuator: Actuator, fault: Any, done: bool, expected: int) -> None:
    actuator.read_replicas(5)
    api.faults = [fault("PATCH", "/busy", 502, done=done)]
    if done:
        actuator.apply(5, 5)
    else:
        with pytest.raises(ActuatorError, match="502: told to; read back: its minimum still is 2"):
            actuator.apply(5, 5)
    assert (minimum(api), api.writes()) == (expected, [f"{HPAS}/busy"])


def test_being_asked_to_wait_is_honoured(api: Any, actuator: Actuator, fault: Any) -> None:
    actuator.read_replicas(5)
    api.faults = [fault("PATCH", "/busy", 429, {"Retry-After": "30"})]
    with pytest.raises(ActuatorError, match="asked to be left alone"):
        actuator.apply(5, 5)
    with pytest.raises(ActuatorError, match="asked to be left alone"):
        actuator.read_replicas(5)
    assert api.writes() == [f"{HPAS}/busy"]


# ------------------------------------------------------------------------------------- on a real control plane

FLOORS = [
    {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["get", "list", "patch"]},
    {"apiGroups": ["keda.sh"], "resources": ["scaledobjects"], "verbs": ["get", "list", "patch"]},
]


def eventually(true: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not seen: {what}"
        time.sleep(0.1)


@pytest.fixture
def fleet(kube_cluster: ControlPlane, kube_namespace: str) -> str:
    """The namespace of a Deployment `worker` with one replica."""
    labels = {"app": "worker"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "worker", "image": "none"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    path = f"/apis/apps/v1/namespaces/{kube_namespace}/deployments"
    kube_cluster.request("POST", path, {"metadata": {"name": "worker"}, "spec": spec})
    return kube_namespace


@pytest.mark.real
def test_a_real_hpa_follows_its_floor_and_has_its_own_minimum_back(kube_cluster: ControlPlane, fleet: str) -> None:
    """With the least rights: it may not set the number itself. The HPA has no metric, so only its minimum moves it."""
    path = f"/apis/autoscaling/v2/namespaces/{fleet}/horizontalpodautoscalers"
    rules = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    spec = {"scaleTargetRef": REFERENCE, "minReplicas": 2, "maxReplicas": 6, "behavior": rules}
    kube_cluster.request("POST", path, {"metadata": {"name": "busy"}, "spec": spec})
    account = kube_cluster.service_account(fleet, "scaler", FLOORS)
    actuator = actuator_on(account, namespace=fleet)
    eventually(lambda: actuator.read_replicas(5).ready == 2, "the user's own minimum")

    actuator.apply(4, 5)
    eventually(lambda: actuator.read_replicas(5).ready == 4, "the floor")
    found = kube_cluster.request("GET", f"{path}/busy")
    assert found["spec"]["maxReplicas"] == 6
    assert found["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 0
    assert {key: found["metadata"]["annotations"][key] for key in (ORIGINAL, FLOOR)} == {ORIGINAL: "2", FLOOR: "4"}
    ours = [one for one in found["metadata"]["managedFields"] if one["manager"] == "tidewise"]
    assert [set(one["fieldsV1"]["f:spec"]) for one in ours] == [{"f:minReplicas"}]

    patch = {"spec": {"minReplicas": 3}}
    kube_cluster.request("PATCH", f"{path}/busy", patch, kind="application/merge-patch+json")  # the user's own hand
    assert actuator.read_replicas(5).floor == 3
    actuator.apply(4, 5)
    with pytest.raises(NoCapacityError, match="9 were decided and its own maximum is 6"):
        actuator.apply(9, 5)
    assert kube_cluster.request("GET", f"{path}/busy")["spec"]["minReplicas"] == 6
    assert actuator.release is not None
    actuator.release(5)
    found = kube_cluster.request("GET", f"{path}/busy")
    assert found["spec"]["minReplicas"] == 3
    assert FLOOR not in (found["metadata"].get("annotations") or {})


@pytest.mark.real
def test_a_version_of_a_real_hpa_that_is_outdated_is_refused_by_the_server(
    kube_cluster: ControlPlane, fleet: str
) -> None:
    path = f"/apis/autoscaling/v2/namespaces/{fleet}/horizontalpodautoscalers"
    spec = {"scaleTargetRef": REFERENCE, "minReplicas": 1, "maxReplicas": 6}
    kube_cluster.request("POST", path, {"metadata": {"name": "busy"}, "spec": spec})
    deposed, present = (actuator_on(kube_cluster.kubeconfig, namespace=fleet) for _ in range(2))
    deposed.read_replicas(5)
    present.read_replicas(5)
    present.apply(4, 5)
    with pytest.raises(ActuatorError, match="somebody else made its minimum 4 instead of 1 meanwhile"):
        deposed.apply(2, 5)
    assert kube_cluster.request("GET", f"{path}/busy")["spec"]["minReplicas"] == 4


KEDA_SPEC = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["scaleTargetRef"],
            "x-kubernetes-preserve-unknown-fields": True,  # the rest of KEDA's, for other tests
            "properties": {
                "scaleTargetRef": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {name: {"type": "string"} for name in ("name", "kind", "apiVersion")},
                },
                **{name: {"type": "integer"} for name in ("minReplicaCount", "maxReplicaCount", "idleReplicaCount")},
                "triggers": {
                    "type": "array",
                    "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            },
        }
    },
}


@pytest.fixture
def keda(kube_cluster: ControlPlane, fleet: str) -> str:
    """The path of the namespace's ScaledObjects. KEDA's definition is there, its operator is not."""
    names = {"plural": "scaledobjects", "singular": "scaledobject", "kind": "ScaledObject", "listKind": "ScaledObjects"}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": KEDA_SPEC}}
    spec = {"group": "keda.sh", "scope": "Namespaced", "names": names, "versions": [version]}
    definition = {"metadata": {"name": "scaledobjects.keda.sh"}, "spec": spec}
    try:
        kube_cluster.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    except AnswerError as error:
        if error.status != 409:  # another test has made it
            raise
    path = f"/apis/keda.sh/v1alpha1/namespaces/{fleet}/scaledobjects"

    def served() -> bool:
        try:
            kube_cluster.request("GET", path)
        except AnswerError:
            return False
        return True

    eventually(served, "ScaledObjects are served")
    return path


@pytest.mark.real
def test_a_scaled_object_on_the_real_api_server_has_only_its_minimum_written(
    kube_cluster: ControlPlane, fleet: str, keda: str
) -> None:
    triggers = [{"type": "prometheus", "metadata": {"query": "sum(jobs)", "threshold": "5"}}]
    spec = {"scaleTargetRef": {"name": "worker"}, "maxReplicaCount": 8, "triggers": triggers}
    body = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "jobs"}, "spec": spec}
    made = kube_cluster.request("POST", keda, body)
    owner = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "jobs", "controller": True,
             "uid": made["metadata"]["uid"]}  # fmt: skip
    kedas_own = {"metadata": {"name": "keda-hpa-jobs", "ownerReferences": [owner]},
                 "spec": {"scaleTargetRef": REFERENCE, "minReplicas": 1, "maxReplicas": 8}}  # fmt: skip
    hpas = f"/apis/autoscaling/v2/namespaces/{fleet}/horizontalpodautoscalers"
    kube_cluster.request("POST", hpas, kedas_own)
    actuator = actuator_on(kube_cluster.service_account(fleet, "scaler", FLOORS), namespace=fleet)
    assert actuator.read_replicas(5).floor == 0
    actuator.apply(3, 5)
    assert kube_cluster.request("GET", f"{keda}/jobs")["spec"] == {**spec, "minReplicaCount": 3}
    assert kube_cluster.request("GET", f"{hpas}/keda-hpa-jobs")["spec"]["minReplicas"] == 1
    actuator.read_replicas(5)
    actuator.apply(0, 5)
    found = kube_cluster.request("GET", f"{keda}/jobs")
    assert found["spec"] == spec
    assert "annotations" not in found["metadata"]
