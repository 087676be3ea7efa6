"""Forecast vs actual of one workload: what was said about each moment, beside what came, and what is said now."""

from grafana_foundation_sdk.models import dashboard as models

from grafana.frame import WORKLOAD, board, choice
from grafana.panels import (
    BLUE,
    GREEN,
    GREY,
    ITEMS,
    ITEMS_PER_SECOND,
    ORANGE,
    RATIO,
    RED,
    SECONDS,
    STATE,
    YELLOW,
    Column,
    Panel,
    coloured,
    lines,
    number,
    query,
    rows,
    states,
    styled,
)

OF = 'workload="$workload"'
AT = f'{OF}, horizon_seconds="$horizon"'
HORIZONS = (120, 300, 900, 1800, 3600)  # the default ones; the variable `horizon` also offers others
# The range ends in the future, and there Prometheus would repeat its newest sample for five minutes.
FRESH_SECONDS = 90


def dashboard() -> models.Dashboard:
    """uid tidewise-forecast."""
    return board(
        "forecast",
        "Forecast vs actual",
        "What was forecast about each moment, beside what came. The range reaches an hour into the future.",
        [
            ("Now", _now()),
            ("What was said, and what came", _outcome()),
            ("How good", _goodness()),
            ("The model", _model()),
        ],
        variables=[
            WORKLOAD,
            choice(
                "horizon",
                "Horizon",
                "Seconds ahead",
                f"workload:forecast_demand:value{{{OF}}}",
                "horizon_seconds",
                many=False,
                first="300",
                numeric=True,
            ),
        ],
        span=("now-3h", "now+1h"),
        refresh="1m",
        events=OF,
    )


def _fresh(series: str, horizon: str = "") -> str:
    """The series where it has a new sample; with a horizon, moved to the time that it speaks of."""
    moved, measured = series, f"timestamp({series})"
    if horizon:
        moved, measured = f"{series} offset {horizon}s", f"(timestamp({series} offset {horizon}s) + {horizon})"
    return f"({moved} and time() - {measured} < {FRESH_SECONDS})"


def _said(quantile: str = "", horizon: str = "${horizon}") -> str:
    matchers = f'{OF}, horizon_seconds="{horizon}"'
    if quantile:
        return _fresh(f'workload:forecast_demand:quantile{{{matchers}, quantile="{quantile}"}}', horizon)
    return _fresh(f"workload:forecast_demand:value{{{matchers}}}", horizon)


def _now() -> list[Panel]:
    return [
        number(
            "Model",
            "In use for this workload.",
            STATE,
            f"tidewise_forecast_model_info{{{OF}}}",
            name="{{model}}",
        ),
        number(
            "May decide",
            "Yes: it has skill against the naive forecasts. No: the scaler goes by present demand alone.",
            STATE,
            f"workload:forecast_gate:bool{{{OF}}}",
            words={"1": ("yes", GREEN), "0": ("no", ORANGE)},
        ),
        number(
            "Made",
            "How long ago.",
            SECONDS,
            f"time() - workload:forecast_made:timestamp{{{OF}}}",
            limits=((None, GREEN), (300, YELLOW), (900, RED)),
        ),
        number(
            "Valid for",
            "From then on it may not be used. n/a: there is none.",
            SECONDS,
            f"workload:forecast_valid_until:timestamp{{{OF}}} - time()",
            limits=((None, RED), (0, YELLOW), (60, GREEN)),
        ),
        number(
            "Accuracy",
            "1 less the summed error over the summed demand, of the last hour, at the chosen horizon. Goal: 80 %.",
            RATIO,
            f"workload:forecast_accuracy:ratio_1h{{{AT}}}",
            limits=((None, RED), (0.6, YELLOW), (0.8, GREEN)),
        ),
        number(
            "Error, of yesterday's",
            "Skill: the error over that of repeating yesterday; below 100 % the forecast is better.",
            RATIO,
            f"workload:forecast_skill:ratio_1h{{{AT}}}",
            limits=((None, GREEN), (1, YELLOW), (1.2, RED)),
        ),
        number(
            "Bias",
            "Of the last hour; positive: too much was forecast, and some capacity stood idle.",
            RATIO,
            f"workload:forecast_bias:ratio_1h{{{AT}}}",
            limits=((None, RED), (-0.2, GREEN), (0.2, YELLOW)),
        ),
        number(
            "Within the 90 % bound",
            "Share of the last hour in which demand stayed below the quantile 0.9; near 90 % is right.",
            RATIO,
            f'workload:forecast_coverage:ratio_1h{{{AT}, quantile="0.9"}}',
            limits=((None, RED), (0.75, YELLOW), (0.85, GREEN)),
        ),
    ]


