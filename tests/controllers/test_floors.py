"""`tidewise floors`: what is listed, what is given back, and what it says when it cannot."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.__main__ import main
from controllers.actuators.kubernetes import shared_api
from testbed.kube.cluster import Cluster as ControlPlane

Json = dict[str, Any]
HPAS = "/apis/autoscaling/v2/namespaces/prod/horizontalpodautoscalers"


def annotations(original: str, floor: str, seconds: float) -> dict[str, str]:
    until = datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"tidewise.io/floor-original": original, "tidewise.io/floor": floor, "tidewise.io/floor-until": until}


def hpa(name: str, minimum: int, annotations: dict[str, str]) -> Json:
    return {"metadata": {"name": name, "annotations": annotations},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": name, "apiVersion": "apps/v1"},
                     "minReplicas": minimum, "maxReplicas": 9}}  # fmt: skip


@pytest.fixture
def api(fake_api: Any) -> Any:
    """In prod: a floor in force, one that is over, one that a person has ended, and an HPA without one."""
    shared_api.cache_clear()
    fake_api.collections |= {HPAS, HPAS.replace("prod", "lab")}
    fake_api.put(f"{HPAS}/busy", hpa("busy", 5, annotations("2", "5", 600)))
    fake_api.put(f"{HPAS}/over", hpa("over", 7, annotations("1", "7", -60)))
    fake_api.put(f"{HPAS}/theirs", hpa("theirs", 3, annotations("1", "4", 600)))
    fake_api.put(f"{HPAS}/none", hpa("none", 2, {}))
    return fake_api


@pytest.fixture
def config(kubeconfig: Path) -> Path:
    """Two that act, a third that is no Kubernetes target, and one in shadow in a namespace of its own."""
    targets: list[Json] = [{"kubernetes": {"namespace": "prod", "deployment": name, "kubeconfig": str(kubeconfig)}}
               for name in ("busy", "over")]  # fmt: skip
    targets.append({"command": {"get": ["true"], "set": ["true", "{replicas}"]}})
    workloads = [{"name": f"w{index}", "demand": {"queue": "q"}, "target": target, "replicas": {"max": 9},
                  "mode": "act"} for index, target in enumerate(targets)]  # fmt: skip
    shadow = {"kubernetes": {"namespace": "lab", "deployment": "new", "kubeconfig": str(kubeconfig)}}
    workloads.append({**workloads[0], "name": "new", "target": shadow, "mode": "shadow"})
    path = kubeconfig.parent / "tidewise.yaml"
    path.write_text(yaml.safe_dump({"workloads": workloads}))
    return path


def minima(api: Any) -> dict[str, int]:
    return {name: api.objects[f"{HPAS}/{name}"]["spec"]["minReplicas"] for name in ("busy", "over", "theirs", "none")}


def test_they_are_listed_and_left_alone(api: Any, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["floors", "--config", str(config)]) == 0
    busy, over, theirs = capsys.readouterr().out.splitlines()
    assert "prod/busy (HorizontalPodAutoscaler): floor 5, its own minimum is 2, until 20" in busy
    assert "prod/over (HorizontalPodAutoscaler): floor 7, its own minimum is 1, over since 20" in over
    assert theirs.endswith("theirs (HorizontalPodAutoscaler): somebody made its minimum 3 since; the floor is over")
    assert api.writes() == []


def test_what_is_over_is_given_back(api: Any, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["floors", "--config", str(config), "--expire"]) == 0
    assert minima(api) == {"busy": 5, "over": 1, "theirs": 3, "none": 2}
    assert api.writes() == [f"{HPAS}/over", f"{HPAS}/theirs"]
    assert "; given back: minimum 1" in capsys.readouterr().out


def test_everything_is_given_back_when_asked(api: Any, kubeconfig: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["floors", "--namespace", "prod", "--kubeconfig", str(kubeconfig)]
    assert main([*arguments, "--restore"]) == 0
    assert minima(api) == {"busy": 2, "over": 1, "theirs": 3, "none": 2}
    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith("no floors\n")


def test_what_cannot_be_done_is_said_and_the_rest_is_done(
    api: Any, config: Path, fault: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    api.faults = [fault("PATCH", "/busy", 403)]
    assert main(["floors", "--config", str(config), "--restore"]) == 1
    said = capsys.readouterr()
    assert "may not patch horizontalpodautoscalers in API group autoscaling in namespace prod (403)" in said.err
    assert said.out.splitlines()[0].endswith("; not given back")
    assert minima(api) == {"busy": 5, "over": 1, "theirs": 3, "none": 2}
    api.faults = [fault("GET", "/horizontalpodautoscalers", 403)]
    assert main(["floors", "--config", str(config)]) == 1
    said = capsys.readouterr()
    assert (said.out, "prod: may not list horizontalpodautoscalers" in said.err) == ("", True)


def test_a_namespace_in_which_nothing_acts_need_not_be_open_to_it(
    api: Any, config: Path, fault: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The chart grants the right to look where something acts; its CronJob must not fail for the other namespaces."""
    api.faults = [fault("GET", "/namespaces/lab/horizontalpodautoscalers", 403)]
    assert main(["floors", "--config", str(config), "--expire"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "lab: nothing puts a floor there, and it may not be looked at"
    assert (minima(api)["over"], said.err) == (1, "")
    api.faults = [fault("GET", "/namespaces/lab/horizontalpodautoscalers", 503)]
    assert main(["floors", "--config", str(config), "--expire"]) == 1


def test_wrong_use_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tidewise.yaml"
    path.write_text("workloads: []\n")
    assert main(["floors", "--config", str(path)]) == 0
    assert "no workload has a Kubernetes target, so there are no floors" in capsys.readouterr().out
    for arguments in (["--expire", "--restore"], ["--context", "prod"]):
        with pytest.raises(SystemExit) as error:
            main(["floors", *arguments])
        assert error.value.code == 2


@pytest.mark.real
def test_a_floor_of_a_scaler_that_is_gone_is_given_back_on_the_real_api_server(
    kube_cluster: ControlPlane, kube_namespace: str
) -> None:
    path = f"/apis/autoscaling/v2/namespaces/{kube_namespace}/horizontalpodautoscalers"
    kube_cluster.request("POST", path, hpa("over", 7, annotations("1", "7", -60)))
    rules = [
        {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["list", "patch"]},
        {"apiGroups": ["keda.sh"], "resources": ["scaledobjects"], "verbs": ["list", "patch"]},
    ]
    kubeconfig = kube_cluster.service_account(kube_namespace, "expirer", rules)
    assert main(["floors", "--namespace", kube_namespace, "--kubeconfig", str(kubeconfig), "--expire"]) == 0
    found = kube_cluster.request("GET", f"{path}/over")
    assert found["spec"]["minReplicas"] == 1
    assert "annotations" not in found["metadata"]
