"""The control plane is built once, from pinned modules; it starts, runs pods, and ends with all its programs."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed.kube import build, certificates
from testbed.kube.__main__ import main
from testbed.kube.build import BuildError, NoGoError
from testbed.kube.cluster import AnswerError, Cluster
from testbed.parts import PartError

# It makes each program where `-o=FOLDER/` says, after naming a few packages as Go does.
WORKS = """
case "$1" in
  env) echo go{version} ;;
  list) printf 'a\\nb\\nc\\n' ;;
  build)
    for argument; do case "$argument" in -o=*) folder="${argument#-o=}" ;; esac; done
    for program in {programs}; do echo "k8s.io/$program" >&2; echo it > "$folder$program"; done ;;
esac
"""


@dataclass(frozen=True)
class FakeGo:
    """What stands in for Go."""

    program: Path
    asked_file: Path

    def works(self, version: str = "1.99.1", programs: str = " ".join(["server", *build.PROGRAMS[1:]])) -> None:
        self.says(WORKS.replace("{version}", version).replace("{programs}", programs))

    def says(self, script: str) -> None:
        """From now on Go does this (sh)."""
        note = 'echo "$* | $GOFLAGS $GOTOOLCHAIN $GOWORK $GOMODCACHE" >> ' + str(self.asked_file)
        self.program.write_text(f"#!/bin/sh\n{note}\n{script}\n")
        self.program.chmod(0o755)

    def asked(self, command: str) -> list[str]:
        """The calls of one of its commands so far, with the environment that matters."""
        lines = self.asked_file.read_text().splitlines() if self.asked_file.exists() else []
        return [line for line in lines if line.startswith(f"{command} ")]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own; the user's own settings for Go do not count."""
    monkeypatch.setenv("TIDEWISE_CACHE", str(tmp_path / "cache"))
    for name in ("GOCACHE", "GOMODCACHE", "SKIP_KUBE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(build, "ROOM_BYTES", 0)
    return tmp_path / "cache"


@pytest.fixture
def fake_go(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGo:
    """A Go that works and is new enough."""
    fake = FakeGo(tmp_path / "bin/go", tmp_path / "asked")
    fake.program.parent.mkdir()
    fake.works()
    monkeypatch.setenv("PATH", f"{fake.program.parent}:/usr/bin:/bin")
    return fake


def test_it_is_built_once_with_pinned_modules_and_leaves_nothing_else(cache: Path, fake_go: FakeGo) -> None:
    said: list[str] = []
    tree = build.ensure(said.append)
    assert sorted(path.name for path in tree.iterdir()) == sorted(build.PROGRAMS)
    assert sorted(path.name for path in cache.iterdir()) == sorted(["kube-lock", tree.name])
    assert re.fullmatch(r"kube-v1\.36\.\d+-\w+-[0-9a-f]{12}-go1\.99\.1", tree.name)
    assert "about 8 minutes on two cores, only this once" in said[0]
    (call,) = fake_go.asked("build")
    for expected in ("version.gitVersion=v1.36", " tool | -mod=readonly -modcacherw local off "):
        assert expected in call

    said.clear()
    assert (build.ensure(said.append), build.find(), build.absence()) == (tree, tree, None)
    assert (len(fake_go.asked("build")), said) == (1, [])


def test_progress_says_how_far_it_is(fake_go: FakeGo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SAY_EVERY_SECONDS", 0.0)
    said: list[str] = []
    build.ensure(said.append)
    assert re.search(r"2/2 compiled 1 of at most 3 packages after 0\.\d min", "\n".join(said))


def test_caches_that_the_user_has_set_are_used_and_kept(
    cache: Path, fake_go: FakeGo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    build.ensure(print)
    assert fake_go.asked("build")[0].endswith(f"-mod=readonly local off {tmp_path}/mine")
    assert (tmp_path / "mine").is_dir()


def test_another_go_builds_another_tree_and_without_a_go_any_will_do(
    fake_go: FakeGo, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build.ensure(print)
    fake_go.works(version="1.99.2")
    assert build.find() is None
    second = build.ensure(print)
    assert first != second
    fake_go.program.unlink()
    assert build.find() in (first, second)
    assert build.absence() is None


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.22.2", r"Go 1\.26\.0 or newer is needed to build the control plane; \S+/go is 1\.22\.2\. Install a newer"),
        ("1.9", r"is 1\.9\."),
        ("", r"is of unknown version"),
    ],
)
def test_a_go_that_is_too_old_is_told_with_what_to_do(fake_go: FakeGo, version: str, expected: str) -> None:
    fake_go.works(version=version)
    with pytest.raises(NoGoError, match=expected):
        build.ensure(print)


@pytest.mark.parametrize("version", ["1.26.0", "1.26.8", "1.27rc1", "2.0"])
def test_a_go_that_is_new_enough(fake_go: FakeGo, version: str) -> None:
    fake_go.works(version=version)
    assert build.read_go().version == version


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("dial tcp 1.2.3.4:443: i/o timeout", "the module proxy cannot be reached"),
        ("verifying k8s.io/api: checksum mismatch", "a module is not the one that go.sum pins; use another GOPROXY"),
        ("link: write x: no space left on device", "the disk is full"),
        ("compile: signal: killed", "the system ended the compiler, most likely for want of memory"),
        ("x.go:3: undefined: y", "exit status 1, see below\n    x.go:3: undefined: y"),
    ],
)
def test_a_build_that_fails_says_why_and_can_go_on(cache: Path, fake_go: FakeGo, said: str, expected: str) -> None:
    works = fake_go.program.read_text()
    fake_go.says(f'[ "$1" = env ] && echo go1.99.1 && exit; echo "{said}" >&2; exit 1')
    with pytest.raises(BuildError, match=f"^go list: {re.escape(expected)}"):
        build.ensure(print)
    assert build.find() is None
    assert (cache / "kube-scratch").is_dir()  # what was downloaded
    fake_go.program.write_text(works)
    assert build.ensure(print).is_dir()
    assert not (cache / "kube-scratch").exists()


def test_a_program_that_was_not_made_is_noticed(cache: Path, fake_go: FakeGo) -> None:
    fake_go.works(programs="server helm")
    with pytest.raises(BuildError, match=r"the build made no kube-apiserver, kube-.*: the tool lines"):
        build.ensure(print)
    assert build.find() is None


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    fake_go: FakeGo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "ROOM_BYTES", 10**18)
    with pytest.raises(BuildError, match=r"GB free, 1000000000 GB are needed while building: free some, or set TIDE"):
        build.ensure(print)
    assert fake_go.asked("list") == []


