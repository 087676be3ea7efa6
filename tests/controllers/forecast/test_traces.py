"""Demand from a file: what is understood, and what is said where it is not."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from controllers.forecast.traces import TraceError, gridded, read_trace

HOURLY = (
    "timestamp,value\n2026-01-01T00:00:00Z,1\n2026-01-01T01:00:00Z,2\n2026-01-01 02:00,\n2026-01-01T04:00+01:00,4\n"
)
NEW_YEAR = 1_767_225_600.0


def written(tmp_path: Path, text: str | bytes, name: str = "demand.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped whatever its name"])
def test_a_file_becomes_a_grid_whose_bins_end_a_step_after_their_timestamp(tmp_path: Path, zipped: bool) -> None:
    data = gzip.compress(HOURLY.encode()) if zipped else HOURLY.encode()
    history = read_trace(written(tmp_path, data))
    assert history.start == NEW_YEAR + 3600
    assert history.step_seconds == 3600
    np.testing.assert_equal(history.values, [1.0, 2.0, np.nan, 4.0])


def test_order_repetition_and_unix_seconds(tmp_path: Path) -> None:
    history = read_trace(written(tmp_path, "600,3\n0,1\n300,2\n300,4\n1200,9\n"))
    assert history.step_seconds == 300
    np.testing.assert_equal(history.values, [1.0, 3.0, 3.0, np.nan, 9.0])


def test_seconds_are_averaged_to_minutes() -> None:
    history = gridded(np.arange(0.0, 240.0, 15.0), np.arange(16.0))
    assert history.step_seconds == 60
    assert history.values.tolist() == [1.5, 5.5, 9.5, 13.5]


def test_what_cannot_be_demand_is_missing() -> None:
    history = gridded(np.arange(8) * 60.0, np.array([1.0, 2.0, -1.0, np.inf, 1e300, np.nan, 3.0, 4.0]))
    np.testing.assert_equal(history.values, [1.0, 2.0, np.nan, np.nan, np.nan, np.nan, 3.0, 4.0])


MISTAKES = [
    ("a word for a number", "timestamp,value\n0,1\n60,many\n", ":3: found the value 'many'; write a number"),
    ("a word for a time", "0,1\n60,1\nsoon,2\n", ":3: found the time 'soon'; write 2026-01-31T12:00:00Z"),
    ("one column", "timestamp,value\n0,1\n60\n", ":3: found '60'; write timestamp,value"),
    ("a few rows", "timestamp,value\n0,1\n60,1\n", ": found 2 usable rows"),
    ("nothing", "", ": found 0 usable rows"),
    ("days between rows", "".join(f"{day * 86400},1\n" for day in range(5)), ": found 86400 s between rows"),
    ("a time in another age", "0,1\n60,1\n120,1\n1e10,1\n", "is one of the times wrong?"),
    (
        "milliseconds",
        "1700000000000,1\n",
        ":1: found the time '1700000000000'; write seconds instead of milliseconds",
    ),
]


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TraceError) as failed:
        read_trace(path)
    assert str(failed.value).startswith(str(path))
    assert expected in str(failed.value)


def test_half_a_gzip_file_a_folder_and_no_file(tmp_path: Path) -> None:
    rows = "".join(f"{minute * 60},{minute % 7}\n" for minute in range(3000))
    half = written(tmp_path, gzip.compress(rows.encode())[:2000], "half.csv.gz")
    for path, expected in (
        (half, "cannot be read"),
        (tmp_path, "cannot be read"),
        (tmp_path / "gone.csv", "there is no such file; name a .csv or .csv.gz"),
        (written(tmp_path, b"\xff\xfe\x00\x01", "binary.csv"), "cannot be read"),
    ):
        with pytest.raises(TraceError, match=expected):
            read_trace(path)
