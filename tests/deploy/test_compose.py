"""Compose and the images, without an engine: what each file says of the others is true, and the real tools take it.

No image is built and no container started here.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.actuators.command import command_actuator
from controllers.check import main as check
from controllers.config import CommandTarget, load
from controllers.registry import COMMANDS, CONTROLLERS
from deploy.locks import FOLDER, IMAGES, LOCK, render_lock
from exporters.__main__ import _parser
from testbed.parts import amtool, promtool

Json = dict[str, Any]

COMPOSE = Path(__file__).parents[2] / "deploy/compose"
ROOT = COMPOSE.parents[1]
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
LISTENS = {"forecast": 9812, "scale": 9813, "budget": 9814, "recovery": 9815,
           "exporter-services": 9811, "exporter-host": 9811}  # fmt: skip


@pytest.fixture(scope="module")
def compose() -> Json:
    read: Json = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return read


def mounts(service: Json) -> dict[str, str]:
    """Where in the container -> what."""
    return {parts[1]: parts[0] for parts in (text.split(":") for text in service.get("volumes", []))}


def test_every_container_is_hardened_and_published_on_the_loopback_only(compose: Json) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert not any("docker.sock" in what for what in mounts(service).values()), name
        assert re.fullmatch(r"[a-z/-]+:v?[0-9]+\.[0-9]+\.[0-9]+[a-z-]*", service["image"]), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len({port.rsplit(":", 1)[0] for port in published}) == len(published)


def test_what_is_mounted_is_there(compose: Json) -> None:
    for name, service in compose["services"].items():
        for what in mounts(service).values():
            if what.startswith("."):
                assert (COMPOSE / what).exists(), (name, what)
            elif not what.startswith("/"):
                assert what in compose["volumes"], (name, what)
        assert set(service.get("secrets", [])) <= set(compose["secrets"]), name


def test_the_file_is_right_and_names_what_the_containers_have(compose: Json, capsys: Any) -> None:
    assert check([str(COMPOSE / "tidewise.yaml"), "--no-prometheus"]) == 0
    assert "no mistakes" in capsys.readouterr().out
    config = load(COMPOSE / "tidewise.yaml")
    budget, recovery = config.budget, config.recovery
    assert budget is not None
    assert recovery is not None
    assert [str(budget.total), str(budget.usage), budget.time_zone] == ["24,900 KRW", "15,000 KRW", "Asia/Seoul"]
    assert {fixed.name: str(fixed.monthly) for fixed in budget.fixed} == {"server": "9,900 KRW"}
    assert config.exporters is not None
    (server,), (database,) = config.exporters["queue"]["redis"], config.exporters["database"]["redis"]
    ledger = config.exporters["cost"]["ledger"]
    assert (ledger["url"], database["url"]) == (budget.url, server["url"])
    named = {
        "scale": [config.scale.records, config.scale.replacements, config.scale.token_file, budget.token_file,
                  Path("/opt/fleet/scale"), Path("/var/lib/tidewise/fleet/replicas")],
        "budget": [budget.ledger, budget.token_file],
        "recovery": [recovery.journal, recovery.token_file],
        "exporter-host": [Path("/host/proc")],
        "exporter-services": [ledger["token_file"]],
    }  # fmt: skip
    for name, paths in named.items():
        service = compose["services"][name]
        there = [*mounts(service), *(f"/run/secrets/{secret}" for secret in service.get("secrets", []))]
        for path in paths:
            assert any(str(path).startswith(place) for place in there), (name, path)
    urls = [config.prometheus.url, budget.url, str(recovery.alertmanager), server["url"]]
    hosts = {url.split("//")[1].split(":")[0]: int(url.rsplit(":", 1)[1].split("/")[0]) for url in urls}
    assert hosts == {"prometheus": 9090, "budget": 9814, "alertmanager": 9093, "redis": 6379}
    assert set(hosts) <= set(compose["services"])


def test_the_documented_commands_are_ones_that_the_programs_take(compose: Json) -> None:
    entry = {"tidewise:0.1.0": "controllers", "tidewise-exporter:0.1.0": "exporters"}
    for name, service in compose["services"].items():
        if service["image"] not in entry:
            continue
        assert service["build"]["target"] == entry[service["image"]]
        assert f"AS {service['build']['target']}\n" in DOCKERFILE.read_text()
        arguments = service["command"]
        assert mounts(service)["/etc/tidewise/tidewise.yaml"] == "./tidewise.yaml"
        if service["build"]["target"] == "exporters":
            written = yaml.safe_load((COMPOSE / "tidewise.yaml").read_text())["exporters"]
            watched = [name for name in written if name not in ("listen", "host")]
            assert _parser().parse_args(arguments).names == (["host"] if name == "exporter-host" else watched)
        else:
            assert arguments[0] == name
            assert arguments[0] in {**CONTROLLERS, **COMMANDS}


def test_prometheus_takes_its_file_and_scrapes_what_listens(compose: Json, parts_root: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "prometheus/rules", tmp_path / "rules")
    text = (COMPOSE / "prometheus.yml").read_text()
    for folder in ("rules", "workloads"):
        text = text.replace(f"/etc/prometheus/{folder}", str(tmp_path / folder))
    (tmp_path / "prometheus.yml").write_text(text)
    argv = [sys.executable, "-m", "controllers", "rules", "--config", str(COMPOSE / "tidewise.yaml")]
    subprocess.run([*argv, "--out", str(tmp_path / "workloads/workloads.yml")], check=True, capture_output=True)
    for path in (tmp_path / "prometheus.yml", ROOT / "prometheus/longterm.yml"):
        done = promtool("check", "config", path, root=parts_root)
        assert done.returncode == 0, done.stdout + done.stderr

    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in yaml.safe_load(text)["scrape_configs"]}
    del jobs["prometheus"]
    targets = [target for targets in jobs.values() for target in targets]
    assert {target.split(":")[0]: int(target.split(":")[1]) for target in targets} == LISTENS
    for name, port in LISTENS.items():
        assert [text.rsplit(":", 1)[1] for text in compose["services"][name]["ports"]] == [str(port)]
    written = yaml.safe_load((COMPOSE / "tidewise.yaml").read_text())
    for name, port in LISTENS.items():
        section = written[name if name in written else "exporters"]
        assert section["listen"] == [f"0.0.0.0:{port}"]


def test_what_is_sent_to_the_year_is_what_the_other_file_sends() -> None:
    ours = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["remote_write"]
    theirs = yaml.safe_load((ROOT / "prometheus/remote-write.yml").read_text())["remote_write"]
    assert [{**one, "url": ""} for one in ours] == [{**one, "url": ""} for one in theirs]


def test_alertmanager_takes_its_file_and_tells_recovery(parts_root: Path) -> None:
    done = amtool("check-config", COMPOSE / "alertmanager.yml", root=parts_root)
    assert done.returncode == 0, done.stdout + done.stderr
    done = amtool("config", "routes", "test", "--config.file", COMPOSE / "alertmanager.yml", "severity=page",
                  "alertname=QueueAgeSLO", root=parts_root)  # fmt: skip
    assert done.stdout.split() == ["recovery,people"]


def test_the_year_is_a_source_of_its_own_for_grafana() -> None:
    ours = yaml.safe_load((COMPOSE / "longterm-datasource.yml").read_text())["datasources"]
    theirs = yaml.safe_load((ROOT / "grafana/provisioning/datasources/tidewise.yml").read_text())["datasources"]
    assert not {one["uid"] for one in ours} & {one["uid"] for one in theirs}


def test_the_sample_fleet_keeps_the_number_that_it_is_told(tmp_path: Path) -> None:
    number = str(tmp_path / "replicas")
    fleet = COMPOSE / "fleet"
    assert all(os.access(fleet / name, os.X_OK) for name in ("replicas", "scale"))
    target = CommandTarget(get=[str(fleet / "replicas"), number], set=[str(fleet / "scale"), "{replicas}", number])
    actuator = command_actuator(target)
    assert actuator.read_replicas(5).wanted == 0
    actuator.apply(3, 5)
    assert actuator.read_replicas(5).wanted == 3


def test_the_images_need_no_network_but_the_package_index_and_are_nobodys_root() -> None:
    text = DOCKERFILE.read_text()
    assert "# syntax=" not in text
    assert "<<" not in text
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    names = [stage.split("\n")[0].split(" AS ")[1] for stage in stages]
    assert names[-3:] == ["base", "exporters", "controllers"]
    assert "USER 10001:10001" in stages[-3]
    assert "USER" not in stages[-2] + stages[-1]
    for line in re.findall(r"pip install .*", text):
        assert "--require-hashes" in line or "--no-index --no-deps" in line
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", text, flags=re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source


@pytest.mark.parametrize("image", IMAGES)
def test_what_an_image_installs_is_the_lock(image: str) -> None:
    lock = (FOLDER / f"{image}.lock").read_text()
    assert lock == render_lock(IMAGES[image]), "run `python -m deploy locks`"
    pins = [line for line in lock.splitlines() if re.match(r"[a-z]", line)]
    assert pins
    assert set(pins) <= set(LOCK.read_text().splitlines())
    heavy = {"numpy", "pandas", "kubernetes", "scikit-learn", "distributed", "matplotlib", "pytest"}
    found = {pin.split("==")[0] for pin in pins}
    assert found & heavy == (heavy - {"matplotlib", "pytest"} if image == "controllers" else set())
