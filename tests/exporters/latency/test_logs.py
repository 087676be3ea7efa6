"""Following an access log: whatever is done to the file and to the exporter, each line is counted once."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.collector import Collectors, PartialReadError
from exporters.latency import tail
from exporters.latency.counts import BOUNDS
from exporters.latency.logs import FolderLock, InUseError, Log, LogReader

LINE = '10.0.0.1 - - [27/Nov/2026:03:49:04 +0000] "GET /{path} HTTP/1.1" {status} 3 "-" "curl" {seconds}'


def line(number: int, status: int = 200, seconds: str = "0.020") -> str:
    return LINE.format(path=f"videos/{number}", status=status, seconds=seconds)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "access.log").touch()
    return tmp_path / "access.log"


def reader(path: Path, *, keeps: bool = True, lock: FolderLock | None = None, **more: Any) -> LogReader:
    """As after a start of the exporter."""
    more = more or {"service": "shop"}
    return LogReader(Log(path=path, **more), path.parent / "state" if keeps else None, BOUNDS, lock)


@pytest.fixture(autouse=True)
def _at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for a server that may write on into a file that was renamed."""
    monkeypatch.setattr(tail, "LINGER_SECONDS", 0.0)
    (path.parent / "state").mkdir()


def values(log: LogReader, *, seconds: float = 5.0) -> dict[str, float]:
    """What it shows, by name and labels but `service` and `log`; raises what the collector raises."""
    found: dict[str, float] = {}
    for metric in log.collect(time.monotonic() + seconds):
        for sample in metric.samples:
            labels = ",".join(f"{key}={value}" for key, value in sample.labels.items() if key not in ("service", "log"))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def lines(log: LogReader) -> float:
    return values(log)["request_log_lines_total"]


def append(path: Path, *written: str, end: str = "\n") -> None:
    with path.open("a") as file:
        file.write("".join(each + end for each in written))


def test_what_one_log_tells(path: Path) -> None:
    log = reader(path)
    values(log)
    append(path, line(1), line(2, 500, "0.3"), line(3, 504, "61.0"), line(4, 499, "2.0"), "what?")
    append(path, LINE.format(path="nowhere", status=404, seconds="0.001"))
    values(log)
    shown = values(log)
    assert shown["request_duration_seconds_count{route=/videos/:id,code_class=2xx}"] == 1
    assert shown["request_duration_seconds_bucket{route=/videos/:id,code_class=2xx,le=0.01}"] == 0
    assert shown["request_duration_seconds_bucket{route=/videos/:id,code_class=2xx,le=0.025}"] == 1
    assert shown["request_duration_seconds_sum{route=/videos/:id,code_class=5xx}"] == pytest.approx(61.3)
    assert shown["request_duration_seconds_bucket{route=/videos/:id,code_class=5xx,le=60.0}"] == 1
    assert shown["request_duration_seconds_bucket{route=/videos/:id,code_class=5xx,le=+Inf}"] == 2
    assert shown["request_duration_seconds_count{route=/videos/:id,code_class=none}"] == 1
    assert shown["request_duration_seconds_count{route=other,code_class=4xx}"] == 1
    failures = {name: value for name, value in shown.items() if name.startswith("request_failures")}
    assert failures == {
        "request_failures_total{reason=server_error}": 1,
        "request_failures_total{reason=bad_gateway}": 0,
        "request_failures_total{reason=unavailable}": 0,
        "request_failures_total{reason=timeout}": 1,
        "request_failures_total{reason=client_aborted}": 1,
        "request_failures_total{reason=server_aborted}": 0,
    }
    assert (shown["request_log_lines_total"], shown["request_log_malformed_total"]) == (6, 1)
    assert (shown["request_log_behind_bytes"], shown["request_log_gaps_total"]) == (0, 0)


def test_a_service_that_nobody_asks_is_known_to_be_idle(path: Path) -> None:
    shown = values(reader(path))
    assert shown["request_duration_seconds_count{route=other,code_class=2xx}"] == 0
    assert shown["request_duration_seconds_count{route=other,code_class=5xx}"] == 0