def _outcome() -> list[Panel]:
    ahead = lines(
        "The hour ahead",
        "The same for each of the default horizons: each line ends as far in the future as its forecast looks.",
        ITEMS_PER_SECOND,
        query(_fresh(f"workload:demand:rate1m{{{OF}}}"), "came"),
        *(query(_said(horizon=str(h)), f"said {h // 60} min before") for h in HORIZONS),
        span=12,
    )
    peaks = lines(
        "Largest minute until then",
        "The peak that a service is sized for: quantiles of the largest one-minute demand until the chosen horizon, "
        "drawn when it was said.",
        ITEMS_PER_SECOND,
        query(_fresh(f"workload:forecast_peak:quantile{{{AT}}}"), "quantile {{quantile}}"),
        span=6,
    )
    arrivals = lines(
        "Work until then",
        "What a queue is sized for: quantiles of all work that arrives until the chosen horizon, drawn when it was "
        "said.",
        ITEMS,
        query(_fresh(f"workload:forecast_arrivals:quantile{{{AT}}}"), "quantile {{quantile}}"),
        span=6,
    )
    forecast = lines(
        "Forecast vs actual",
        "Demand that came, and what had been said about that moment one horizon before, with the band from quantile "
        "0.1 to 0.9. Right of now: what is said at present.",
        ITEMS_PER_SECOND,
        query(_fresh(f"workload:demand:rate1m{{{OF}}}"), "came"),
        query(_said(), "said"),
        query(_said("0.9"), "at most (0.9)"),
        query(_said("0.1"), "at least (0.1)"),
        span=24,
        height=11,
    )
    forecast.override_by_name("came", styled(color=coloured(GREY), custom__lineWidth=2))
    forecast.override_by_name("said", styled(color=coloured(BLUE), custom__lineWidth=2))
    band = styled(color=coloured(BLUE), custom__lineWidth=0, custom__fillOpacity=0)
    forecast.override_by_name("at least (0.1)", band)
    forecast.override_by_name(
        "at most (0.9)",
        styled(
            color=coloured(BLUE),
            custom__lineWidth=0,
            custom__fillBelowTo="at least (0.1)",
            custom__fillOpacity=20,
        ),
    )
    ahead.override_by_name("came", styled(color=coloured(GREY), custom__lineWidth=2))
    return [forecast, ahead, peaks, arrivals]


def _goodness() -> list[Panel]:
    return [
        lines(
            "Accuracy by horizon",
            "1 less the summed error over the summed demand of an hour. Dashed: the goal of 80 %. The one-minute "
            "demand of a small workload is noisy: look at skill before accuracy.",
            RATIO,
            query(_fresh(f"workload:forecast_accuracy:ratio_1h{{{OF}}}"), "{{horizon_seconds}} s"),
            limits=((0.8, GREEN),),
            low=None,
            high=1,
            span=8,
        ),
        lines(
            "Error against repeating yesterday",
            "Of an hour. Below the dashed line the forecast is better than yesterday's value.",
            RATIO,
            query(_fresh(f"workload:forecast_skill:ratio_1h{{{OF}}}"), "{{horizon_seconds}} s"),
            limits=((1, RED),),
            span=8,
        ),
        lines(
            "Bias by horizon",
            "Of an hour; above 0 too much was forecast, below too little.",
            RATIO,
            query(_fresh(f"workload:forecast_bias:ratio_1h{{{OF}}}"), "{{horizon_seconds}} s"),
            limits=((0, GREY),),
            low=None,
            span=8,
        ),
        lines(
            "Error, moment by moment",
            "What was said less what came, at the chosen horizon, and the size of the error of repeating yesterday.",
            ITEMS_PER_SECOND,
            query(_fresh(f"workload:forecast_error:value{{{AT}}}"), "error"),
            query(_fresh(f"workload:forecast_naive_abs_error:value{{{AT}}}"), "size of yesterday's"),
            low=None,
            span=8,
        ),
        lines(
            "How often each quantile held",
            "Share of an hour in which demand stayed at or below it. A forecast that knows how sure it is has each "
            "line near its own number.",
            RATIO,
            query(_fresh(f"workload:forecast_coverage:ratio_1h{{{AT}}}"), "quantile {{quantile}}"),
            high=1,
            span=8,
        ),
        states(
            "May the forecast decide?",
            "No: its skill gate is closed, and present demand alone counts. Empty: there is no forecast. While demand "
            "is only known to be at least what was measured, errors say little.",
            query(_fresh(f"workload:forecast_gate:bool{{{OF}}}"), "may it decide?"),
            query("1 + " + _fresh(f"workload:demand_censored:bool{{{OF}}}"), "is demand known?"),
            words={"1": ("yes", GREEN), "0": ("no", ORANGE), "2": ("only at least", YELLOW)},
            span=8,
        ),
    ]


def _info(name: str, label: str) -> str:
    return f"max by ({label}) ({_fresh(f'tidewise_forecast_{name}{{{OF}}}')})"


def _model() -> list[Panel]:
    return [
        rows(
            "Models tried on the last days",
            "Backtest: summed error over summed demand, and that error relative to the seasonal naive's. The best is "
            "in use.",
            [
                Column("Model", label="model"),
                Column("Error", RATIO, f"tidewise_forecast_backtest_wape_ratio{{{OF}}}"),
                Column(
                    "Of the naive's",
                    RATIO,
                    f"tidewise_forecast_backtest_skill_ratio{{{OF}}}",
                    limits=((None, GREEN), (1, RED)),
                ),
            ],
            key="model",
            span=8,
        ),
        states(
            "Model in use, and why it may decide or not",
            "A row for each; filled while it was so.",
            query(_info("model_info", "model"), "model {{model}}"),
            query(_info("stage_info", "stage"), "history allows {{stage}}"),
            query(_info("gate_info", "reason"), "gate: {{reason}}"),
            query(_info("refused", "reason"), "refused: {{reason}}"),
            words={"1": ("so", BLUE)},
            span=8,
        ),
        lines(
            "History and age",
            "Length of the history that the model has learned from, and how long ago that ended.",
            SECONDS,
            query(_fresh(f"tidewise_forecast_history_seconds{{{OF}}}"), "history"),
            query(
                "time() - " + _fresh(f"tidewise_forecast_trained_timestamp_seconds{{{OF}}}"), "newest sample learned"
            ),
            span=4,
        ),
        lines(
            "Widening",
            "Factor on the band after an hour of larger errors than usual.",
            RATIO,
            query(_fresh(f"tidewise_forecast_widening_ratio{{{OF}}}"), "factor"),
            limits=((1, GREY),),
            span=4,
        ),
    ]
