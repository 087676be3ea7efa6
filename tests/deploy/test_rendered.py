"""What is made from something else is what would be made now; these need no helm, the last one excepted."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from deploy.render import (
    CHART,
    MANIFESTS,
    SAMPLE,
    SCHEMA,
    find_helm,
    fingerprint,
    recorded_fingerprint,
    render_manifests,
    render_schema,
)


def test_the_charts_schema_has_the_configuration_as_it_is_now() -> None:
    assert SCHEMA.read_text() == render_schema(), "run `python -m deploy schema`"


def test_the_manifests_are_of_this_chart() -> None:
    assert recorded_fingerprint() == fingerprint(), "run `python -m deploy render` (it needs helm)"


def test_the_manifests_are_what_helm_renders_now(helm: Any) -> None:
    assert MANIFESTS.read_text() == render_manifests(find_helm()), "run `python -m deploy render`"


def test_another_value_template_or_default_is_another_fingerprint(tmp_path: Path) -> None:
    chart, sample = tmp_path / "chart", tmp_path / "values.yaml"
    shutil.copytree(CHART, chart)
    sample.write_bytes(SAMPLE.read_bytes())
    assert fingerprint(chart, sample) == fingerprint()
    seen = {fingerprint()}
    for path in (sample, chart / "values.yaml", chart / "templates/tests/check.yaml"):
        path.write_text(path.read_text() + "# another\n")
        seen.add(fingerprint(chart, sample))
    assert len(seen) == 4


def test_the_manifests_are_yaml_and_grant_no_more_than_reading() -> None:
    documents = [document for document in yaml.safe_load_all(MANIFESTS.read_text()) if document]
    roles = [document for document in documents if document["kind"] in ("Role", "ClusterRole")]
    assert {verb for role in roles for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list"}


def test_linked_files_are_the_real_ones() -> None:
    root = CHART.parents[2]
    for link, real in (("rules", root / "prometheus/rules"), ("dashboards", root / "grafana/dashboards")):
        assert (CHART / "files" / link).resolve() == real
        assert list((CHART / "files" / link).iterdir())


def test_the_schema_names_every_section_of_the_file() -> None:
    schema = json.loads(SCHEMA.read_text())
    assert "url" not in schema["$defs"]["Prometheus"]["properties"]
    assert {"workloads", "scale", "budget", "recovery"} <= set(schema["$defs"]["Tidewise"]["properties"])