def test_a_series_begins_with_0_so_that_its_first_failures_are_an_increase(path: Path) -> None:
    count, failed = "request_duration_seconds_count{route=/videos/:id,code_class=5xx}", "{reason=server_error}"
    log = reader(path, service_from="host", log_format='$host "$request" $status $request_time')
    values(log)
    written = 'shop "GET /videos/1 HTTP/1.1" 500 0.1'
    append(path, written, written)
    first = values(log)
    assert (first[count], first[f"request_failures_total{failed}"], first["request_log_lines_total"]) == (0, 0, 2)
    append(path, written)
    assert (values(log)[count], values(log)[f"request_failures_total{failed}"]) == (3, 3)
    assert values(reader(path, service_from="host", log_format='$host "$request" $status $request_time'))[count] == 3


def test_what_was_there_before_the_first_start_is_left_out(path: Path) -> None:
    append(path, line(1), line(2))
    append(path, line(3), end="")
    log = reader(path)
    assert lines(log) == 0
    append(path, "")
    assert lines(log) == 1  # the one that was not ended yet


def test_a_log_that_does_not_exist_yet_is_unknown_and_then_all_of_it_counts(path: Path) -> None:
    path.unlink()
    log = reader(path)
    with pytest.raises(FileNotFoundError, match=r"access.log: no such file; is the path right"):
        values(log)
    append(path, line(1))
    assert lines(log) == 1


def test_what_is_no_file_is_refused_at_once(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="is no regular file; have the server write its log to one"):
        values(reader(path))


def test_half_a_line_waits_for_its_other_half(path: Path) -> None:
    log = reader(path)
    whole = line(1)
    lines(log)
    append(path, whole[:30], end="")
    assert lines(log) == 0
    append(path, whole[30:])
    shown = values(log)
    assert (shown["request_log_lines_total"], shown["request_log_malformed_total"]) == (1, 0)


def test_a_renamed_file_is_read_to_its_end_though_its_server_writes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "LINGER_SECONDS", 60.0)
    log = reader(path)
    lines(log)
    with path.open("a") as server:
        server.write(line(1) + "\n")
        path.rename(path.with_name("access.log.1"))
        assert (server.flush(), lines(log)) == (None, 1)  # it is away for a moment
        append(path, line(2))
        server.write(line(3) + "\n")
        server.flush()
        assert lines(log) == 3
        server.write(line(4) + "\n")
        server.flush()
        assert lines(log) == 4
        server.write(line(5))  # and never ends it
    assert lines(log) == 4
    monkeypatch.setattr(tail, "LINGER_SECONDS", 0.0)
    assert lines(log) == 5
    assert len(log._tail._files) == 1


@pytest.mark.parametrize("restarts", [False, True], ids=["running", "stopped meanwhile"])
def test_rotated_thrice_between_two_scrapes(path: Path, restarts: bool) -> None:
    log = reader(path)
    append(path, line(0))
    lines(log)
    for number in (3, 2, 1):  # as logrotate names them in the end
        append(path, line(number), line(number))
        path.rename(path.with_name(f"access.log.{number}"))
        path.touch()
    append(path, line(9))
    again = reader(path) if restarts else log
    shown = values(again)
    assert (shown["request_log_lines_total"], shown["request_log_gaps_total"]) == (7, 0)


@pytest.mark.parametrize("name", ["access-20261127.log", "access.log-20261127-1764215344", "access.1.log"])
def test_however_the_rotated_file_is_named_it_is_found_after_a_restart(path: Path, name: str) -> None:
    log = reader(path)
    append(path, line(1))
    lines(log)
    append(path, line(2))
    path.rename(path.with_name(name))
    append(path, line(3))
    shown = values(reader(path))
    assert (shown["request_log_lines_total"], shown["request_log_gaps_total"]) == (2, 0)


def test_copied_and_truncated_what_was_not_read_is_read_in_the_copy(path: Path) -> None:
    log = reader(path)
    lines(log)
    append(path, line(1), line(2))
    assert lines(log) == 2
    append(path, line(3))
    shutil.copy(path, path.with_name("access.log.1"))
    os.truncate(path, 0)
    append(path, *(line(number) for number in range(4, 20)))  # longer than it was
    shown = values(log)
    assert (shown["request_log_lines_total"], shown["request_log_gaps_total"]) == (19, 0)


