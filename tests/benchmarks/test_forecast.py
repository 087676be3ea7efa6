"""The forecast benchmark: what it reads, that it never looks ahead, and that its rows alone give its figures."""

import csv
import gzip
import json
import math
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.forecast import Facts, main, origins_of, walk
from benchmarks.scores import OURS, Row, read_rows, score, write_rows
from benchmarks.traces import BadTraceError, Trace, read_trace
from controllers.forecast.history import Floats
from controllers.forecast.models import MODELS

MONDAY = 1_700_438_400.0  # 2023-11-20 00:00 UTC
STEP = 900
FEW = {name: MODELS[name] for name in ("last_value", "seasonal_naive", "ridge")}
RANDOM = np.random.default_rng(11)


def demand(days: float, step: int = STEP) -> np.ndarray:
    at = np.arange(round(days * 86_400 / step)) * step
    return RANDOM.poisson(step / 60 * (20 - 12 * np.cos(2 * np.pi * at / 86_400))).astype(float)


def written(folder: Path, name: str, lines: list[str]) -> Path:
    path = folder / f"{name}.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8") as text:
        text.write("\n".join(lines) + "\n")
    return path


def lines_of(values: np.ndarray, step: int = STEP) -> list[str]:
    moments = [datetime.fromtimestamp(MONDAY + place * step, tz=UTC) for place in range(len(values))]
    said = ["" if math.isnan(value) else f"{value:g}" for value in values]
    return ["timestamp,value", *(f"{at:%Y-%m-%dT%H:%M:%SZ},{value}" for at, value in zip(moments, said, strict=True))]


READ = [
    ("ISO with Z", ["timestamp,value", "2023-11-20T00:00:00Z,1", "2023-11-20T00:05:00Z,2"], 300, [1, 2]),
    ("ISO with an offset", ["timestamp,value", "2023-11-20T09:00:00+09:00,1", "2023-11-20T00:05:00Z,2"], 300, [1, 2]),
    ("ISO without a zone is UTC", ["timestamp,value", "2023-11-20 00:00:00,1", "2023-11-20 00:05:00,2"], 300, [1, 2]),
    ("Unix seconds", ["timestamp,value", "1700438400,1", "1700438405.0,2"], 5, [1, 2]),
    ("no header", ["1700438400,1", "1700438460,2"], 60, [1, 2]),
    ("unsorted", ["timestamp,value", "1700438460,2", "1700438400,1"], 60, [1, 2]),
    (
        "the same time twice is averaged",
        ["timestamp,value", "1700438400,1", "1700438400,3", "1700438460,2"],
        60,
        [2, 2],
    ),
    (
        "missing rows and empty values are unknown",
        ["timestamp,value", "1700438400,1", "1700438460,", "1700438520,3", "1700438700,4"],
        60,
        [1, math.nan, 3, math.nan, math.nan, 4],
    ),
    (
        "what no demand can be is unknown",
        ["timestamp,value", "1700438400,-1", "1700438460,inf", "1700438520,nan", "1700438580,1e300", "1700438640,5"],
        60,
        [math.nan] * 4 + [5],
    ),
    (
        "samples that jitter stay in their bins",
        ["timestamp,value", "1700438402,1", "1700438459,2", "1700438521,3", "1700438578,4"],
        60,
        [1, 2, 3, 4],
    ),
    ("an hour", ["timestamp,value", "1700438400,1", "1700442000,2"], 3600, [1, 2]),
    (
        "a step that is no part of an hour",
        ["timestamp,value", *(f"{1700438400 + 420 * k},{k}" for k in range(20))],
        450,
        None,
    ),
]


@pytest.mark.parametrize(("lines", "step", "values"), [row[1:] for row in READ], ids=[row[0] for row in READ])
def test_traces_are_read(tmp_path: Path, lines: list[str], step: int, values: list[float] | None) -> None:
    trace = read_trace(written(tmp_path, "some", lines))
    assert trace.step_seconds == step
    assert abs(trace.begin - MONDAY) < 60
    if values is not None:
        np.testing.assert_array_equal(trace.values, values)


