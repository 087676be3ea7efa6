"""helm without a cluster, and the chart on the real control plane."""

import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.render import CHART, KUBE_VERSION, RenderError, find_helm
from testbed.kube.cluster import Cluster

Json = dict[str, Any]
Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Done]:
    """helm with no cluster and a home of its own. Skips the test where there is none."""
    try:
        program = find_helm()
    except RenderError as error:
        pytest.skip(f"helm: {error}")
    home = tmp_path_factory.mktemp("helm")
    homes = {f"HELM_{kind}_HOME": str(home) for kind in ("CACHE", "CONFIG", "DATA")}

    def run(*arguments: str | Path) -> Done:
        environment = {**os.environ, **homes, "KUBECONFIG": str(home / "none")}
        return subprocess.run(
            [str(program), *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="session")
def rendered(helm: Callable[..., Done], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Json], Done]:
    """`rendered(values)`: helm's answer to `helm template` with them, be it a refusal. The same are asked once."""
    folder = tmp_path_factory.mktemp("values")

    @functools.cache
    def answer(text: str) -> Done:
        (folder / "values.yaml").write_text(text)
        return helm(
            "template", "tide", CHART, "--namespace", "ours", "--values", folder / "values.yaml",
            "--kube-version", KUBE_VERSION,
        )  # fmt: skip

    return lambda values: answer(yaml.safe_dump(values))


@pytest.fixture(scope="session")
def documents(rendered: Callable[[Json], Done]) -> Callable[[Json], dict[str, Json]]:
    """`documents(values)`: what the chart makes of them, as "Kind/name" (or "Kind/namespace/name" of another one)."""

    @functools.cache
    def parsed(text: str) -> dict[str, Json]:
        found = [
            document for document in yaml.load_all(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if document
        ]
        named = {_name(document): document for document in found}
        assert len(named) == len(found)
        return named

    def render(values: Json) -> dict[str, Json]:
        done = rendered(values)
        assert done.returncode == 0, done.stderr
        return parsed(done.stdout)

    return render


def _name(document: Json) -> str:
    meta = document["metadata"]
    elsewhere = f"{meta['namespace']}/" if meta.get("namespace", "ours") != "ours" else ""
    return f"{document['kind']}/{elsewhere}{meta['name']}"


@pytest.fixture(scope="session")
def install(kube_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Done]:
    """`install(release, namespace, values, *options)` on the real API server; fails with helm's words."""
    folder = tmp_path_factory.mktemp("installed")

    def run(release: str, namespace: str, values: Json, *options: str) -> Done:
        path = folder / f"{release}-{namespace}.yaml"
        path.write_text(yaml.safe_dump(values))
        done = kube_cluster.helm(
            "upgrade", "--install", release, CHART, "--namespace", namespace, "--values", path, *options
        )
        assert done.returncode == 0, done.stderr
        return done

    return run