def test_truncated_without_a_copy_is_a_gap_that_is_counted(path: Path) -> None:
    log = reader(path)
    lines(log)
    append(path, line(1), line(2))
    lines(log)
    os.truncate(path, 0)
    append(path, line(3))
    shown = values(log)
    assert (shown["request_log_lines_total"], shown["request_log_gaps_total"]) == (3, 1)


def test_a_server_that_does_not_append_leaves_a_hole_which_is_no_line(path: Path) -> None:
    log = reader(path)
    lines(log)
    with path.open("w") as server:
        server.write(line(1) + "\n")
        server.flush()
        lines(log)
        os.truncate(path, 0)
        server.write(line(2) + "\n")
        server.flush()
        shown = values(log)
    assert (shown["request_log_lines_total"], shown["request_log_malformed_total"]) == (2, 0)


def test_the_same_lines_in_another_file_are_not_read_again(path: Path) -> None:
    log = reader(path)
    lines(log)
    append(path, line(1), line(2))
    lines(log)
    shutil.copy(path, path.with_name("edited"))
    path.with_name("edited").rename(path)
    append(path, line(3))
    shown = values(log)
    assert (shown["request_log_lines_total"], shown["request_log_gaps_total"]) == (3, 0)


def test_compressed_while_nobody_looked_is_a_gap_that_is_counted(path: Path) -> None:
    log = reader(path)
    append(path, line(1))
    lines(log)
    append(path, line(2))
    path.rename(path.with_name("access.log.1.gz"))
    append(path, line(3))
    shown = values(reader(path))
    assert (shown["request_log_lines_total"], shown["request_log_gaps_total"]) == (1, 1)


def test_a_line_of_ten_megabytes_is_counted_and_never_held(path: Path) -> None:
    log = reader(path)
    lines(log)
    append(path, line(1), "x" * 10_000_000, line(2))
    append(path, "y" * 3_000_000, end="")
    shown = values(log)
    assert (shown["request_log_lines_total"], shown["request_log_malformed_total"]) == (3, 1)
    append(path, "y", line(3))
    shown = values(reader(path))  # in the middle of the long line
    assert (shown["request_log_lines_total"], shown["request_log_malformed_total"]) == (5, 2)


def test_a_restart_goes_on_from_the_same_counts(path: Path) -> None:
    log = reader(path)
    lines(log)
    append(path, line(1), line(2, 500), "what?")
    values(log)
    before = values(log)
    assert values(reader(path)) == before
    append(path, line(3))
    assert lines(reader(path)) == 4


def test_a_restart_before_anything_was_shown_loses_nothing(path: Path) -> None:
    log = reader(path)
    lines(log)
    append(path, line(1), line(2))
    assert lines(log) == 2
    append(path, line(3))
    log._tail.read(time.monotonic() + 5, log._requests.take, log._requests.take_unreadable)  # and then it is killed
    assert lines(reader(path)) == 3


def test_counts_made_otherwise_are_not_gone_on_with_but_no_line_is_lost(path: Path) -> None:
    log = reader(path)
    lines(log)
    append(path, line(1))
    lines(log)
    append(path, line(2))
    assert lines(reader(path, service="another")) == 1


