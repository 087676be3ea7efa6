"""The chart without a cluster: what it makes of values, and what it refuses."""

import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.config import load
from controllers.schema import file_model
from deploy.render import CHART, SAMPLE
from exporters.__main__ import _parser
from exporters.runtime.config import validate
from testbed.parts import promtool

Json = dict[str, Any]

PROMETHEUS = {"url": "http://prometheus.monitoring:9090"}


def workload(name: str, namespace: str = "prod", **more: Any) -> Json:
    target = {"kubernetes": {"namespace": namespace, "deployment": f"{name}-worker"}}
    return {"name": name, "demand": {"queue": name}, "target": target, "replicas": {"max": 4}, **more}


def everything() -> Json:
    """Values with which each template has something to say."""
    token = {name: {"existingSecret": f"{name}-secret"} for name in ("budget", "scale", "recovery", "prometheus")}
    target = {
        "name": "workers",
        "workload": "default/video",
        "instances": {"promql": "up"},
        "symptoms": [{"alert": "WorkerHung"}],
        "replace": {"mode": "recommend"},
    }
    return {
        "prometheus": PROMETHEUS,
        "config": {
            "exporters": {
                "queue": {"redis": [{"url": "redis://redis:6379/0", "queues": [{"name": "video"}]}]},
                "workflow": None,
                "latency": {"probes": {"tcp": [{"service": "mail", "address": "mail:25"}]}},
                "gpu": {"processes": True},
                "cost": {"ledger": {}, "aws": {}},
            },
            "workloads": [workload("video", mode="act"), workload("audio", "lab")],
            "budget": {"total": "24900 KRW", "usage": "15000 KRW", "fx": {"USD": "1400 KRW"}},
            "recovery": {"targets": [target], "alertmanager": "http://alertmanager.monitoring:9093"},
        },
        "tokens": token,
        "scale": {"replicas": 2, "lease": {"enabled": True}},
        "budget": {"enabled": True},
        "recovery": {"enabled": True},
        "exporters": {
            "services": {
                "enabled": True,
                "persistence": {"enabled": True},
                "env": {"AWS_REGION": "eu-west-1"},
                "extraSecrets": ["redis"],
                "extraClaims": ["logs"],
            },
            "host": {"enabled": True},
            "gpu": {"enabled": True, "runtimeClassName": "nvidia"},
        },
        "metrics": {"serviceMonitor": {"enabled": True, "additionalLabels": {"release": "monitoring"}}},
        "prometheusRule": {"enabled": True, "workloads": "groups: []\n"},
        "dashboards": {"enabled": True, "additionalLabels": {"team": "video"}},
        "networkPolicy": {"enabled": True},
    }


def configuration(documents: dict[str, Json]) -> Json:
    text = next(one for name, one in documents.items() if name.startswith("ConfigMap/tide-tidewise"))
    read: Json = yaml.safe_load(text["data"]["tidewise.yaml"])
    return read


def pods(documents: dict[str, Json]) -> dict[str, Json]:
    """Component -> its pod's spec, the test's pod included."""
    found = {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in documents.values()
             if one["kind"] in ("Deployment", "DaemonSet")}  # fmt: skip
    specs = {name: one["spec"]["template"]["spec"] for name, one in found.items()}
    checks = [one["spec"] for one in documents.values() if one["kind"] == "Pod"]
    return {**specs, **({"check": checks[0]} if checks else {})}


@pytest.mark.parametrize("values", [{"prometheus": PROMETHEUS}, everything(), yaml.safe_load(SAMPLE.read_text())],
                         ids=["the least", "everything", "the sample"])  # fmt: skip
