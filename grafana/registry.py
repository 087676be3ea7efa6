"""Which dashboards there are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import (
    bottlenecks,
    budget,
    forecast,
    gpu,
    health,
    hosts,
    overview,
    patterns,
    queues,
    recovery,
    runbooks,
    scaling,
    workflows,
)

DASHBOARDS: dict[str, Callable[[], Dashboard]] = {
    "overview": overview.dashboard,
    "hosts": hosts.dashboard,
    "gpu": gpu.dashboard,
    "queues": queues.dashboard,
    "forecast": forecast.dashboard,
    "scaling": scaling.dashboard,
    "budget": budget.dashboard,
    "recovery": recovery.dashboard,
    "workflows": workflows.dashboard,
    "bottlenecks": bottlenecks.dashboard,
    "patterns": patterns.dashboard,
    "health": health.dashboard,
    "runbooks": runbooks.dashboard,
}
FOLDER = Path(__file__).parent / "dashboards"


def render(name: str) -> str:
    """One dashboard as JSON text."""
    document = json.loads(json.dumps(DASHBOARDS[name](), cls=JSONEncoder))
    for shown in (*document["links"], *document["annotations"]["list"]):
        del shown["placement"]  # the SDK would hide them in a menu
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def written(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """The dashboards as they stand in the folder, by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def write(folder: Path = FOLDER) -> list[Path]:
    """Writes each dashboard and removes those that are no more. Returns the paths whose text changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for path in folder.glob("*.json"):
        if path.stem not in DASHBOARDS:
            path.unlink()
            changed.append(path)
    for name in DASHBOARDS:
        path, text = folder / f"{name}.json", render(name)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed
