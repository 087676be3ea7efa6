"""The Kubernetes actuator: on a server that misbehaves on request, and on a real control plane."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.actuators import ACTUATORS
from controllers.actuators.interface import Actuator, ActuatorError, PermanentError
from controllers.actuators.kubernetes import ATTEMPTS, kubernetes_actuator
from controllers.actuators.shadow import in_shadow
from controllers.config import Cluster, KubernetesTarget, load
from controllers.domain import Replicas
from controllers.kubernetes_api import Api
from exporters.runtime.config import ConfigError
from testbed.kube.cluster import AnswerError
from testbed.kube.cluster import Cluster as ControlPlane

Json = dict[str, Any]

SCALE = "/apis/apps/v1/namespaces/prod/deployments/worker/scale"
PODS = "/api/v1/namespaces/prod/pods"
SCALERS = "/apis/autoscaling/v2/namespaces/prod/horizontalpodautoscalers"


def pod(*, ready: bool = True, leaving: bool = False) -> Json:
    return {
        "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def scale(replicas: int, selector: str = "app=worker") -> Json:
    """As the API server writes it: no `replicas` where there are none."""
    spec = {"replicas": replicas} if replicas else {}
    meta = {"name": "worker", "namespace": "prod"}
    return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta, "spec": spec,
            "status": {"replicas": replicas, "selector": selector}}  # fmt: skip


@pytest.fixture
def api(fake_api: Any) -> Any:
    """prod/worker with three replicas, two of them ready."""
    fake_api.put(SCALE, scale(3))
    fake_api.objects[PODS] = {"items": [pod(), pod(), pod(ready=False)]}
    fake_api.objects[SCALERS] = {"items": []}
    return fake_api


@pytest.fixture
def actuator(api: Any, kubeconfig: Path) -> Actuator:
    return actuator_on(kubeconfig)


def actuator_on(kubeconfig: Path, **options: Any) -> Actuator:
    options = options if "generic" in options else {"deployment": "worker", **options}
    target = KubernetesTarget(kubeconfig=kubeconfig, **{"namespace": "prod", **options})
    return kubernetes_actuator(target, Api(Cluster(kubeconfig=kubeconfig)))


def wanted(api: Any) -> int:
    return api.objects[SCALE]["spec"]["replicas"]


@pytest.mark.parametrize(
    ("replicas", "pods", "expected"),
    [
        pytest.param(3, [pod(), pod(), pod(ready=False)], Replicas(3, 2), id="a pod that starts is not ready"),
        pytest.param(
            1, [pod(), pod(leaving=True)], Replicas(1, 1, draining=1), id="a pod on its way out does not work"
        ),
        pytest.param(0, [], Replicas(0, 0), id="no replicas are left out of the answer"),
        pytest.param(2, [{}, {"status": {}}], Replicas(2, 0), id="a pod that says nothing is not ready"),
    ],
)
def test_wanted_is_what_was_told_and_ready_what_works(
    api: Any, actuator: Actuator, replicas: int, pods: list[Json], expected: Replicas
) -> None:
    api.put(SCALE, scale(replicas))
    api.objects[PODS] = {"items": pods}
    assert actuator.read_replicas(5) == expected
    assert api.queries[-1]["labelSelector"] == ["app=worker"]


def test_a_number_is_told_and_told_again(api: Any, actuator: Actuator) -> None:
    actuator.read_replicas(5)
    actuator.apply(7, 5)
    actuator.apply(7, 5)
    assert (wanted(api), actuator.read_replicas(5).wanted) == (7, 7)
    actuator.apply(0, 5)
    assert (wanted(api), actuator.read_replicas(5).wanted) == (0, 0)


def test_it_can_be_told_before_it_was_asked(api: Any, actuator: Actuator) -> None:
    actuator.apply(4, 5)
    assert wanted(api) == 4


def test_shadow_reads_and_writes_nothing(api: Any, actuator: Actuator) -> None:
    shadow = in_shadow(actuator)
    assert shadow.read_replicas(5) == Replicas(3, 2)
    shadow.apply(9, 5)
    assert api.writes() == []


def test_many_pods_come_in_pages_and_from_the_start_where_the_server_has_forgotten_them(
    api: Any, actuator: Actuator, fault: Any
) -> None:
    first = {"items": [pod()] * 3, "metadata": {"continue": "more"}}
    last = {"items": [pod()] * 2}
    api.objects[PODS] = first

    def next_page() -> None:
        api.objects[PODS] = last

    def first_page() -> None:
        api.objects[PODS] = first

    api.faults = [fault("GET", "/pods", 200), fault("GET", "/pods", 410, before=first_page),
                  fault("GET", "/pods", 200), fault("GET", "/pods", 200, before=next_page)]  # fmt: skip
    assert actuator.read_replicas(5).ready == 5
    asked = [query.get("continue") for (_, path), query in zip(api.asked, api.queries, strict=True) if path == PODS]
    assert asked == [None, ["more"], None, ["more"]]


def test_a_version_outdated_by_a_status_update_is_taken_anew(api: Any, actuator: Actuator) -> None:
    actuator.read_replicas(5)
    api.touch(SCALE)
    actuator.apply(5, 5)
    assert wanted(api) == 5
    assert api.writes() == [SCALE, SCALE]


def test_a_version_that_is_outdated_again_and_again_is_left_to_the_next_decision(
    api: Any, actuator: Actuator, fault: Any
) -> None:
    actuator.read_replicas(5)
    api.faults = [fault("PUT", "/scale", 409) for _ in range(ATTEMPTS)]
    with pytest.raises(ActuatorError, match=r"update prod/deployments/worker: 409: told to"):
        actuator.apply(5, 5)
    assert (wanted(api), api.writes()) == (3, [SCALE] * ATTEMPTS)


def test_a_number_that_somebody_else_set_meanwhile_is_left_alone(api: Any, actuator: Actuator) -> None:
    actuator.read_replicas(5)
    api.put(SCALE, scale(8))
    with pytest.raises(ActuatorError, match=r"somebody else set 8 instead of 3 meanwhile; left alone"):
        actuator.apply(5, 5)
    assert wanted(api) == 8
    actuator.read_replicas(5)
    actuator.apply(5, 5)
    assert wanted(api) == 5


def test_the_same_number_by_somebody_else_is_as_good(api: Any, actuator: Actuator) -> None:
    actuator.read_replicas(5)
    api.put(SCALE, scale(5))
    actuator.apply(5, 5)
    assert api.writes() == [SCALE]


def test_an_object_of_the_same_name_that_was_created_anew_is_left_alone(api: Any, actuator: Actuator) -> None:
    actuator.read_replicas(5)
    api.put(SCALE, scale(3), uid="uid-2")
    with pytest.raises(ActuatorError, match=r"prod/Deployment/worker: was deleted and created anew meanwhile"):
        actuator.apply(5, 5)
    assert wanted(api) == 3


@pytest.mark.parametrize("status", [500, 502, 504])
def test_an_answer_that_was_lost_after_the_deed_is_read_back(
    api: Any, actuator: Actuator, fault: Any, status: int
) -> None:
    actuator.read_replicas(5)
    api.faults = [fault("PUT", "/scale", status, done=True)]
    actuator.apply(5, 5)
    assert (wanted(api), api.writes()) == (5, [SCALE])


def test_a_write_that_failed_is_an_error_with_what_was_read_back(api: Any, actuator: Actuator, fault: Any) -> None:
    actuator.read_replicas(5)
    api.faults = [fault("PUT", "/scale", 500, message="etcd is gone")]
    with pytest.raises(ActuatorError, match=r"500: etcd is gone; read back: it still has 3") as error:
        actuator.apply(5, 5)
    assert not isinstance(error.value, PermanentError)


def test_a_write_that_hangs_leaves_time_to_read_back(api: Any, actuator: Actuator, fault: Any) -> None:
    actuator.read_replicas(5)
    api.faults = [fault("PUT", "/scale", 200, done=True, silent_seconds=3)]
    began = time.monotonic()
    actuator.apply(5, 1.0)
    assert time.monotonic() - began < 1.0
    assert wanted(api) == 5
    assert api.queries[api.asked.index(("PUT", SCALE))]["timeout"] == ["1s"]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_server_that_hangs_holds_nobody_beyond_the_deadline(
    api: Any, actuator: Actuator, fault: Any, method: str
) -> None:
    api.faults = [fault("GET", "/scale", silent_seconds=3)]
    act = actuator.read_replicas if method == "GET" else lambda seconds: actuator.apply(5, seconds)
    began = time.monotonic()
    with pytest.raises(ActuatorError, match=r"get prod/deployments/worker: no complete answer within 0\.5 s"):
        act(0.5)
    assert time.monotonic() - began < 1.0


def test_being_asked_to_wait_is_honoured_where_there_is_time(api: Any, actuator: Actuator, fault: Any) -> None:
    api.faults = [fault("GET", "/scale", 429, {"Retry-After": "1"})]
    began = time.monotonic()
    assert actuator.read_replicas(5) == Replicas(3, 2)
    assert 1.0 <= time.monotonic() - began < 3.0


def test_being_asked_to_wait_longer_stops_all_requests_for_so_long(api: Any, actuator: Actuator, fault: Any) -> None:
    api.faults = [fault("GET", "/scale", 429, {"Retry-After": "30"})]
    for _ in range(2):
        with pytest.raises(ActuatorError, match=r"overloaded and asked to be left alone for (29|30) s more \(429\)"):
            actuator.read_replicas(1)
    assert api.asked == [("GET", SCALE)]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (403, r"may not get deployments/scale in API group apps in namespace prod \(403\); grant it.*told to"),
        (404, r"get prod/deployments/worker: not there \(404\); create it or correct its name"),
        (401, r"the credentials are not accepted \(401\); renew them"),
    ],
)
def test_what_a_person_must_change_is_permanent(
    api: Any, actuator: Actuator, fault: Any, status: int, expected: str
) -> None:
    api.faults = [fault("GET", "/scale", status), fault("GET", "/scale", status)]
    with pytest.raises(PermanentError, match=expected):
        actuator.read_replicas(5)


def test_the_right_to_write_and_to_look_for_other_scalers_are_named(api: Any, actuator: Actuator, fault: Any) -> None:
    api.faults = [fault("PUT", "/scale", 403), fault("GET", "/horizontalpodautoscalers", 403)]
    with pytest.raises(PermanentError, match="may not list horizontalpodautoscalers in API group autoscaling"):
        actuator.apply(5, 5)
    with pytest.raises(PermanentError, match="may not update deployments/scale in API group apps"):
        actuator.apply(5, 5)


def test_a_token_that_was_rotated_is_read_again(api: Any, actuator: Actuator, kubeconfig: Path) -> None:
    api.tokens = {"first"}
    assert actuator.read_replicas(5).wanted == 3
    api.tokens = {"second"}
    (kubeconfig.parent / "token").write_text("second\n")
    assert actuator.read_replicas(5).wanted == 3


def test_a_file_that_is_no_token_is_said_without_its_content(actuator: Actuator, kubeconfig: Path) -> None:
    (kubeconfig.parent / "token").write_text("secret\nother\n")
    with pytest.raises(PermanentError, match="the token holds a line break") as error:
        actuator.read_replicas(5)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "reference", "refused"),
    [
        pytest.param("hpa", ("apps/v1", "Deployment", "worker"), True, id="an HPA has it"),
        pytest.param("hpa", ("apps/v1beta2", "Deployment", "worker"), True, id="an HPA has it by an older version"),
        pytest.param("hpa", ("apps/v1", "Deployment", "web"), False, id="an HPA has one of another name"),
        pytest.param("hpa", ("apps/v1", "StatefulSet", "worker"), False, id="an HPA has one of another kind"),
        pytest.param("hpa", ("example/v1", "Deployment", "worker"), False, id="an HPA has one of another group"),
        pytest.param("keda", (None, None, "worker"), True, id="KEDA has it, by its default kind"),
        pytest.param("keda", (None, None, "web"), False, id="KEDA has another"),
    ],
)
def test_where_told_to_refuse_nothing_is_told_beside_another_scaler(
    api: Any, kubeconfig: Path, kind: str, reference: tuple[str | None, str | None, str], refused: bool
) -> None:
    actuator = actuator_on(kubeconfig, beside="refuse")
    named = zip(("apiVersion", "kind", "name"), reference, strict=True)
    target = {key: value for key, value in named if value is not None}
    scaler = {"metadata": {"name": "busy"}, "spec": {"scaleTargetRef": target}}
    if kind == "hpa":
        api.objects[SCALERS] = {"items": [scaler]}
    else:
        api.objects["/apis/keda.sh"] = {"kind": "APIGroup"}
        api.objects["/apis/keda.sh/v1alpha1/namespaces/prod/scaledobjects"] = {"items": [scaler]}
    actuator.read_replicas(5)
    if refused:
        named = "HorizontalPodAutoscaler" if kind == "hpa" else "ScaledObject"
        expected = (
            rf"prod/Deployment/worker: the {named} busy scales it as well.*delete that {named}, write beside: floor"
        )
        with pytest.raises(PermanentError, match=expected):
            actuator.apply(5, 5)
    else:
        actuator.apply(5, 5)
    assert wanted(api) == (3 if refused else 5)


def test_another_kind_is_found_by_asking_the_server(api: Any, kubeconfig: Path) -> None:
    path = "/apis/argoproj.io/v1alpha1/namespaces/prod/rollouts/worker/scale"
    api.put(path, scale(3))
    resources = [
        {"name": "rollouts", "kind": "Rollout"},
        {"name": "rollouts/scale", "kind": "Scale"},
        {"name": "analysisruns", "kind": "AnalysisRun"},
    ]
    api.objects["/apis/argoproj.io/v1alpha1"] = {"resources": resources}
    rollout = {"kind": "Rollout", "name": "worker", "api_version": "argoproj.io/v1alpha1"}
    actuator = actuator_on(kubeconfig, generic=rollout)
    assert actuator.read_replicas(5) == Replicas(3, 2)
    actuator.apply(4, 5)
    assert api.objects[path]["spec"]["replicas"] == 4

    for changed, expected in (
        ({"kind": "AnalysisRun"}, "AnalysisRun of argoproj.io/v1alpha1 has no scale subresource"),
        ({"kind": "Rolout"}, "Rolout of argoproj.io/v1alpha1 is not served by this cluster"),
        ({"api_version": "argoproj.io/v2"}, "Rollout of argoproj.io/v2 is not served by this cluster"),
    ):
        with pytest.raises(PermanentError, match=expected):
            actuator_on(kubeconfig, generic={**rollout, **changed}).read_replicas(5)


def test_a_scale_without_selector_cannot_be_counted(api: Any, actuator: Actuator) -> None:
    api.put(SCALE, scale(3, selector=""))
    with pytest.raises(PermanentError, match="names no selector, so its pods cannot be counted"):
        actuator.read_replicas(5)


def test_a_webhook_that_bounds_the_number_is_noticed(api: Any, actuator: Actuator) -> None:
    api.most_replicas = 4
    with pytest.raises(ActuatorError, match="was told 9 and made it 4; does an admission webhook bound it"):
        actuator.apply(9, 5)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"kind": "Deployment", "metadata": {"uid": "u"}}, "the answer is no scale"),
        ({"message": "welcome"}, "the answer is no scale"),
    ],
)
def test_another_server_behind_the_address_is_noticed(
    api: Any, actuator: Actuator, answer: Json, expected: str
) -> None:
    api.objects[SCALE] = answer
    with pytest.raises(ActuatorError, match=expected):
        actuator.read_replicas(5)


def config_file(folder: Path, target: str) -> Path:
    path = folder / "tidewise.yaml"
    path.write_text(
        f"workloads: [{{name: w, demand: {{queue: q}}, target: {{kubernetes: {target}}}, replicas: {{max: 4}}}}]\n"
    )
    return path


def test_a_target_in_the_file_becomes_an_actuator(tmp_path: Path) -> None:
    target = load(config_file(tmp_path, "{namespace: prod, deployment: worker}")).workloads[0].target
    assert target.kubernetes == KubernetesTarget(namespace="prod", deployment="worker")
    assert isinstance(ACTUATORS[target.kind](target.kubernetes), Actuator)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("{}", "kubernetes: found none of deployment, statefulset, generic; give exactly one"),
        ("{deployment: a, statefulset: b}", "found deployment and statefulset of deployment, statefulset, generic"),
        ("{deployment: a, context: b}", "kubernetes: found context without kubeconfig; name the file that has it"),
        ("{deployment: ../secrets}", "kubernetes.deployment: "),
        ("{deploiment: a}", "kubernetes.deploiment: unknown key; did you mean 'deployment'?"),
        ("{generic: {kind: rollout, name: a, api_version: x/v1}}", "kubernetes.generic.kind: "),
        ("{generic: {kind: Rollout, name: a, api_version: x/v1/..}}", "kubernetes.generic.api_version: "),
    ],
)
def test_a_target_that_cannot_be_is_refused_when_the_file_is_read(tmp_path: Path, target: str, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(config_file(tmp_path, target))
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda path: path.unlink(), r"kubeconfig: no such file; correct kubeconfig"),
        (lambda path: path.write_text("clusters: ["), r"kubeconfig: cannot be used \("),
        (lambda path: path.write_text("{}"), r"kubeconfig: cannot be used \("),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(
    actuator: Actuator, kubeconfig: Path, change: Callable[[Path], None], expected: str
) -> None:
    change(kubeconfig)
    with pytest.raises(PermanentError, match=expected):
        actuator.read_replicas(5)


def test_outside_a_pod_a_kubeconfig_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    target = KubernetesTarget(namespace="prod", deployment="worker")
    with pytest.raises(PermanentError, match=r"not in a pod of Kubernetes .*; name a kubeconfig"):
        kubernetes_actuator(target, Api(target)).read_replicas(5)


def test_nobody_listening_is_told_with_the_reason(kubeconfig: Path) -> None:
    text = kubeconfig.read_text()
    kubeconfig.write_text(text.replace(text.split("server: ")[1].split("\n")[0], "http://127.0.0.1:1"))
    with pytest.raises(ActuatorError, match=r"get prod/deployments/worker: .*refused") as error:
        actuator_on(kubeconfig).read_replicas(5)
    assert not isinstance(error.value, PermanentError)


# ------------------------------------------------------------------------------------- on a real control plane

SCALER = [
    {"apiGroups": ["apps"], "resources": ["deployments/scale", "statefulsets/scale"], "verbs": ["get", "update"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list"]},
    {"apiGroups": ["keda.sh"], "resources": ["scaledobjects"], "verbs": ["list"]},  # once another test has defined them
]


def workload(replicas: int, **spec: Any) -> Json:
    labels = {"app": "worker"}
    container = {"name": "worker", "image": "none"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], **spec}}
    selected = {"selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": "worker"}, "spec": {"replicas": replicas, **selected}}


def create(cluster: ControlPlane, namespace: str, resource: str, body: Json) -> Json:
    return cluster.request("POST", f"/apis/apps/v1/namespaces/{namespace}/{resource}", body)


def wait_for(actuator: Actuator, expected: Replicas, seconds: float = 60.0) -> Replicas:
    deadline = time.monotonic() + seconds
    while (found := actuator.read_replicas(5)) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.mark.real
@pytest.mark.parametrize("resource", ["deployments", "statefulsets"])
def test_pods_come_and_go_with_least_rights(kube_cluster: ControlPlane, kube_namespace: str, resource: str) -> None:
    create(kube_cluster, kube_namespace, resource, workload(1))
    kubeconfig = kube_cluster.service_account(kube_namespace, "scaler", SCALER)
    kind = {"deployment": None, resource.removesuffix("s"): "worker"}
    actuator = actuator_on(kubeconfig, namespace=kube_namespace, **kind)
    for replicas in (1, 4, 2, 0, 1):
        if replicas != actuator.read_replicas(5).wanted:
            actuator.apply(replicas, 5)
        assert wait_for(actuator, Replicas(replicas, replicas)) == Replicas(replicas, replicas)


EVICTS = [*SCALER, {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]}]


@pytest.mark.real
def test_the_victim_of_a_replacement_goes_first(kube_cluster: ControlPlane, kube_namespace: str) -> None:
    """All are ready and the victim is the oldest: left to itself the ReplicaSet would end a younger one."""
    slow = workload(1)  # what is started in the victim's place is not ready at once, as on a real node
    slow["spec"]["template"]["metadata"]["annotations"] = {"testbed/ready-after": "1500ms"}
    create(kube_cluster, kube_namespace, "deployments", slow)
    stranger = {"metadata": {"name": "stranger"}, "spec": {"containers": [{"name": "other", "image": "none"}]}}
    pods = f"/api/v1/namespaces/{kube_namespace}/pods"
    kube_cluster.request("POST", pods, stranger)
    actuator = actuator_on(kube_cluster.service_account(kube_namespace, "scaler", EVICTS), namespace=kube_namespace)
    assert wait_for(actuator, Replicas(1, 1)) == Replicas(1, 1)

    def names() -> set[str]:
        return {pod["metadata"]["name"] for pod in kube_cluster.request("GET", pods)["items"]}

    (victim,) = names() - {"stranger"}
    actuator.apply(3, 5)
    assert wait_for(actuator, Replicas(3, 3)) == Replicas(3, 3)
    others = names() - {victim}
    actuator.apply(2, 5, (victim, "stranger", "gone-long-ago"))
    deadline = time.monotonic() + 60
    while names() != others and time.monotonic() < deadline:
        time.sleep(0.1)
    assert names() == others, "the victim is gone, its replacement is not, and nobody else's pod was touched"
    assert actuator.read_replicas(5) == Replicas(2, 2)


@pytest.mark.real
def test_a_disruption_budget_is_honoured_and_nothing_is_taken_meanwhile(
    kube_cluster: ControlPlane, kube_namespace: str
) -> None:
    create(kube_cluster, kube_namespace, "deployments", workload(2))
    budget = {
        "metadata": {"name": "worker"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "worker"}}},
    }
    place = f"/apis/policy/v1/namespaces/{kube_namespace}/poddisruptionbudgets"
    kube_cluster.request("POST", place, budget)
    actuator = actuator_on(kube_cluster.service_account(kube_namespace, "scaler", EVICTS), namespace=kube_namespace)
    assert wait_for(actuator, Replicas(2, 2)) == Replicas(2, 2)
    deadline = time.monotonic() + 60
    while "observedGeneration" not in (kube_cluster.request("GET", f"{place}/worker").get("status") or {}):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    pods = kube_cluster.request("GET", f"/api/v1/namespaces/{kube_namespace}/pods")["items"]
    with pytest.raises(ActuatorError, match="429"):
        actuator.apply(1, 2, (pods[0]["metadata"]["name"],))
    assert actuator.read_replicas(5) == Replicas(2, 2)


@pytest.mark.real
def test_without_the_right_to_evict_the_victim_nothing_is_taken(
    kube_cluster: ControlPlane, kube_namespace: str
) -> None:
    create(kube_cluster, kube_namespace, "deployments", workload(2))
    actuator = actuator_on(kube_cluster.service_account(kube_namespace, "scaler", SCALER), namespace=kube_namespace)
    assert wait_for(actuator, Replicas(2, 2)) == Replicas(2, 2)
    pods = kube_cluster.request("GET", f"/api/v1/namespaces/{kube_namespace}/pods")["items"]
    with pytest.raises(PermanentError, match=r"may not create pods/eviction .*\(403\)"):
        actuator.apply(1, 5, (pods[0]["metadata"]["name"],))
    assert actuator.read_replicas(5).wanted == 2


@pytest.mark.real
def test_pods_that_find_no_node_are_wanted_and_not_ready(kube_cluster: ControlPlane, kube_namespace: str) -> None:
    create(kube_cluster, kube_namespace, "deployments", workload(2, nodeSelector={"gpu": "yes"}))
    actuator = actuator_on(kube_cluster.kubeconfig, namespace=kube_namespace)
    actuator.read_replicas(5)
    actuator.apply(3, 5)
    pods = f"/api/v1/namespaces/{kube_namespace}/pods"
    deadline = time.monotonic() + 60
    while len(kube_cluster.request("GET", pods)["items"]) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(kube_cluster.request("GET", pods)["items"]) == 3
    assert actuator.read_replicas(5) == Replicas(3, 0)


@pytest.mark.real
def test_the_scaler_that_read_before_another_wrote_is_refused(kube_cluster: ControlPlane, kube_namespace: str) -> None:
    """What a deposed leader would do, had it passed its own check before it was stopped."""
    create(kube_cluster, kube_namespace, "deployments", workload(1))
    deposed, present = (actuator_on(kube_cluster.kubeconfig, namespace=kube_namespace) for _ in range(2))
    deposed.read_replicas(5)
    present.read_replicas(5)
    present.apply(3, 5)
    with pytest.raises(ActuatorError, match="somebody else set 3 instead of 1 meanwhile"):
        deposed.apply(0, 5)
    assert wait_for(present, Replicas(3, 3)) == Replicas(3, 3)


@pytest.mark.real
def test_a_status_update_in_between_does_not_matter_but_a_new_object_does(
    kube_cluster: ControlPlane, kube_namespace: str
) -> None:
    path = f"/apis/apps/v1/namespaces/{kube_namespace}/deployments"
    create(kube_cluster, kube_namespace, "deployments", workload(1))
    actuator = actuator_on(kube_cluster.kubeconfig, namespace=kube_namespace)
    wait_for(actuator, Replicas(1, 1))
    patch = {"metadata": {"annotations": {"seen": "by somebody"}}}
    kube_cluster.request("PATCH", f"{path}/worker", patch, kind="application/merge-patch+json")
    actuator.apply(2, 5)
    assert wait_for(actuator, Replicas(2, 2)) == Replicas(2, 2)

    kube_cluster.request("DELETE", f"{path}/worker")
    create(kube_cluster, kube_namespace, "deployments", workload(2))
    with pytest.raises(ActuatorError, match="was deleted and created anew meanwhile"):
        actuator.apply(0, 5)
    assert actuator.read_replicas(5).wanted == 2


@pytest.mark.real
def test_rights_that_are_missing_are_named_and_work_once_granted(
    kube_cluster: ControlPlane, kube_namespace: str
) -> None:
    create(kube_cluster, kube_namespace, "deployments", workload(1))
    only_reads = [{**SCALER[0], "verbs": ["get"]}, *SCALER[1:]]
    kubeconfig = kube_cluster.service_account(kube_namespace, "scaler", only_reads)
    actuator = actuator_on(kubeconfig, namespace=kube_namespace)
    assert actuator.read_replicas(5).wanted == 1
    expected = rf"may not update deployments/scale in API group apps in namespace {kube_namespace} \(403\)"
    with pytest.raises(PermanentError, match=expected):
        actuator.apply(2, 5)
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{kube_namespace}/roles/scaler"
    kube_cluster.request("PATCH", role, {"rules": SCALER}, kind="application/merge-patch+json")
    deadline = time.monotonic() + 60
    while actuator.read_replicas(5).wanted != 2 and time.monotonic() < deadline:
        try:
            actuator.apply(2, 5)
        except PermanentError:
            time.sleep(0.1)  # the authorizer has not heard of it yet
    assert actuator.read_replicas(5).wanted == 2


@pytest.mark.real
def test_while_the_api_server_is_gone_nothing_is_known_and_afterwards_all_is_as_before(
    kube_cluster: ControlPlane, kube_namespace: str
) -> None:
    create(kube_cluster, kube_namespace, "deployments", workload(2))
    actuator = actuator_on(kube_cluster.kubeconfig, namespace=kube_namespace)
    wait_for(actuator, Replicas(2, 2))
    with kube_cluster.outage():
        for act in (actuator.read_replicas, lambda seconds: actuator.apply(3, seconds)):
            with pytest.raises(ActuatorError, match="refused") as error:
                act(5)
            assert not isinstance(error.value, PermanentError)
    assert actuator.read_replicas(5) == Replicas(2, 2)
    actuator.apply(3, 5)
    assert wait_for(actuator, Replicas(3, 3)) == Replicas(3, 3)


@pytest.mark.real
def test_where_told_to_refuse_nothing_is_told_beside_a_real_hpa(
    kube_cluster: ControlPlane, kube_namespace: str
) -> None:
    create(kube_cluster, kube_namespace, "deployments", workload(1))
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"}
    hpa = {"metadata": {"name": "busy"}, "spec": {"scaleTargetRef": reference, "maxReplicas": 3}}
    path = f"/apis/autoscaling/v2/namespaces/{kube_namespace}/horizontalpodautoscalers"
    kube_cluster.request("POST", path, hpa)
    actuator = actuator_on(kube_cluster.kubeconfig, namespace=kube_namespace, beside="refuse")
    with pytest.raises(PermanentError, match="the HorizontalPodAutoscaler busy scales it as well"):
        actuator.apply(2, 5)
    assert actuator.read_replicas(5).wanted == 1


@pytest.mark.real
def test_a_custom_resource_with_a_scale_is_scaled_like_any_other(
    kube_cluster: ControlPlane, kube_namespace: str
) -> None:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    paths = {
        "specReplicasPath": ".spec.size",
        "statusReplicasPath": ".status.size",
        "labelSelectorPath": ".status.pods",
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything},
               "subresources": {"status": {}, "scale": paths}}  # fmt: skip
    names = {"plural": "fleets", "singular": "fleet", "kind": "Fleet", "listKind": "FleetList"}
    spec = {"group": "testbed.example", "scope": "Namespaced", "names": names, "versions": [version]}
    definition = {"metadata": {"name": "fleets.testbed.example"}, "spec": spec}
    kube_cluster.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    path = f"/apis/testbed.example/v1/namespaces/{kube_namespace}/fleets"
    fleet = {"apiVersion": "testbed.example/v1", "kind": "Fleet", "metadata": {"name": "video"}, "spec": {"size": 2}}
    deadline = time.monotonic() + 60
    while True:
        try:
            kube_cluster.request("POST", path, fleet)
            break
        except AnswerError:  # not served yet
            assert time.monotonic() < deadline
            time.sleep(0.1)
    generic = {"kind": "Fleet", "name": "video", "api_version": "testbed.example/v1"}
    actuator = actuator_on(kube_cluster.kubeconfig, namespace=kube_namespace, generic=generic)
    with pytest.raises(PermanentError, match=f"{kube_namespace}/fleets/video: its scale names no selector"):
        actuator.read_replicas(5)
    status = {"status": {"pods": "app=video", "size": 2}}
    kube_cluster.request("PATCH", f"{path}/video/status", status, kind="application/merge-patch+json")
    assert actuator.read_replicas(5) == Replicas(2, 0)
    actuator.apply(5, 5)
    assert kube_cluster.request("GET", f"{path}/video")["spec"]["size"] == 5


@pytest.mark.real
def test_inside_a_pod_its_service_account_is_used(
    kube_cluster: ControlPlane, kube_namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubernetes.config import incluster_config

    create(kube_cluster, kube_namespace, "deployments", workload(1))
    kube_cluster.service_account(kube_namespace, "scaler", SCALER)
    (tmp_path / "token").write_text("expired")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(kube_cluster.api_server.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(kube_cluster.ca_file))
    target = KubernetesTarget(namespace=kube_namespace, deployment="worker")
    actuator = kubernetes_actuator(target, Api(target))
    with pytest.raises(PermanentError, match=r"the credentials are not accepted \(401\)"):
        actuator.read_replicas(5)
    (tmp_path / "token").write_text(kube_cluster.token(kube_namespace, "scaler") + "\n")
    assert actuator.read_replicas(5).wanted == 1


@pytest.mark.real
def test_a_server_that_another_authority_vouches_for_is_not_talked_to(
    kube_cluster: ControlPlane, tmp_path: Path
) -> None:
    content = yaml.safe_load(kube_cluster.kubeconfig.read_text())
    del content["clusters"][0]["cluster"]["certificate-authority-data"]
    content["clusters"][0]["cluster"]["certificate-authority"] = str(kube_cluster.folder / "front-proxy-ca.crt")
    content["users"][0]["user"] = {"token": "secret"}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(content))
    with pytest.raises(ActuatorError, match="does the kubeconfig name the certificate-authority") as error:
        actuator_on(tmp_path / "kubeconfig").read_replicas(5)
    assert "secret" not in str(error.value)
