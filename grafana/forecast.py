"""Forecast vs actual of one workload: what was said about each moment, beside what came, and what is said now."""

from grafana_foundation_sdk.models import dashboard as models

from grafana.forecast_judged import AT, OF, fresh, goodness, lately, model
from grafana.frame import WORKLOAD, board, choice
from grafana.panels import (
    BLUE,
    GREEN,
    GREY,
    ITEMS,
    ITEMS_PER_SECOND,
    ORANGE,
    RED,
    SECONDS,
    STATE,
    YELLOW,
    Panel,
    coloured,
    dashed,
    lines,
    number,
    query,
    styled,
)

HORIZONS = (120, 300, 900, 1800, 3600)  # the default ones; the variable `horizon` also offers others


def dashboard() -> models.Dashboard:
    """uid tidewise-forecast."""
    return board(
        "forecast",
        "Forecast vs actual",
        "What was forecast about each moment, beside what came. The range reaches an hour into the future.",
        [
            ("Now", _now()),
            ("Of late", lately()),
            ("What was said, and what came", _outcome()),
            ("How good", goodness()),
            ("The model", model()),
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


def _said(quantile: str = "", horizon: str = "${horizon}") -> str:
    matchers = f'{OF}, horizon_seconds="{horizon}"'
    if quantile:
        return fresh(f'workload:forecast_demand:quantile{{{matchers}, quantile="{quantile}"}}', horizon)
    return fresh(f"workload:forecast_demand:value{{{matchers}}}", horizon)


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
            "History allows",
            "last_value: minutes to hours. seasonal_naive: a day. cheap: some models. full: all of them.",
            STATE,
            f"tidewise_forecast_stage_info{{{OF}}}",
            name="{{stage}}",
        ),
        number(
            "May decide",
            "Yes: it has skill against the naive forecasts. No: the scaler goes by present demand alone.",
            STATE,
            f"workload:forecast_gate:bool{{{OF}}}",
            words={"1": ("yes", GREEN), "0": ("no", ORANGE)},
        ),
        number(
            "Because",
            "The reason of the gate. degraded: within the last hour demand was not what had been learned.",
            STATE,
            f"tidewise_forecast_gate_info{{{OF}}}",
            name="{{reason}}",
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
            "A decision covers from",
            "How far ahead the window begins that a decision made now has to cover: the lead time.",
            SECONDS,
            f"workload:forecast_window_begin_seconds:min{{{OF}}}",
        ),
        number(
            "… until",
            "When replicas that the next decision asks for are ready, even if they start slowly.",
            SECONDS,
            f"workload:forecast_window_end_seconds:max{{{OF}}}",
        ),
    ]


def _outcome() -> list[Panel]:
    ahead = lines(
        "The hour ahead",
        "The same for each of the default horizons: each line ends as far in the future as its forecast looks.",
        ITEMS_PER_SECOND,
        query(fresh(f"workload:demand:rate1m{{{OF}}}"), "came"),
        *(query(_said(horizon=str(h)), f"said {h // 60} min before") for h in HORIZONS),
        span=12,
    )
    peaks = lines(
        "Largest minute, said and come",
        "The largest one-minute demand within one chosen horizon up to each moment, and the quantiles that had been "
        "said about it when that horizon began.",
        ITEMS_PER_SECOND,
        query(fresh(f"workload:forecast_peak_outcome:max{{{AT}}}"), "came"),
        query(fresh(f'workload:forecast_due_peak:quantile{{{AT}, quantile="0.98"}}'), "at most (0.98)"),
        query(fresh(f'workload:forecast_due_peak:quantile{{{AT}, quantile="0.9"}}'), "at most (0.9)"),
        query(fresh(f'workload:forecast_due_peak:quantile{{{AT}, quantile="0.1"}}'), "at least (0.1)"),
        span=12,
    )
    decision = lines(
        "What a decision has to cover",
        "Demand now, and quantiles of the largest one-minute demand in the window of the decision made now: after the "
        "lead time, until the next decision's replicas are ready.",
        ITEMS_PER_SECOND,
        query(fresh(f"workload:demand:rate1m{{{OF}}}"), "now"),
        query(fresh(f"workload:forecast_window_peak:quantile{{{OF}}}"), "window's peak, {{quantile}}"),
        span=12,
    )
    arrivals = lines(
        "Work until then",
        "What a queue is sized for: quantiles of all work that arrives until the chosen horizon, drawn when it was "
        "said.",
        ITEMS,
        query(fresh(f"workload:forecast_arrivals:quantile{{{AT}}}"), "quantile {{quantile}}"),
        span=12,
    )
    forecast = lines(
        "Forecast vs actual",
        "Demand that came, and what had been said about that moment one horizon before, with the band from quantile "
        "0.1 to 0.9. Right of now: what is said at present.",
        ITEMS_PER_SECOND,
        query(fresh(f"workload:demand:rate1m{{{OF}}}"), "came"),
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
    peaks.override_by_name("came", styled(color=coloured(GREY), custom__lineWidth=2))
    peaks.override_by_name("at least (0.1)", band)
    peaks.override_by_name(
        "at most (0.9)",
        styled(color=coloured(BLUE), custom__lineWidth=1, custom__fillBelowTo="at least (0.1)", custom__fillOpacity=20),
    )
    peaks.override_by_name("at most (0.98)", dashed(BLUE))
    decision.override_by_name("now", styled(color=coloured(GREY), custom__lineWidth=2))
    return [forecast, ahead, arrivals, peaks, decision]
