"""Runbooks: what each alert means and what to do, from docs/runbooks/, so that they are at hand where it is seen."""

from pathlib import Path

from grafana_foundation_sdk.models import dashboard as models

from grafana.frame import board
from grafana.panels import Panel, words

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "runbooks"


def dashboard() -> models.Dashboard:
    """uid tidewise-runbooks."""
    return board(
        "runbooks",
        "Runbooks",
        "What each alert means, what Tidewise does meanwhile and what to do.",
        [("Alerts, in the order of their names", [_runbook(path) for path in sorted(FOLDER.glob("*.md"))])],
    )


def _runbook(path: Path) -> Panel:
    heading, _, rest = path.read_text(encoding="utf-8").partition("\n")
    return words(heading.removeprefix("# ").strip(), rest.strip())
