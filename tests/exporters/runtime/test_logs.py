"""Log lines as they reach stderr, of a process of its own (the set-up is global)."""

import json
import subprocess
import sys
from datetime import datetime, timedelta

import pytest


def lines(setup: str, statements: str) -> list[str]:
    program = "\n".join(
        [
            "import logging, structlog",
            "from exporters.runtime.logs import configure_logs",
            f"configure_logs({setup})",
            "log = structlog.get_logger()",
            statements,
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json_where_nobody_watches() -> None:
    (line,) = lines("'scale'", "log.info('decided', workload='default/video', replicas=3)")
    entry = json.loads(line)
    moment = datetime.fromisoformat(entry.pop("timestamp"))
    assert moment.utcoffset() == timedelta(0)
    assert entry == {
        "level": "info",
        "event": "decided",
        "process": "scale",
        "workload": "default/video",
        "replicas": 3,
    }


def test_logfmt_has_the_same_fields_and_one_line_an_event() -> None:
    (line,) = lines("'scale', fmt='logfmt'", "log.warning('two words', text='a \"b\"\\nc')")
    timestamp, rest = line.split(" ", 1)
    assert timestamp.startswith("timestamp=2")
    assert rest == 'level=warning event="two words" process=scale text="a \\"b\\"\\nc"'


@pytest.mark.parametrize(("level", "heard"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_levels(level: str, heard: int) -> None:
    assert len(lines(f"'x', '{level}'", "log.debug('a'); log.info('b'); log.warning('c')")) == heard


def test_an_exception_is_a_field_of_its_event() -> None:
    (line,) = lines("'x'", "try: 1 / 0\nexcept ZeroDivisionError: log.exception('failed', step=2)")
    entry = json.loads(line)
    assert (entry["event"], entry["step"]) == ("failed", 2)
    assert entry["exception"].endswith("ZeroDivisionError: division by zero")


def test_a_library_s_warnings_come_in_the_same_format_and_its_chatter_does_not() -> None:
    (line,) = lines(
        "'x'", "logging.getLogger('lib').info('chatter'); logging.getLogger('lib').warning('low %s', 'oil')"
    )
    entry = json.loads(line)
    assert (entry["event"], entry["logger"], entry["level"]) == ("low oil", "lib", "warning")


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        lines("'x', 'loud'", "")
    assert "found log level 'loud'; it must be one of debug, info, warning, error" in refused.value.stderr


def test_a_full_disk_costs_the_line_and_not_the_work() -> None:
    program = (
        "import structlog; from exporters.runtime.logs import configure_logs; configure_logs('scale'); "
        "[structlog.get_logger().error('decided', n=n) for n in range(3)]; print('went on')"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, timeout=30, check=False
        )
    assert done.stdout == b"went on\n"
