"""How long `tidewise why` takes on a month of decision records of a fleet.

    python -m benchmarks.why [--workloads 50] [--days 30] [--changes 40] [--times 5] [--folder DIR]

Writes the records (every ten minutes, and so many changes a day, for each workload), then asks for the last decision,
for one of the first day, for one of a workload that stopped a month ago, and for a table of changes: the whole command,
interpreter and configuration included, the median of five. The peer is a plain read of the same folder from its start,
every line parsed, in the same run. Judged by CPU time, which neighbours do not change; exits with 1 where
an answer takes a second or longer.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from controllers.domain import Forecast, Horizon, Mode, Reason, Recommendation, Replicas, Sample
from controllers.scale.decide import decide
from controllers.scale.records import Record, as_line, read
from controllers.scale.state import LeadTime, Rules, State

LIMIT_SECONDS = 1.0
NEWEST = time.time() // 60 * 60 - 3600.0
DAY = 86_400.0
STOPPED = "fleet/w0"  # its records end after the first day


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.why")
    parser.add_argument("--workloads", type=int, default=50)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--changes", type=int, default=40, help="a day and workload, beside one record in ten minutes")
    parser.add_argument("--times", type=int, default=5, help="each question is asked so often; the median counts")
    parser.add_argument("--folder", type=Path, help="default: a temporary one")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        return _measure(Path(folder), options.workloads, options.days, options.changes, options.times)


def _measure(folder: Path, workloads: int, days: int, changes: int, times: int) -> int:
    records = folder / "decisions"
    lines = write(records, workloads, days, changes)
    size = sum(path.stat().st_size for path in records.glob("*.jsonl"))
    print(f"{lines:,} records of {workloads} workloads and {days} days, {size / 2**20:,.0f} MiB")
    config = folder / "tidewise.yaml"
    config.write_text(_configuration(records, workloads))
    last = f"fleet/w{workloads - 1}"
    first_day = time.strftime("%Y-%m-%dT12:00:00Z", time.gmtime(NEWEST - (days - 1) * DAY))
    asked = {
        "the last decision": [last],
        "one of the first day": [last, "--at", first_day],
        "of one that stopped on the first day": [STOPPED],
        "the last 20 changes": [last, "--history", "20"],
    }
    took = {name: _median(config, words, times) for name, words in asked.items()}
    began = time.process_time()
    of_last = sum(record.decision.workload == last for record in read(records))
    plain = time.process_time() - began
    if of_last != days * (144 + changes):
        print(f"read {of_last:,} records of {last}, which is wrong", file=sys.stderr)
        return 1
    print(f"plain read of all: {plain:.2f} s of CPU")
    for name, (wall, cpu) in took.items():
        late = "" if cpu < LIMIT_SECONDS else ", TOO SLOW"
        print(f"{name}: {cpu:.2f} s of CPU (by the clock {wall:.2f} s), 1/{plain / cpu:.0f} of it{late}")
    return int(any(cpu >= LIMIT_SECONDS for _, cpu in took.values()))


def write(folder: Path, workloads: int, days: int, changes: int) -> int:
    """The records of so many workloads and days up to NEWEST; how many they are."""
    folder.mkdir(parents=True)
    count = 0
    halves = {
        (name, desired): as_line(_record(name, desired)).split(f"{NEWEST:.1f}".encode())
        for name in (f"fleet/w{number}" for number in range(workloads))
        for desired in (12, 13)
    }
    each = 144 + changes
    for day in range(days):
        start = NEWEST - (days - day) * DAY
        for step in range(each):
            at = start + (step + 1) * DAY / each
            path = folder / time.strftime("%Y-%m-%d.jsonl", time.gmtime(at))
            now = 12 + step * changes // each % 2  # so often the number changes
            told = [
                f"{at:.1f}".encode().join(parts)
                for (name, desired), parts in halves.items()
                if desired == now and (day == 0 or name != STOPPED)
            ]
            with path.open("ab") as file:
                file.write(b"".join(told))
            count += len(told)
    return count


def _record(workload: str, desired: int) -> Record:
    rules = Rules(workload, True, 1, 20, 5.0, 0.95, 1, None, 60.0, 60.0, 300.0, None, 4, 15.0, 120.0, Mode.ACT)
    quantiles = {0.1: 20.0, 0.9: 23.0, 0.98: 24.0}
    state = State(
        now=NEWEST,
        demand=Sample(19.87654321, NEWEST),
        backlog=Sample(12.0, NEWEST),
        service_seconds=0.5012345,
        lead_time=LeadTime(60.1, 62.3),
        replicas=Replicas(12, 12),
        forecast=Forecast(
            NEWEST,
            NEWEST,
            "",
            True,
            tuple(Horizon(s, 21.5, quantiles, quantiles, quantiles) for s in (120, 300, 900, 1800, 3600)),
        ),
        recommendations=tuple(Recommendation(NEWEST, 12) for _ in range(20)),
        wanted=tuple(Recommendation(NEWEST, 12) for _ in range(20)),
        known_since=NEWEST,
    )
    decision = replace(decide(state, rules), desired=desired)
    return Record(state, rules, decision, Reason.ALREADY_THERE)


def _configuration(records: Path, workloads: int) -> str:
    head = f"scale: {{records: {records}}}\nworkloads:\n"
    target = 'target: {command: {get: ["true"], set: ["true", "{replicas}"]}}'
    return head + "".join(
        f"  - {{name: w{number}, namespace: fleet, demand: {{queue: q{number}}}, {target}, replicas: {{max: 20}}}}\n"
        for number in range(workloads)
    )


def _median(config: Path, words: Sequence[str], times: int) -> tuple[float, float]:
    """Seconds by the clock and of CPU that the command takes."""
    argv = [sys.executable, "-m", "controllers", "why", *words, "--config", str(config)]
    wall, cpu = [], []
    for _ in range(times):
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall.append(time.perf_counter() - began)
        cpu.append(after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime)
    return statistics.median(wall), statistics.median(cpu)


if __name__ == "__main__":
    sys.exit(main())
