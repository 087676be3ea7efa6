"""`python -m tests`: every test, in two lanes side by side, because much of the time tests wait for real servers.

The first lane is the terminal's; the second one's report follows when both have ended. With arguments it is one
ordinary pytest with these arguments.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What the second lane runs; the first one runs the rest, the shared demo and what looks at it included. A folder that
# needs the control plane, RabbitMQ or PostgreSQL belongs here: each is started once, in one lane.
SECOND = (
    "tests/acceptance/test_3_kubernetes.py",
    "tests/controllers/actuators",
    "tests/controllers/forecast/test_cluster.py",
    "tests/controllers/forecast/test_fit.py",
    "tests/controllers/init",
    "tests/controllers/promote",
    "tests/controllers/recovery",
    "tests/controllers/scale/following",
    "tests/controllers/scale/test_real_lease.py",
    "tests/controllers/test_check_kubernetes.py",
    "tests/controllers/test_floors.py",
    "tests/controllers/test_leases.py",
    "tests/deploy",
    "tests/exporters",
    "tests/prometheus",
    "tests/testbed/test_kube.py",
)
NO_TESTS = 5  # pytest's exit status
_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped)\b")


def main(arguments: list[str]) -> int:
    """pytest's worst exit status."""
    pytest = [sys.executable, "-m", "pytest"]
    if arguments:
        return subprocess.run([*pytest, *arguments], cwd=ROOT, check=False).returncode
    started = time.monotonic()
    with tempfile.TemporaryFile() as report:
        second = subprocess.Popen(
            ["nice", *pytest, *SECOND, "-p", "no:cacheprovider", "--color=no"],
            cwd=ROOT, stdout=report, stderr=subprocess.STDOUT,
        )  # fmt: skip
        first = subprocess.Popen(
            [*pytest, *(f"--ignore={path}" for path in SECOND)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        said = ""
        try:
            said = _shown(first)
            print(f"The first lane took {time.monotonic() - started:.0f} s; the second one's report:", flush=True)
            statuses = (first.wait(), second.wait())
        except KeyboardInterrupt:  # both got it too, and clean up
            statuses = (first.wait(), second.wait())
        report.seek(0)
        other = report.read().decode(errors="replace")
    print(other, end="")
    for line in (*_skipped(said), *_skipped(other)):
        print(line)
    counts = _counts(said) + _counts(other)
    print(f"Both lanes took {time.monotonic() - started:.0f} s.")
    print(
        f"{counts['passed']} passed, {counts['failed'] + counts['error'] + counts['errors']} failed, "
        f"{counts['skipped']} skipped"
    )
    return max(0 if status == NO_TESTS else abs(status) for status in statuses)


def _shown(process: subprocess.Popen[str]) -> str:
    """Its output, which is passed on as it comes."""
    lines: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line)
    return "".join(lines)


def _skipped(output: str) -> list[str]:
    """What was skipped and why, as the report's last section has it; nothing where nothing was."""
    lines = output.splitlines()
    begin = max((number for number, line in enumerate(lines) if line.strip("=") == " skipped "), default=len(lines))
    section = lines[begin + 1 : -1]
    return [] if section[:1] == ["skipped: none"] else section


def _counts(output: str) -> Counter[str]:
    """What pytest's last line counts."""
    last = output.rstrip().rpartition("\n")[2]
    return Counter({what: int(count) for count, what in _COUNT.findall(last)})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