def test_helm_lints_it(helm: Any, tmp_path: Path, values: Json) -> None:
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    done = helm("lint", CHART, "--strict", "--values", tmp_path / "values.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_least_is_a_forecast_and_a_scaler_that_may_do_nothing(documents: Any) -> None:
    made = documents({"prometheus": PROMETHEUS})
    assert sorted(made) == [
        "ConfigMap/tide-tidewise", "Deployment/tide-tidewise-forecast", "Deployment/tide-tidewise-scale",
        "Pod/tide-tidewise-check", "Service/tide-tidewise-forecast", "Service/tide-tidewise-scale",
        "ServiceAccount/tide-tidewise-forecast", "ServiceAccount/tide-tidewise-scale",
    ]  # fmt: skip
    assert made["Deployment/tide-tidewise-scale"]["spec"]["strategy"] == {"type": "Recreate"}


def test_one_account_a_component_and_only_the_scalers_pod_gets_its_token(documents: Any) -> None:
    specs = pods(documents(everything()))
    assert set(specs) == {"forecast", "scale", "budget", "recovery", "check",
                          "exporter-services", "exporter-host", "exporter-gpu"}  # fmt: skip
    accounts = [spec.get("serviceAccountName") for spec in specs.values()]
    assert len(set(accounts)) == len(accounts)
    assert [name for name, spec in specs.items() if spec["automountServiceAccountToken"]] == ["scale"]


def test_every_container_is_restricted(documents: Any) -> None:
    for name, spec in pods(documents(everything())).items():
        whole, (container,) = spec["securityContext"], spec["containers"]
        assert whole["runAsNonRoot"], name
        assert whole["runAsUser"] > 0, name
        assert whole["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name


def test_the_configuration_is_one_that_the_processes_take(documents: Any, tmp_path: Path) -> None:
    made = documents(everything())
    path = tmp_path / "tidewise.yaml"
    path.write_text(made["ConfigMap/tide-tidewise"]["data"]["tidewise.yaml"])
    config = load(path)
    validate(file_model(), yaml.safe_load(path.read_text()), path)  # the exporters' section, too
    assert config.prometheus.url == PROMETHEUS["url"]
    assert config.budget is not None
    assert (config.budget.url, config.budget.listen) == ("http://tide-tidewise-budget:9814", ["0.0.0.0:9814"])
    assert config.scale.lease is not None
    assert (config.scale.lease.name, config.scale.lease.namespace) == ("tide-tidewise-scale", "ours")
    assert config.recovery is not None
    replace = config.recovery.targets[0].replace
    assert replace is not None
    assert replace.url == "http://tide-tidewise-scale:9813"
    assert replace.token_file == config.scale.token_file == Path("/etc/tidewise/secrets/token-scale/token")


def test_what_the_configuration_names_lies_in_the_pods_that_read_it(documents: Any) -> None:
    made = documents(everything())
    config, specs = configuration(made), pods(made)
    named = {
        "budget": [config["budget"]["ledger"], config["budget"]["token_file"]],
        "scale": [config["scale"]["records"], config["scale"]["replacements"], config["scale"]["token_file"],
                  config["budget"]["token_file"], config["prometheus"]["bearer_file"]],
        "recovery": [config["recovery"]["journal"], config["recovery"]["token_file"],
                     config["recovery"]["targets"][0]["replace"]["token_file"], config["prometheus"]["bearer_file"]],
        "forecast": [config["prometheus"]["bearer_file"]],
        "check": [config["prometheus"]["bearer_file"]],
        "exporter-services": [
            "/etc/tidewise/secrets/redis/password", "/data/logs/access.log",
            config["exporters"]["cost"]["ledger"]["token_file"], config["exporters"]["cost"]["aws"]["state_file"],
            config["exporters"]["latency"]["state_folder"],
        ],
        "exporter-gpu": ["/var/log/pods"],
        "exporter-host": [config["exporters"]["host"]["proc"], config["exporters"]["host"]["root"]],
    }  # fmt: skip
    for component, paths in named.items():
        (container,) = specs[component]["containers"]
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        for path in [*paths, "/etc/tidewise/config/tidewise.yaml"]:
            assert any(path.startswith(f"{mount}/") or path == mount for mount in mounts), (component, path)
        volumes = {volume["name"] for volume in specs[component]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_what_is_written_in_the_values_is_not_overwritten(documents: Any) -> None:
    values = everything()
    values["config"]["scale"] = {"listen": ["127.0.0.1:9913"], "records": "/data/decisions", "interval_seconds": 5}
    values["config"]["workloads"][0]["lead_time_seconds"] = 12_000_000
    config = configuration(documents(values))
    assert config["scale"]["listen"] == ["127.0.0.1:9913"]
    assert config["scale"]["records"] == "/data/decisions"
    assert config["workloads"][0]["lead_time_seconds"] == 12_000_000
    assert config["workloads"][0] == values["config"]["workloads"][0]


def test_the_commands_are_ones_that_the_programs_take(documents: Any) -> None:
    from controllers.registry import COMMANDS, CONTROLLERS

    for name, spec in pods(documents(everything())).items():
        program, *arguments = spec["containers"][0]["command"]
        if program == "tidewise-exporter":
            services = ["cost", "latency", "queue"]  # `workflow: null` is no section
            wanted = services if name == "exporter-services" else [name.removeprefix("exporter-")]
            assert _parser().parse_args(arguments).names == wanted
        else:
            assert program == "tidewise"
            assert arguments[0] in {**CONTROLLERS, **COMMANDS}


def test_rights_follow_the_workloads(documents: Any) -> None:
    made = documents(everything())
    assert made["Role/prod/tide-tidewise-scale"]["rules"] == [
        {"apiGroups": ["apps"], "resources": ["deployments/scale"], "resourceNames": ["video-worker"],
         "verbs": ["get", "update"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": ["get", "list", "patch"]},
        {"apiGroups": ["keda.sh"], "resources": ["scaledobjects"], "verbs": ["get", "list", "patch"]},
        {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]},
    ]  # fmt: skip
    assert made["Role/lab/tide-tidewise-scale"]["rules"] == [
        {"apiGroups": ["apps"], "resources": ["deployments/scale"], "resourceNames": ["audio-worker"],
         "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    ]  # fmt: skip
    assert not any(name.startswith("ClusterRole") for name in made)


def test_pods_are_evicted_only_where_recovery_may_have_them_replaced(documents: Any) -> None:
    values = everything()
    del values["config"]["recovery"]["targets"][0]["replace"]
    made = documents(values)
    granted = [rule["resources"] for rule in made["Role/prod/tide-tidewise-scale"]["rules"]]
    assert ["pods/eviction"] not in granted


def test_floors_and_drains_are_granted_only_where_such_a_workload_acts(documents: Any) -> None:
    def granted(**more: Any) -> dict[str, list[str]]:
        one = workload("video", **{key: value for key, value in more.items() if key != "beside"})
        one["target"]["kubernetes"] |= {"beside": more["beside"]} if "beside" in more else {}
        made = documents({"prometheus": PROMETHEUS, "config": {"workloads": [one]}})
        assert ("CronJob/tide-tidewise-floors" in made) is (more == {"mode": "act"} or more.get("in_hand") == "busy")
        return {rule["resources"][0]: rule["verbs"] for rule in made["Role/prod/tide-tidewise-scale"]["rules"]}

    reads = {"deployments/scale": ["get"], "pods": ["list"]}
    acts = {**reads, "deployments/scale": ["get", "update"]}
    floors = {key: ["get", "list", "patch"] for key in ("horizontalpodautoscalers", "scaledobjects")}
    looks = {key: ["list"] for key in floors}
    assert granted() == granted(mode="recommend") == reads
    assert granted(mode="act") == {**acts, **floors}
    assert granted(mode="act", beside="refuse") == {**acts, **looks}
    assert granted(mode="act", in_hand="busy") == {**acts, **floors, "pods": ["list", "patch"]}


def test_one_of_several_targets_is_granted_what_it_needs_and_no_floor(documents: Any) -> None:
    one = workload("video", mode="act")
    spot = {"kubernetes": {"namespace": "spot", "statefulset": "extra"}}
    parts = [{"name": "own", "max": 2, "target": one["target"]}, {"name": "spot", "max": 9, "target": spot}]
    made = documents({"prometheus": PROMETHEUS, "config": {"workloads": [{**one, "target": {"several": parts}}]}})
    for namespace, resource in (("prod", "deployments/scale"), ("spot", "statefulsets/scale")):
        rules = {rule["resources"][0]: rule["verbs"] for rule in made[f"Role/{namespace}/tide-tidewise-scale"]["rules"]}
        assert (rules[resource], rules["horizontalpodautoscalers"]) == (["get", "update"], ["list"])
    assert not any(name.startswith("CronJob") for name in made)


def test_what_gives_floors_back_runs_as_the_scaler_and_can_be_left_out(documents: Any) -> None:
    cron = documents(everything())["CronJob/tide-tidewise-floors"]["spec"]
    spec = cron["jobTemplate"]["spec"]["template"]["spec"]
    assert (cron["schedule"], spec["serviceAccountName"]) == ("*/10 * * * *", "tide-tidewise-scale")
    (container,) = spec["containers"]
    program, *arguments = container["command"]
    assert (program, arguments[0], arguments[-1]) == ("tidewise", "floors", "--expire")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    without = everything()
    without["scale"] = {**without["scale"], "extraSecrets": ["other-cluster"]}  # where a target's kubeconfig lies
    spec = documents(without)["CronJob/tide-tidewise-floors"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    assert mounts["secret-other-cluster"] == "/etc/tidewise/secrets/other-cluster"
    assert set(mounts) == {volume["name"] for volume in spec["volumes"]}
    without["scale"] = {**without["scale"], "floors": {"enabled": False}}
    assert not any(name.startswith("CronJob") for name in documents(without))


def test_without_rbac_create_nobody_gets_any_right(documents: Any) -> None:
    made = documents({**everything(), "rbac": {"create": False}})
    assert not any(one["kind"].startswith(("Role", "ClusterRole")) for one in made.values())


def test_a_disruption_budget_only_where_there_are_two(documents: Any) -> None:
    assert "PodDisruptionBudget/tide-tidewise-scale" in documents(everything())
    assert not any(name.startswith("PodDis") for name in documents({"prometheus": PROMETHEUS}))


def test_rules_and_dashboards_are_the_files_themselves(documents: Any, tmp_path: Path, parts_root: Path) -> None:
    made = documents(everything())
    rules = {path.stem: path for path in (CHART / "files/rules").iterdir() if path.name != "workloads.yml"}
    assert {"contract", "alerts", "scale"} <= set(rules)
    for stem, path in rules.items():
        one = made[f"PrometheusRule/tide-tidewise-{stem}"]
        assert one["spec"] == yaml.safe_load(path.read_text())
        assert one["metadata"]["labels"]["app.kubernetes.io/name"] == "tidewise"
        (tmp_path / path.name).write_text(yaml.safe_dump(one["spec"]))
    done = promtool("check", "rules", *tmp_path.glob("*.yml"), root=parts_root)
    assert done.returncode == 0, done.stdout + done.stderr
    dashboards = list((CHART / "files/dashboards").glob("*.json"))
    for path in dashboards:
        one = made[f"ConfigMap/tide-tidewise-dashboard-{path.stem}"]
        assert one["data"][f"tidewise-{path.name}"].strip() == path.read_text().strip()
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert one["metadata"]["labels"]["team"] == "video"


def test_rules_of_the_workloads_that_lie_beside_the_others_stay_out(helm: Any, tmp_path: Path) -> None:
    assert "files/rules/workloads.yml" in (CHART / ".helmignore").read_text().splitlines()
    done = helm("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as archive:
        names = archive.getnames()
    assert "tidewise/files/rules/contract.yml" in names
    assert "tidewise/files/dashboards/overview.json" in names
    assert "tidewise/files/rules/workloads.yml" not in names
    assert package.stat().st_size < 500_000  # with all that is rendered, it has to fit into the release's Secret


def test_the_jobs_are_those_that_the_alerts_ask_for(documents: Any) -> None:
    made = documents(everything())
    assert made["ServiceMonitor/tide-tidewise"]["spec"]["jobLabel"] == "tidewise-job"
    assert made["ServiceMonitor/tide-tidewise"]["metadata"]["labels"]["release"] == "monitoring"
    jobs = {one["metadata"]["labels"]["tidewise-job"] for one in made.values() if one["kind"] == "Service"}
    assert jobs == {f"tidewise-{name}" for name in ("forecast", "scale", "budget", "recovery", "exporter")}


def test_what_may_be_reached_is_listed(documents: Any) -> None:
    values = everything()
    values["networkPolicy"] |= {
        "prometheus": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "extraEgress": {"exporterServices": [{"ports": [{"port": 6379}]}]},
    }
    made = documents(values)
    ports = {
        name.removeprefix("NetworkPolicy/tide-tidewise-"): [
            port["port"] for rule in one["spec"]["egress"] for port in rule["ports"]
        ]
        for name, one in made.items()
        if one["kind"] == "NetworkPolicy"
    }
    assert ports == {
        "forecast": [53, 53, 9090],
        "scale": [53, 53, 9090, 443, 6443, 9814],
        "floors": [53, 53, 443, 6443],
        "budget": [53, 53],
        "exporter-gpu": [53, 53],
        "recovery": [53, 53, 9090, 9093, 9813],
        "exporter-services": [53, 53, 9814, 6379],
    }
    assert (
        made["NetworkPolicy/tide-tidewise-forecast"]["spec"]["egress"][1]["to"] == values["networkPolicy"]["prometheus"]
    )


def followed(replicas: int = 1, **doors: Json) -> Json:
    target = {"publish": {"ready": "sum(up)"}}
    workloads = [{"name": "video", "demand": {"queue": "video"}, "target": target, "replicas": {"max": 4}}]
    return {
        "prometheus": PROMETHEUS,
        "config": {"workloads": workloads, "scale": doors},
        "scale": {"replicas": replicas, "lease": {"enabled": replicas > 1}, "extraSecrets": ["web"]},
        "networkPolicy": {"enabled": True, "ingressFrom": [{"podSelector": {}}]},
    }


def test_who_follows_a_published_number_finds_its_door(documents: Any, tmp_path: Path) -> None:
    web = "/etc/tidewise/secrets/web/web.yml"
    made = documents(followed(external_metrics={"web_config": web}, external_scaler={}))
    (tmp_path / "tidewise.yaml").write_text(made["ConfigMap/tide-tidewise"]["data"]["tidewise.yaml"])
    scale = load(tmp_path / "tidewise.yaml").scale
    assert scale.external_metrics is not None
    assert scale.external_scaler is not None
    assert (scale.external_metrics.listen, scale.external_scaler.listen) == (["0.0.0.0:9816"], "0.0.0.0:9817")
    (container,) = pods(made)["scale"]["containers"]
    assert [(one["name"], one["containerPort"]) for one in container["ports"]] == [
        ("http", 9813), ("metrics-api", 9816), ("external-scaler", 9817)
    ]  # fmt: skip
    ports = made["Service/tide-tidewise-scale"]["spec"]["ports"]
    assert [(one["port"], one["targetPort"]) for one in ports] == [
        (9813, "http"), (443, "metrics-api"), (9817, "external-scaler")
    ]  # fmt: skip
    ingress = made["NetworkPolicy/tide-tidewise-scale"]["spec"]["ingress"]
    assert [(rule["ports"][0]["port"], "from" in rule) for rule in ingress] == [
        ("http", True), ("metrics-api", False), ("external-scaler", True)
    ]  # fmt: skip


def test_a_door_is_where_the_configuration_has_it_and_nowhere_else(documents: Any) -> None:
    made = documents(followed(external_scaler={"listen": "0.0.0.0:7000"}))
    ports = made["Service/tide-tidewise-scale"]["spec"]["ports"]
    assert [one["port"] for one in ports] == [9813, 7000]
    assert len(documents(followed())["Service/tide-tidewise-scale"]["spec"]["ports"]) == 1


def test_no_replicas_are_none(documents: Any) -> None:
    """With which somebody stops the scaler."""
    made = documents({"prometheus": PROMETHEUS, "scale": {"replicas": 0}})
    assert made["Deployment/tide-tidewise-scale"]["spec"]["replicas"] == 0
    assert made["Deployment/tide-tidewise-forecast"]["spec"]["replicas"] == 1


def test_what_a_pod_keeps_is_on_its_volume_and_others_volumes_are_only_read(documents: Any) -> None:
    made = documents(everything())
    volumes = {volume["name"]: volume for volume in pods(made)["exporter-services"]["volumes"]}
    assert volumes["state"]["persistentVolumeClaim"] == {"claimName": "tide-tidewise-exporter-services"}
    assert "PersistentVolumeClaim/tide-tidewise-exporter-services" in made
    assert volumes["claim-logs"]["persistentVolumeClaim"] == {"claimName": "logs", "readOnly": True}


def test_the_gpus_pod_sees_the_nodes_processes_only_where_they_are_asked_for(documents: Any) -> None:
    values = everything()
    spec = pods(documents(values))["exporter-gpu"]
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert {one["name"]: one["value"] for one in spec["containers"][0]["env"]} == {
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "utility",
    }
    assert spec["hostPID"]
    assert [volume["hostPath"] for volume in spec["volumes"] if "hostPath" in volume] == [{"path": "/var/log/pods"}]
    values["config"]["exporters"]["gpu"]["processes"] = False
    spec = pods(documents(values))["exporter-gpu"]
    assert "hostPID" not in spec
    assert not any("hostPath" in volume for volume in spec["volumes"])


def test_a_web_configuration_is_every_exporters_and_nobody_elses(documents: Any) -> None:
    values = everything()
    scrape = {"scheme": "https", "tlsConfig": {"serverName": "exporter"},
              "basicAuth": {"username": {"name": "scrape", "key": "user"}}}  # fmt: skip
    values["exporters"]["web"] = {"existingSecret": "web", "scrape": scrape}
    made = documents(values)
    for name, spec in pods(made).items():
        container, exporter = spec["containers"][0], name.startswith("exporter-")
        mounted = "/etc/tidewise/web" in [mount["mountPath"] for mount in container["volumeMounts"]]
        assert mounted == ("/etc/tidewise/web/web.yml" in container["command"]) == exporter, name
        if exporter:
            assert _parser().parse_args(container["command"][1:]).web_config == Path("/etc/tidewise/web/web.yml")
        for probe in ("livenessProbe", "readinessProbe"):
            # `helm test` has no probes; one of HTTP would be sent away without a password.
            assert ("tcpSocket" in container.get(probe, {})) == exporter, (name, probe)
    jobs = {one["metadata"]["labels"]["tidewise-job"] for one in made.values() if one["kind"] == "Service"}
    seen: list[str] = []
    for name, secured in (("tide-tidewise", False), ("tide-tidewise-exporters", True)):
        spec = made[f"ServiceMonitor/{name}"]["spec"]
        (endpoint,), (expression,) = spec["endpoints"], spec["selector"]["matchExpressions"]
        assert endpoint == {"port": "http", "interval": "15s"} | (scrape if secured else {})
        seen += [job for job in jobs if (job in expression["values"]) == (expression["operator"] == "In")]
    assert sorted(seen) == sorted(jobs)
    assert "ServiceMonitor/tide-tidewise-exporters" not in documents(everything())