BAD = [
    ("a time that is none", ["timestamp,value", "1700438400,1", "noon,2"], "some.csv.gz:3: found the time 'noon'"),
    (
        "a value that is none",
        ["timestamp,value", "1700438400,1", "1700438460,many"],
        "some.csv.gz:3: found the value 'many'",
    ),
    ("one column", ["timestamp", "1700438400"], "some.csv.gz:1: found 'timestamp'"),
    ("one row", ["timestamp,value", "1700438400,1"], "1 rows are no trace"),
    ("nothing", ["timestamp,value"], "0 rows are no trace"),
    ("days", ["timestamp,value", "1700438400,1", "1700524800,1"], "a step of 86400 s"),
    ("a wrong century", ["timestamp,value", "1,1", "1700438400,1", "1700438401,1", "1700438402,1"], "is a time wrong?"),
]


@pytest.mark.parametrize(("lines", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_no_trace_is_named_with_its_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(BadTraceError) as error:
        read_trace(written(tmp_path, "some", lines))
    assert message in str(error.value)


@pytest.mark.parametrize("cut", [-20, 5])
def test_a_file_that_is_cut_is_named(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path, "some", lines_of(demand(3)))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadTraceError, match=r"^some\.csv\.gz(:\d+)?: cannot be read"):
        read_trace(path)


def test_one_broken_and_one_short_trace_do_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, "a_broken", ["timestamp,value", "1700438400,1", "1700438460,x"])
    written(tmp_path, "b_short", lines_of(demand(0.5)))
    written(tmp_path, "c_empty", lines_of(np.full(600, math.nan)))
    written(tmp_path, "d_good", lines_of(demand(6)))
    out, said = tmp_path / "figures.json", tmp_path / "said"
    arguments = ["--traces", str(tmp_path), "--models", "ridge", "--without-peers"]
    assert main([*arguments, "--json", str(out), "--predictions", str(said)]) == 1
    seen = capsys.readouterr()
    assert "a_broken.csv.gz:3: found the value 'x'" in seen.err
    assert "b_short: too short" in seen.err
    assert "c_empty: too little is known" in seen.err
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert [found["trace"] for found in figures["traces"]] == ["d_good"]
    assert "d_good" in seen.out
    assert figures["failed"] == [line for line in figures["failed"] if line.startswith("a_broken")]
    assert main(["--traces", str(tmp_path), "--only", "d_good", "--without-peers", "--score", str(said)]) == 0
    again = capsys.readouterr().out
    assert again.strip() == seen.out.partition("What the walk cost")[0].strip()
    independent(read_trace(tmp_path / "d_good.csv.gz"), said / "d_good.csv.gz", figures["traces"][0])


def test_a_fault_in_one_walk_is_told_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bad", "good"):
        written(tmp_path, name, lines_of(demand(3)))

    def faulty(trace: Trace, origins: Floats, *_: object) -> tuple[list[Row], Facts]:
        if trace.name == "bad":
            raise ZeroDivisionError("of ours")
        return walk(trace, origins, 24, FEW, with_peers=False)

    monkeypatch.setattr("benchmarks.forecast.walk", faulty)
    assert main(["--traces", str(tmp_path), "--only", "bad,good,none"]) == 1
    seen = capsys.readouterr()
    assert "failed: bad: ZeroDivisionError: of ours" in seen.err
    assert "failed: none: no none.csv.gz" in seen.err
    assert "auto_ets: not installed: pip install statsforecast" in seen.out
    assert "\ngood " in seen.out


