"""From a run to what is left of it: the summary on the terminal and as JSON, and the page."""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo import page
from demo.folder import FolderError, taken
from demo.recording import FILE_NAME, ComparisonError, Recording
from demo.run import SetUpError, run
from demo.settings import FAILS_EVERY, Settings
from demo.summary import summary
from demo.trace import TraceError
from testbed.apt import FetchError
from testbed.parts import PartError

STOPPED = 130  # exit status of a program that Ctrl-C ended


def run_and_report(arguments: argparse.Namespace) -> int:
    """Run the demo as the command line asked, then report on it. The exit status."""
    chosen = Settings(
        folder=arguments.folder.resolve(),
        minutes=arguments.minutes,
        start_up_seconds=arguments.start_up,
        seed=arguments.seed,
        trace=arguments.trace,
        burst=arguments.burst,
        failures=arguments.failures,
        budget=arguments.budget,
        long_term=arguments.long_term,
        redis_port=arguments.redis_port,
        prometheus_port=arguments.prometheus_port,
        alertmanager_port=arguments.alertmanager_port,
    )
    try:
        with taken(chosen.folder):
            recording = run(chosen)
    except (FolderError, TraceError, SetUpError, FetchError, PartError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    if recording is None:
        print("Stopped before the live part began: there is nothing to sum up, and nothing runs any more.")
        return STOPPED
    write_report(recording, chosen.folder)
    return 0 if recording.live_end >= recording.planned_end else STOPPED


def report(folder: Path) -> int:
    """Summary and page anew from the folder's recording. The exit status."""
    try:
        recording = Recording.read(folder)
    except FileNotFoundError:
        print(f"demo: {folder / FILE_NAME}: no such file; run the demo first, or give its --folder", file=sys.stderr)
        return 1
    except (ValueError, TypeError, KeyError) as error:
        print(f"demo: {folder / FILE_NAME}: not a recording of this version ({error}); run anew", file=sys.stderr)
        return 1
    write_report(recording, folder)
    return 0


def write_report(recording: Recording, folder: Path) -> None:
    """`summary.json`, `report.html`, and the summary on the terminal."""
    since = time.monotonic()
    comparison, why_not = compared(recording)
    figures = summary(recording, comparison, why_not)
    (folder / "summary.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    page.write(recording, figures, comparison, folder / page.FILE_NAME)
    print(summary_text(figures))
    print(f"The page: {folder / page.FILE_NAME} (written in {time.monotonic() - since:.0f} s)")
    print(f"All figures: {folder / 'summary.json'}")


def compared(recording: Recording) -> tuple[Mapping[str, Any] | None, str | None]:
    """The comparison with the reactive rule, or None and why there is none."""
    from demo.compare import compare  # it simulates for some seconds; nobody else needs what it imports

    try:
        return compare(recording), None
    except ComparisonError as error:
        return None, str(error)


def summary_text(figures: Mapping[str, Any]) -> str:
    """The summary as a newcomer reads it."""
    ours, theirs = figures["simulated"]["tidewise"], figures["simulated"]["reactive"]
    simulator, burst = figures["simulator"], figures["burst_at_seconds"] is not None
    jobs = ", ".join(f"{figures[f'jobs_{kind}']} {kind}" for kind in ("done", "failed", "lost", "left"))
    rows = [
        ("jobs", f"{jobs}; one in {FAILS_EVERY} is made to fail"),
        ("not delivered", f"{figures['jobs_undelivered']} jobs" if figures["jobs_undelivered"] else ""),
        ("wait, p95", f"{_seconds(figures['wait_p95_seconds'])}{' before the burst' if burst else ''}"),
        ("", f"{_seconds(figures['wait_p95_with_burst_seconds'])} with it" if burst else ""),
        ("worker-minutes", _figure(figures["worker_minutes"])),
        (
            "ahead of need",
            f"{_seconds(figures['ramp_lead_seconds'])}; a worker starts in {figures['start_up_seconds']:g} s",
        ),
        ("", figures["ramp_lead_reason"] or ""),
        ("notifications", str(figures["notifications"])),
        *_money_rows(figures["money"]),
        *[("repaired", _repair_text(repair)) for repair in figures["repairs"]],
    ]
    if figures["long_term"]:
        held, others = figures["long_term"]["contract_series"], figures["long_term"]["others"]
        rows.append(("for a year", f"the second Prometheus holds {held} series of the contract and {others} others"))
    for name, policy in (("tidewise", ours), ("reactive rule", theirs)):
        if policy:
            wait, cost = _seconds(policy["wait_p95_seconds"]), _figure(policy["worker_minutes"])
            rows.append((name, f"p95 wait {wait} at {cost} worker-minutes, simulated without the burst"))
    if figures["simulated_reason"]:
        rows.append(("no comparison", figures["simulated_reason"]))
    if simulator["within_limit"] is False:
        said, measured = _seconds(simulator["simulated"]), _seconds(simulator["measured"])
        rows.append(("careful", f"for the fleet as it was, the simulator says p95 {said}; measured were {measured}"))
    rows += [("note", remark.splitlines()[0]) for remark in figures["remarks"]]
    title = f"Summary of {figures['live_seconds'] / 60:.1f} minutes{'' if figures['complete'] else ', stopped early'}"
    return "\n".join(["", title, *(f"  {name:<15} {text}" for name, text in rows if text)])


def _money_rows(money: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if money is None:
        return []
    live, calls = _figure(money["posted_live"]), money["paid_calls"]
    refused = money["paid_calls_denied"] + money["paid_calls_unanswered"]
    spent = f"{_figure(money['posted'])} of {money['limit']:,.0f} KRW, {live} of it live; {calls} paid calls"
    count, at = money["warnings"], money["warned_at_seconds"]
    when = "" if at is None else f", the first {at:.0f} s after the start"
    return [
        ("spent", f"{spent}, {refused} not permitted"),
        ("", f"{count} warning{'' if count == 1 else 's'} of the budget{when}"),
    ]


def _repair_text(repair: Mapping[str, Any]) -> str:
    what = f"{repair['worker']} {repair['what'] or 'was sick'}"
    if not repair["mended"]:
        return f"{what}: not mended before the end"
    return (
        f"{what}: restarted after {repair['restarted_after']:.0f} s, well after {repair['well_after']:.0f} s, "
        f"verified after {repair['verified_after']:.0f} s"
    )


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} s"