def test_what_is_missing_is_named(cache: Path, fake_go: FakeGo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.absence() == (
        "Kubernetes: not built yet; `python -m testbed.kube build` builds it once (about 8 minutes on two cores)"
    )
    fake_go.program.unlink()
    assert str(build.absence()).startswith("Kubernetes: no Go on PATH; install Go 1.26.0 or newer from ")
    monkeypatch.setenv("PATH", str(fake_go.program.parent))
    assert str(build.absence()).startswith("Kubernetes: no openssl on PATH")
    monkeypatch.setenv("SKIP_KUBE", "1")
    assert build.absence() == "Kubernetes: SKIP_KUBE is set"
    monkeypatch.setenv("SKIP_KUBE", "0")
    assert "no openssl" in str(build.absence())


def test_the_command_line(
    cache: Path, fake_go: FakeGo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (main(["where"]), capsys.readouterr().err) == (1, f"{build.absence()}\n")
    assert main(["build"]) == 0
    tree = capsys.readouterr().out
    assert (main(["where"]), capsys.readouterr().out) == (0, tree)
    assert (main(["clean"]), capsys.readouterr().out) == (0, f"removed 1 from {cache}\n")

    fake_go.program.unlink()
    for options, status in ((["build"], 1), (["build", "--optional"], 0)):
        assert main(options) == status
        assert "no Go on PATH" in capsys.readouterr().err
    monkeypatch.setenv("SKIP_KUBE", "1")
    assert main(["build", "--optional"]) == 0
    assert capsys.readouterr().err == "testbed: Kubernetes is left out: SKIP_KUBE is set\n"


def test_the_modules_of_kubernetes_are_of_one_release() -> None:
    """Kubernetes' own go.mod points them into its source tree, so each has to be replaced here."""
    text = (build.MODULE / "go.mod").read_text()
    patch = build._version().removeprefix("v1.")
    replaced = re.findall(r"^\t(k8s\.io/\S+) => (\S+) (\S+)$", text, re.MULTILINE)
    assert len(replaced) == 32
    assert {(name == other, version) for name, other, version in replaced} == {(True, f"v0.{patch}")}


def test_without_openssl_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(certificates.CertificateError, match="no openssl on PATH"):
        certificates.create(tmp_path)


def test_a_program_that_dies_at_the_start_is_told_with_its_log_and_nothing_stays(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "etcd").write_text("#!/bin/sh\necho no luck today\nexit 3\n")
    (root / "etcd").chmod(0o755)
    with pytest.raises(PartError, match=r"etcd ended with exit status 3 before it was ready\. .*\n    no luck today"):
        Cluster(tmp_path / "cluster", root=root).start()


# -------------------------------------------------------------------------------------- the real control plane


def wait_until(true: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def pod_template(**annotations: str) -> dict[str, Any]:
    container = {"name": "worker", "image": "none"}
    return {
        "metadata": {"labels": {"app": "worker"}, "annotations": annotations},
        "spec": {"containers": [container], "restartPolicy": "Always"},
    }


def deployment(replicas: int, **annotations: str) -> dict[str, Any]:
    selector = {"matchLabels": {"app": "worker"}}
    template = pod_template(**annotations)
    return {"metadata": {"name": "worker"}, "spec": {"replicas": replicas, "selector": selector, "template": template}}


@pytest.mark.real
def test_it_starts_in_seconds_and_ends_with_all_its_programs(tmp_path: Path) -> None:
    if (reason := build.absence()) is not None:
        pytest.skip(reason)
    began = time.monotonic()
    with Cluster(tmp_path, root=build.find()) as cluster:
        assert time.monotonic() - began < 60  # 7 s on an idle machine
        pids = [program.pid for program in cluster._programs]
        assert len({pid for pid in pids if pid is not None}) == 5
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.real
def test_pods_run_and_take_as_long_to_get_ready_as_they_say(kube_cluster: Cluster, kube_namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{kube_namespace}/deployments"
    began = time.monotonic()
    kube_cluster.request("POST", path, deployment(2, **{"testbed/ready-after": "1500ms"}))
    assert wait_until(lambda: kube_cluster.request("GET", f"{path}/worker")["status"].get("readyReplicas") == 2)
    assert time.monotonic() - began > 1.5
    pods = kube_cluster.request("GET", f"/api/v1/namespaces/{kube_namespace}/pods")["items"]
    assert [pod["status"]["phase"] for pod in pods] == ["Running", "Running"]


@pytest.mark.real
def test_a_job_succeeds(kube_cluster: Cluster, kube_namespace: str) -> None:
    path = f"/apis/batch/v1/namespaces/{kube_namespace}/jobs"
    template = pod_template()
    template["spec"]["restartPolicy"] = "Never"
    kube_cluster.request("POST", path, {"metadata": {"name": "once"}, "spec": {"template": template}})
    assert wait_until(lambda: kube_cluster.request("GET", f"{path}/once")["status"].get("succeeded") == 1)


@pytest.mark.real
def test_what_the_api_does_not_know_is_refused_by_a_dry_run(kube_cluster: Cluster, kube_namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{kube_namespace}/deployments?dryRun=All&fieldValidation=Strict"
    kube_cluster.request("POST", path, deployment(1))
    wrong = deployment(1)
    wrong["spec"]["replicaz"] = 1
    with pytest.raises(AnswerError, match=r"400: .*unknown field .*spec\.replicaz"):
        kube_cluster.request("POST", path, wrong)


@pytest.mark.real
def test_a_chart_is_installed_by_helm(kube_cluster: Cluster, kube_namespace: str, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: small\nversion: 1.0.0\n")
    (tmp_path / "templates/all.yaml").write_text(
        'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "{{ .Release.Name }}"}\ndata: {a: "{{ .Values.a }}"}\n'
    )
    done = kube_cluster.helm("install", "mine", tmp_path, "--namespace", kube_namespace, "--set", "a=b", "--wait")
    assert done.returncode == 0, done.stderr
    assert kube_cluster.request("GET", f"/api/v1/namespaces/{kube_namespace}/configmaps/mine")["data"] == {"a": "b"}


@pytest.mark.real
def test_the_api_server_goes_and_comes_back_with_everything(kube_cluster: Cluster, kube_namespace: str) -> None:
    url = kube_cluster.url
    with kube_cluster.outage(), pytest.raises(OSError, match="refused"):
        kube_cluster.request("GET", f"/api/v1/namespaces/{kube_namespace}")
    assert kube_cluster.url == url
    assert kube_cluster.request("GET", f"/api/v1/namespaces/{kube_namespace}")["metadata"]["name"] == kube_namespace


@pytest.mark.real
def test_only_its_owner_gets_at_what_lets_one_in(kube_cluster: Cluster) -> None:
    assert kube_cluster.folder.stat().st_mode & 0o777 == 0o700