def independent(trace: Trace, rows: Path, figures: dict[str, object]) -> None:
    """The same figures from the file of rows and the trace, by other means than the benchmark's."""
    value_at = {trace.begin + place * STEP: value for place, value in enumerate(trace.values.tolist())}
    errors: dict[tuple[str, str], list[tuple[float, float]]] = {}
    covered = []
    with gzip.open(rows, "rt", encoding="utf-8", newline="") as text:
        for row in csv.DictReader(text):
            target = datetime.fromisoformat(row["target"]).timestamp()
            origin = datetime.fromisoformat(row["origin"]).timestamp()
            said, width = float(row["value"]), int(row["horizon_seconds"]) // STEP
            came = [value_at[target + place * STEP] for place in range(1 if row["kind"] == "point" else width)]
            if row["kind"] == "point":
                assert target == origin + 3600 - STEP
                errors.setdefault((row["model"], "point"), []).append((said, came[0]))
            elif row["kind"] == "mean1h":
                errors.setdefault((row["model"], "mean1h"), []).append((said, sum(came) / len(came)))
            elif (row["model"], row["horizon_seconds"], row["quantile"]) == (OURS, "3600", "0.9"):
                covered.append(max(came) <= said)
    for (model, kind), pairs in errors.items():
        wape = sum(abs(said - came) for said, came in pairs) / sum(came for _, came in pairs)
        assert figures[kind][model] == pytest.approx(wape, rel=1e-9)  # type: ignore[index]
    found = next(peak for peak in figures["peaks"] if peak["horizon_seconds"] == 3600)  # type: ignore[attr-defined]
    assert found["covered"] == pytest.approx(sum(covered) / len(covered))
    assert len(covered) == figures["origins"]


def test_a_future_of_garbage_changes_nothing_that_was_said_before_it() -> None:
    step = 1200
    values = demand(8.5, step)
    origins = origins_of(Trace("some", MONDAY, step, values))[-12:]
    cut = float(origins[8])
    spoilt = values.copy()
    place = round((cut - MONDAY) / step)
    spoilt[place:] = RANDOM.integers(0, 10**9, len(values) - place)
    said, after = (
        [row for row in walk(Trace("some", MONDAY, step, each), origins, 6, FEW)[0] if row.origin <= cut]
        for each in (values, spoilt)
    )
    assert {row.model for row in said} >= {OURS, *peers.NAIVE, "arima_212", "random_forest", "hw_tuned", "hw_fixed"}
    assert said == after


@pytest.mark.parametrize("step", [600, 1800, 3600])
def test_a_forecast_goes_on_over_the_gap_at_the_end_of_what_is_known(step: int) -> None:
    values = demand(16, step)
    values[RANDOM.random(len(values)) < 0.35] = math.nan
    trace = Trace("some", MONDAY, step, values)
    rows, facts = walk(trace, origins_of(trace)[:60], 24, FEW, with_peers=False)
    usual = float(np.nanmean(values))
    assert facts.refused < 10
    assert min(row.value for row in rows if row.model == OURS and row.kind != "peak") > 0.2 * usual


def test_rows_survive_their_file(tmp_path: Path) -> None:
    rows = [
        Row("some", OURS, "point", 3600, MONDAY, MONDAY + 3300, None, 1 / 3),
        Row("some", OURS, "peak", 900, MONDAY + 0.5, MONDAY + 0.5, 0.98, 7.0),
    ]
    write_rows(tmp_path / "some.csv.gz", rows)
    assert read_rows(tmp_path / "some.csv.gz") == rows


def test_known_errors_give_known_figures() -> None:
    trace = Trace("some", MONDAY, STEP, np.array([0.0] * 4 + [10.0, 20.0, 30.0, 40.0] * 2))
    rows = []
    for hour, (point, mean) in enumerate([(0.0, 0.0), (44.0, 20.0), (30.0, 35.0)]):
        origin = MONDAY + 3600 * hour
        for model, factor in ((OURS, 1.0), ("last_value", 0.5), ("day_naive", 2.0), ("week_naive", 0.0)):
            rows.append(Row("some", model, "point", 3600, origin, origin + 2700, None, factor * point))
            rows.append(Row("some", model, "mean1h", 3600, origin, origin, None, factor * mean))
        rows.append(Row("some", OURS, "peak", 3600, origin, origin, 0.9, 39.0 + hour))
        rows.append(Row("some", "last_peak_conformal", "peak", 3600, origin, origin, 0.9, 50.0))
    found = score(trace, rows)
    assert found.point[OURS] == pytest.approx((4 + 10) / 80)
    assert found.mean1h[OURS] == pytest.approx((5 + 10) / 50)
    assert found.point["week_naive"] == 1.0
    assert found.worst("point") == (pytest.approx(14 / (18 + 25)), "last_value")
    peak = found.peaks[0]
    assert (peak.count, peak.zeros, peak.covered) == (2, 1, 1.0)  # 40 and 41 for 40; 39 for the hour of nothing
    assert peak.pinball == pytest.approx((3.9 + 0.0 + 0.1) / (5.0 + 1.0 + 1.0))