def test_without_a_state_folder_a_restart_begins_at_the_end(path: Path) -> None:
    log = reader(path, keeps=False)
    lines(log)
    append(path, line(1))
    assert lines(log) == 1
    assert lines(reader(path, keeps=False)) == 0


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_of_two_exporters_with_one_state_folder_the_second_waits_until_the_first_has_gone(
    path: Path, killed: bool
) -> None:
    folder = path.parent / "state"
    first = subprocess.Popen(
        [sys.executable, "-c", FIRST, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )  # fmt: skip
    second = reader(path, lock=FolderLock(folder))
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"taken\n"
        for _ in range(2):
            with pytest.raises(InUseError, match=r"state: another exporter uses this state_folder, .* of its own$"):
                values(second)
        assert not list(folder.glob("*.json")), "nothing was read and nothing kept"
    finally:
        first.kill() if killed else first.communicate()
        first.communicate()
    assert lines(second) == 0
    append(path, line(1))
    assert lines(second) == 1


FIRST = """
import fcntl, sys
file = open(sys.argv[1] + "/lock", "ab")
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("taken", flush=True)
sys.stdin.read()
"""


def test_a_state_folder_that_cannot_be_locked_is_used_without(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert lines(reader(path, lock=FolderLock(path.parent / "state"))) == 0


def state_of(path: Path) -> Path:
    [found] = (path.parent / "state").glob("*.json")
    return found


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"made_by": "x"}', "\x00" * 100, '{"places": [{"offset": -5}]}', '"' + "9" * 100]
)
def test_a_state_that_is_none_is_counted_and_reading_begins_at_the_end(path: Path, content: str) -> None:
    log = reader(path)
    append(path, line(1))
    lines(log)
    state_of(path).write_text(content)
    append(path, line(2))
    again = reader(path)
    shown = values(again)
    assert (shown["request_log_lines_total"], shown["request_log_gaps_total"]) == (0, 1)
    assert shown["request_log_state_errors_total"] == 1
    append(path, line(3))
    assert lines(again) == 1
    assert lines(reader(path)) == 1  # a good one was written over it


def test_a_disk_that_is_full_is_told_and_the_counts_are_shown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    log = reader(path)
    lines(log)
    append(path, line(1))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        metrics = log.collect(time.monotonic() + 5)
        shown = {name: next(metrics).samples[0].value for name in ("behind", "state errors", "lines")}
        with pytest.raises(PartialReadError, match=r"cannot be written \(No space left on device\); a restart would"):
            list(metrics)
    assert shown == {"behind": 0, "state errors": 1, "lines": 1}
    assert lines(log) == 1
    assert values(log)["request_log_state_errors_total"] == 1


def test_a_backlog_is_shown_only_when_all_of_it_is_read(path: Path) -> None:
    log = reader(path)
    lines(log)
    append(path, *[line(1)] * 30_000)  # three pieces
    with pytest.raises(PartialReadError, match="bytes are not read yet; its counts are shown when all is"):
        values(log, seconds=0)
    with pytest.raises(PartialReadError):
        values(log, seconds=0)
    assert lines(reader(path)) == 30_000


def test_services_that_the_log_names_are_capped_and_so_are_routes(path: Path) -> None:
    log = reader(path, service_from="host", log_format='$host "$request" $status $request_time', max_routes=3)
    lines(log)
    append(path, *(f'h{n % 60}.example "GET /r{"abcdefghij"[n % 10]} HTTP/1.1" 200 0.1' for n in range(600)))
    append(path, 'h0.example "GET /rb\xff\\x22 HTTP/1.1" 200 0.1', '"" "" 400 0.000')
    families = {metric.name: metric for metric in log.collect(time.monotonic() + 5)}
    labels = [sample.labels for sample in families["request_duration_seconds"].samples]
    assert len({each["service"] for each in labels}) == 51
    assert {each["route"] for each in labels} == {"/ra", "/rb", "/rc", "other"}
    assert families["request_log_lines"].samples[0].value == 602


def test_two_logs_of_one_service_have_no_series_in_common(path: Path) -> None:
    other = path.with_name("other.log")
    other.touch()
    logs = {"a": reader(path).collect, "b": reader(other).collect}
    samples = [
        (sample.name, tuple(sorted(sample.labels.items())))
        for metric in Collectors(logs).collect()
        for sample in metric.samples
    ]
    assert sum(name == "request_duration_seconds_count" for name, _ in samples) == 4
    assert len(samples) == len(set(samples))


def test_a_rotated_log_that_may_not_be_read_leaves_nothing_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: Any, *arguments: Any) -> int:
        if name == path:
            raise PermissionError(13, "Permission denied", str(name))
        return opening(name, *arguments)

    opening, log = os.open, reader(path)
    append(path, line(1))
    lines(log)
    path.rename(path.with_name("access.log.1"))
    append(path, line(2))
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        for _ in range(3):
            with pytest.raises(PermissionError, match=r"Permission denied: .*access.log"):
                values(log)
    assert len(os.listdir("/proc/self/fd")) <= before
    assert lines(log) == 1


