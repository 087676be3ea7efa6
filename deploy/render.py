"""What is made from something else: values.schema.json from the configuration's schema, manifests from the chart."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent
CHART = ROOT / "helm" / "tidewise"
SAMPLE = ROOT / "kubernetes" / "values.yaml"
MANIFESTS = ROOT / "kubernetes" / "tidewise.yaml"
SCHEMA = CHART / "values.schema.json"
OUTLINE = ROOT / "helm" / "values.schema.yaml"
CONFIGURATION = ROOT.parent / "docs" / "tidewise.schema.json"
RELEASE, NAMESPACE = "tidewise", "tidewise"
KUBE_VERSION = "1.30.0"  # stated, so that every helm renders the same


class RenderError(Exception):
    """It cannot be made; says why and what to do."""


def render_schema() -> str:
    """values.schema.json: the hand-written outline, with the configuration's schema at `config`."""
    outline = yaml.safe_load(OUTLINE.read_text(encoding="utf-8"))
    configuration = json.loads(CONFIGURATION.read_text(encoding="utf-8"))
    definitions = configuration.pop("$defs")
    del configuration["$schema"]
    # It stands in the chart's own `prometheus.url`; two places would be one too many.
    del definitions["Prometheus"]["properties"]["url"]
    # What the cost exporter needs there, the chart knows: the ledger's address and token, the state's file.
    for name in ("Ledger", "Aws"):
        del definitions[name]["required"]
    outline["$defs"] |= _terse({**definitions, "Tidewise": configuration})
    return json.dumps(outline, indent=1, ensure_ascii=False) + "\n"


def _terse(schema: Any) -> Any:
    """Without what only people read, and without patterns that look ahead, which Go's expressions cannot."""
    if isinstance(schema, list):
        return [_terse(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs") or key[0].isupper():  # names of ours, not words of the schema's
            kept[key] = {name: _terse(inner) for name, inner in value.items()} if key == "properties" else _terse(value)
        elif key == "patternProperties" and any("(?" in pattern for pattern in value):
            kept["additionalProperties"] = _terse(next(iter(value.values())))
        elif key in ("title", "description", "default") or (key == "pattern" and "(?" in value):
            continue
        else:
            kept[key] = _terse(value)
    return kept


def fingerprint(chart: Path = CHART, sample: Path = SAMPLE) -> str:
    """The sha256 of all that the manifests are made of: the chart's templates and defaults, and the sample values.

    The linked rules and dashboards are not in the manifests, and the schema only judges values.
    """
    found = hashlib.sha256()
    files = [chart / "Chart.yaml", chart / "values.yaml", *sorted((chart / "templates").rglob("*")), sample]
    for path in files:
        if path.is_file():
            text = path.read_bytes().replace(b"\r\n", b"\n")
            found.update(f"{path.name} {len(text)}\n".encode() + text)
    return found.hexdigest()


def render_manifests(helm: Path) -> str:
    """deploy/kubernetes/tidewise.yaml. Raises RenderError with what helm says."""
    arguments = ["template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", str(SAMPLE), "--no-hooks"]
    arguments += ["--kube-version", KUBE_VERSION]
    with tempfile.TemporaryDirectory() as home:
        homes = {f"HELM_{kind}_HOME": home for kind in ("CACHE", "CONFIG", "DATA")}
        done = subprocess.run(
            [str(helm), *arguments], env={**os.environ, **homes}, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise RenderError(f"helm {' '.join(arguments)}: {done.stderr.strip()}")
    header = (
        "# Rendered from deploy/helm/tidewise with the values in deploy/kubernetes/values.yaml, by\n"
        "# `python -m deploy render`. Change those and run it again, instead of changing this file.\n"
        f"# sha256 of chart and values: {fingerprint()}\n"
    )
    return header + done.stdout


def recorded_fingerprint() -> str:
    """What stands in the header of the manifests."""
    return MANIFESTS.read_text(encoding="utf-8").split("sha256 of chart and values: ", 1)[1].split("\n", 1)[0]


def find_helm() -> Path:
    """helm on PATH, else the one that the testbed has built. Raises RenderError."""
    from testbed.kube import build

    found = shutil.which("helm")
    if found:
        return Path(found)
    tree = build.find()
    if tree is None:
        raise RenderError("no helm on PATH and none built; run `make tools-kube`, or install helm 3.18 or newer")
    return tree / "helm"