def test_a_forecast_that_is_no_number_is_not_left_out_of_a_mean() -> None:
    row = Row("some", OURS, "point", 3600, MONDAY, MONDAY + 2700, None, math.nan)
    with pytest.raises(ValueError, match=r"tidewise said nan \(point, 3600 s\) at 2023-11-20T00:00:00Z"):
        score(Trace("some", MONDAY, STEP, np.ones(8)), [row])


class TestPeers:
    """Ours go on from fits of statsmodels as statsmodels would."""

    grid = peers.Grid(4, 96)
    values = demand(9)
    places = np.array([700, 704, 708])

    @pytest.mark.parametrize("values", [demand(9), RANDOM.poisson(50.0, 708).astype(float)], ids=["daily", "noise"])
    def test_arima(self, values: Floats) -> None:
        from statsmodels.tsa.arima.model import ARIMA

        past = values[:700]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            points, means = peers.arima(values[:708], self.places, self.grid)
            fit = ARIMA(past / past.std(), order=(2, 1, 2)).fit(method="innovations_mle", cov_type="none")
        for place, point, mean in zip(self.places, points, means, strict=True):
            path = fit.apply(values[place - 700 : place] / past.std()).forecast(4) * past.std()
            assert point == pytest.approx(path[-1], rel=1e-3)
            assert mean == pytest.approx(path.mean(), rel=1e-3)

    def test_holt_winters_tuned(self) -> None:
        from statsmodels.tsa.holtwinters import ExponentialSmoothing

        values = demand(5)
        points, _ = peers.holt_winters_tuned(values[:408], np.array([400, 404, 408]), self.grid)
        model = ExponentialSmoothing(
            values[:400], trend="add", damped_trend=True, seasonal="add", seasonal_periods=96,
            initialization_method="heuristic",
        )  # fmt: skip
        assert points[0] == pytest.approx(model.fit().forecast(4)[-1], rel=1e-6)
        assert abs(points[1] - points[0]) > 1e-3  # it goes on

    def test_holt_winters_fixed(self) -> None:
        from statsmodels.tsa.holtwinters import ExponentialSmoothing

        points, _ = peers.holt_winters_fixed(self.values[:708], self.places, self.grid)
        for place, point in zip(self.places, points, strict=True):
            model = ExponentialSmoothing(
                self.values[place - 288 : place], trend="add", seasonal="add", seasonal_periods=96,
                initialization_method="heuristic",
            )  # fmt: skip
            fixed = model.fit(smoothing_level=0.9, smoothing_trend=0.9, smoothing_seasonal=0.9, optimized=False)
            assert point == pytest.approx(max(0.0, fixed.forecast(4)[-1]), rel=1e-6, abs=1e-6)

    def test_the_peaks_of_a_peer_that_always_misses_by_two_are_two_higher(self) -> None:
        hours = np.repeat(2.0 * np.arange(24 * 10) + 5, 4)  # each hour two more than the last
        trace = Trace("some", MONDAY, STEP, hours)
        found = peers.peak_quantiles(trace, origins_of(trace), 3600)
        truths = hours.reshape(-1, 4)[-len(origins_of(trace)) :, 0]
        for quantile in found.values():
            np.testing.assert_allclose(quantile, truths)


def test_hours_begin_where_bins_do() -> None:
    """Bins of an hour that begin at half past: so do origins; five-minute means of minutes never reach past one."""
    half_past = Trace("some", MONDAY + 1800, 3600, demand(20, 3600), 1800.0)
    assert set(origins_of(half_past) % 3600) == {1800.0}
    minutes = Trace("some", MONDAY + 120, 60, np.arange(1000.0))
    coarse = minutes.at(300)
    assert coarse.begin == MONDAY + 300
    np.testing.assert_array_equal(coarse.values[:2], [np.arange(3, 8).mean(), np.arange(8, 13).mean()])
    assert len(coarse.before(MONDAY + 900)) == 2