@pytest.mark.parametrize(
    ("why", "restarts"), [("may not be read", False), ("may not be read", True), ("is not mounted", True)]
)
def test_a_log_that_cannot_be_read_at_the_start_is_not_taken_for_a_new_one_later(
    path: Path, monkeypatch: pytest.MonkeyPatch, why: str, restarts: bool
) -> None:
    def refuse(name: Any, *arguments: Any) -> int:
        if name == path:
            raise PermissionError(13, "Permission denied", str(name))
        return opening(name, *arguments)

    opening = os.open
    append(path, line(1), line(2))
    if restarts:
        assert lines(reader(path)) == 0
        append(path, line(3))
    log = reader(path)
    with monkeypatch.context() as patched:
        if why == "may not be read":
            patched.setattr(os, "open", refuse)
        else:
            path.rename(path.parent / "elsewhere")
        for _ in range(2):
            with pytest.raises(OSError, match=r"Permission denied|No such file"):
                values(log)
    if why == "is not mounted":
        (path.parent / "elsewhere").rename(path)
    shown = values(log)
    assert (shown["request_log_lines_total"], shown["request_log_gaps_total"]) == (1 if restarts else 0, 0)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(errno.ESTALE, None, id="its server has let go of it: it is opened again"),
        pytest.param(errno.EIO, "Input/output error", id="its disk does not read: nothing is left open"),
    ],
)
def test_an_open_log_that_cannot_be_read_any_more(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: int, told: str | None
) -> None:
    log, pread = reader(path), os.pread
    assert lines(log) == 0
    append(path, line(1))
    assert lines(log) == 1
    append(path, line(2))
    bad = {int(fd) for fd in os.listdir("/proc/self/fd") if os.path.realpath(f"/proc/self/fd/{fd}") == str(path)}
    before = len(os.listdir("/proc/self/fd"))

    def refuse(descriptor: int, *arguments: int) -> bytes:
        if descriptor in bad:
            raise OSError(error, os.strerror(error))
        return pread(descriptor, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", refuse)
        for _ in range(3):
            if told is None:
                assert lines(log) == 2
                bad.clear()
            else:
                with pytest.raises(OSError, match=told):
                    lines(log)
    assert len(os.listdir("/proc/self/fd")) == before
    assert (lines(log), values(log)["request_log_gaps_total"]) == (2, 0)


Step = st.sampled_from(["write", "write", "half", "read", "rename", "copytruncate", "copy", "restart", "kill"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(Step, max_size=25))
def test_whatever_happens_in_whatever_order_each_line_counts_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    path = tmp_path_factory.mktemp("any") / "access.log"
    path.touch()
    (path.parent / "state").mkdir()
    log, written, half, rotations = reader(path), 0, "", 0
    lines(log)
    for step in steps:
        if step == "write":
            append(path, half[30:] or line(written))
            written, half = written + 1, ""
        elif step == "half" and not half:
            half = line(written)
            append(path, half[:30], end="")
        elif step in ("rename", "copytruncate") and not half:  # else a line is torn in two, and that is two
            rotations += 1
            rotated = path.with_name(f"access.log-{rotations}")
            if step == "rename":
                path.rename(rotated)
                path.touch()
            else:
                shutil.copy(path, rotated)
                os.truncate(path, 0)
            os.utime(rotated, (1e9 - rotations,) * 2)  # a clock that is set back
        elif step == "copy" and not half:
            assert lines(log) == written
            rotations += 1
            shutil.copy(
                path, path.with_name(f"access.log-{rotations}")
            )  # somebody keeps one, called like a rotated one
        elif step == "read":
            assert lines(log) == written
        elif step == "restart":
            log._tail.close()
            log = reader(path)
        elif step == "kill":  # having read, but not shown
            log._tail.read(time.monotonic() + 5, log._requests.take, log._requests.take_unreadable)
            log._tail.close()
            log = reader(path)
    shown = values(log)
    assert (shown["request_log_lines_total"], shown["request_log_malformed_total"]) == (written, 0)
    assert shown["request_log_gaps_total"] == 0
    log._tail.close()
