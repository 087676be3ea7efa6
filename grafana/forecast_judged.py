"""How good forecasts are, and what makes them: the lower half of the dashboard of one workload's forecast."""

from grafana.panels import (
    BLUE,
    GREEN,
    GREY,
    ITEMS_PER_SECOND,
    ORANGE,
    RATIO,
    RED,
    SECONDS,
    YELLOW,
    Column,
    Panel,
    dashed,
    lines,
    number,
    query,
    rows,
    states,
)

OF = 'workload="$workload"'
AT = f'{OF}, horizon_seconds="$horizon"'
# The range ends in the future, and there Prometheus would repeat its newest sample for five minutes.
FRESH_SECONDS = 90


def fresh(series: str, horizon: str = "") -> str:
    """The series where it has a new sample; with a horizon, moved to the time that it speaks of."""
    moved, measured = series, f"timestamp({series})"
    if horizon:
        moved, measured = f"{series} offset {horizon}s", f"(timestamp({series} offset {horizon}s) + {horizon})"
    return f"({moved} and time() - {measured} < {FRESH_SECONDS})"


def lately() -> list[Panel]:
    return [
        number(
            "Accuracy",
            "1 less the summed error over the summed demand, of the last hour, at the chosen horizon. Goal: 80 %.",
            RATIO,
            f"workload:forecast_accuracy:ratio_1h{{{AT}}}",
            limits=((None, RED), (0.6, YELLOW), (0.8, GREEN)),
        ),
        number(
            "Accuracy of a day",
            "The same, of the last 24 full hours.",
            RATIO,
            f"workload:forecast_accuracy:ratio_1d{{{AT}}}",
            limits=((None, RED), (0.6, YELLOW), (0.8, GREEN)),
        ),
        number(
            "At best",
            "What chance leaves to any forecast of single minutes: below 80 %, none can reach the goal. n/a: demand is "
            "not made of counted pieces.",
            RATIO,
            f'1 - workload:forecast_noise_floor:ratio{{{OF}, mean_seconds="60"}}',
        ),
        number(
            "Error, of the naive one's",
            "Skill over the last day, as the forecaster itself judges: its error over that of the best naive forecast. "
            "Below 100 % it is better.",
            RATIO,
            f'tidewise_forecast_skill_ratio{{{OF}, window="1d"}}',
            limits=((None, GREEN), (1, YELLOW), (1.1, RED)),
        ),
        number(
            "… over a week",
            "The same over seven days. By these two, and by the last hour, the gate is opened and closed.",
            RATIO,
            f'tidewise_forecast_skill_ratio{{{OF}, window="7d"}}',
            limits=((None, GREEN), (1, YELLOW), (1.02, RED)),
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
        number(
            "Peaks within theirs",
            "Share of the last hour in which the largest minute since the forecast had stayed below the quantile 0.9 "
            "of the peak; near 90 % is right.",
            RATIO,
            f'workload:forecast_peak_coverage:ratio_1h{{{AT}, quantile="0.9"}}',
            limits=((None, RED), (0.75, YELLOW), (0.85, GREEN)),
        ),
    ]


def goodness() -> list[Panel]:
    accuracy = lines(
        "Accuracy by horizon",
        "1 less the summed error over the summed demand of an hour. Dashed: the goal of 80 %. Grey: what chance leaves "
        "to any forecast of single minutes; where that is low, look at skill before accuracy.",
        RATIO,
        query(fresh(f"workload:forecast_accuracy:ratio_1h{{{OF}}}"), "{{horizon_seconds}} s"),
        query("1 - " + fresh(f'workload:forecast_noise_floor:ratio{{{OF}, mean_seconds="60"}}'), "at best"),
        limits=((0.8, GREEN),),
        low=None,
        high=1,
        span=8,
    )
    accuracy.override_by_name("at best", dashed(GREY))
    days = lines(
        "Accuracy of a day and of a week",
        "At the chosen horizon, of full hours. Dashed: the goal of 80 %. Grey: what chance leaves to any forecast of "
        "single minutes.",
        RATIO,
        query(f"workload:forecast_accuracy:ratio_1d{{{AT}}}", "of a day"),
        query(f"workload:forecast_accuracy:ratio_7d{{{AT}}}", "of a week"),
        query("1 - " + fresh(f'workload:forecast_noise_floor:ratio{{{OF}, mean_seconds="60"}}'), "at best"),
        limits=((0.8, GREEN),),
        low=None,
        high=1,
        span=8,
    )
    days.override_by_name("at best", dashed(GREY))
    return [
        accuracy,
        days,
        lines(
            "Error against the best naive one",
            "Skill of an hour: the error over that of the best of “as now”, “as yesterday” and “as last week”. Below "
            "the dashed line the forecast is better.",
            RATIO,
            query(fresh(f"workload:forecast_skill:ratio_1h{{{OF}}}"), "{{horizon_seconds}} s"),
            limits=((1, RED),),
            span=8,
        ),
        lines(
            "Skill over a day and a week",
            "As the forecaster itself judges, over its horizons of up to an hour and with its backtest: by this the "
            "gate goes. And as Prometheus has it from what was published, at the chosen horizon.",
            RATIO,
            query(fresh(f"tidewise_forecast_skill_ratio{{{OF}}}"), "{{window}}, by the forecaster"),
            query(f"workload:forecast_skill:ratio_1d{{{AT}}}", "1d, as published"),
            query(f"workload:forecast_skill:ratio_7d{{{AT}}}", "7d, as published"),
            limits=((1, RED),),
            span=8,
        ),
        lines(
            "Bias by horizon",
            "Of an hour; above 0 too much was forecast, below too little.",
            RATIO,
            query(fresh(f"workload:forecast_bias:ratio_1h{{{OF}}}"), "{{horizon_seconds}} s"),
            limits=((0, GREY),),
            low=None,
            span=8,
        ),
        lines(
            "Error, moment by moment",
            "What was said less what came, at the chosen horizon, and the size of the error of each naive forecast.",
            ITEMS_PER_SECOND,
            query(fresh(f"workload:forecast_error:value{{{AT}}}"), "error"),
            query(fresh(f"workload:forecast_naive_abs_error:value{{{AT}}}"), "size of naive, {{naive}}"),
            low=None,
            span=8,
        ),
        lines(
            "How often each quantile held",
            "Share of an hour in which demand stayed at or below it. A forecast that knows how sure it is has each "
            "line near its own number.",
            RATIO,
            query(fresh(f"workload:forecast_coverage:ratio_1h{{{AT}}}"), "quantile {{quantile}}"),
            high=1,
            span=8,
        ),
        lines(
            "How often each peak quantile held",
            "Share of a day in which the largest minute since the forecast had stayed at or below it (as published), "
            "and what the forecaster's own calibration counts.",
            RATIO,
            query(f"workload:forecast_peak_coverage:ratio_1d{{{AT}}}", "{{quantile}}, of a day"),
            query(fresh(f'tidewise_forecast_coverage_ratio{{{AT}, kind="peak"}}'), "{{quantile}}, by the forecaster"),
            high=1,
            span=8,
        ),
        lines(
            "Loss of each quantile",
            "Pinball loss of an hour over what came: what of two bands is the better one, width and misses together. "
            "Lower is better.",
            RATIO,
            query(fresh(f"workload:forecast_pinball:ratio_1h{{{AT}}}"), "quantile {{quantile}}"),
            span=8,
        ),
        states(
            "May the forecast decide?",
            "No: its skill gate is closed, and present demand alone counts. Empty: there is no forecast. While demand "
            "is only known to be at least what was measured, errors say little.",
            query(fresh(f"workload:forecast_gate:bool{{{OF}}}"), "may it decide?"),
            query("1 + " + fresh(f"workload:demand_censored:bool{{{OF}}}"), "is demand known?"),
            words={"1": ("yes", GREEN), "0": ("no", ORANGE), "2": ("only at least", YELLOW)},
            span=24,
            height=5,
        ),
    ]


def _info(name: str, label: str) -> str:
    return f"max by ({label}) ({fresh(f'tidewise_forecast_{name}{{{OF}}}')})"


def model() -> list[Panel]:
    return [
        rows(
            "Models tried on the last days",
            "Backtest: summed error over summed demand, and that error over the best naive model's; what the last "
            "fit cost, and how old it is. Heavy models are fitted about daily, as far as their CPU budget goes.",
            [
                Column("Model", label="model"),
                Column("Error", RATIO, f"tidewise_forecast_backtest_wape_ratio{{{OF}}}"),
                Column(
                    "Of the naive's",
                    RATIO,
                    f"tidewise_forecast_backtest_skill_ratio{{{OF}}}",
                    limits=((None, GREEN), (1, RED)),
                ),
                Column("CPU", SECONDS, f"tidewise_forecast_model_fit_cpu_seconds{{{OF}}}"),
                Column("Age", SECONDS, f"time() - tidewise_forecast_model_trained_timestamp_seconds{{{OF}}}"),
            ],
            key="model",
            span=12,
        ),
        states(
            "Model in use, and why it may decide or not",
            "A row for each; filled while it was so.",
            query(_info("model_info", "model"), "model {{model}}"),
            query(_info("stage_info", "stage"), "history allows {{stage}}"),
            query(_info("gate_info", "reason"), "gate: {{reason}}"),
            query(_info("refused", "reason"), "refused: {{reason}}"),
            query(_info("ensemble_member_info", "model"), "member {{model}}"),
            query(_info("model_left_out_info", "model"), "without a say {{model}}"),
            words={"1": ("so", BLUE)},
            span=12,
        ),
        lines(
            "Length of history",
            "What the model has learned from.",
            SECONDS,
            query(fresh(f"tidewise_forecast_history_seconds{{{OF}}}"), "history"),
            span=4,
        ),
        lines(
            "Age of what was learned",
            "How long ago the newest sample was measured that any model, and each model, has learned from.",
            SECONDS,
            query("time() - " + fresh(f"tidewise_forecast_trained_timestamp_seconds{{{OF}}}"), "newest sample learned"),
            query("time() - " + fresh(f"tidewise_forecast_model_trained_timestamp_seconds{{{OF}}}"), "{{model}}"),
            span=4,
        ),
        lines(
            "CPU of the last fit",
            "Of this workload, with its backtest.",
            SECONDS,
            query(fresh(f"tidewise_forecast_fit_cpu_seconds{{{OF}}}"), "last fit"),
            span=4,
        ),
        lines(
            "Heavy models, CPU a day",
            "What all of them took within 24 hours, what the configuration grants them, and what they would take if "
            "every workload had its turn.",
            SECONDS,
            query(f"sum({fresh('tidewise_forecast_heavy_spent_cpu_seconds')})", "taken"),
            query(f"sum({fresh('tidewise_forecast_heavy_budget_cpu_seconds')})", "granted"),
            query(f"sum({fresh('tidewise_forecast_heavy_wanted_cpu_seconds')})", "wanted"),
            span=4,
        ),
        lines(
            "Widening",
            "Factor on the band after an hour of larger errors than usual.",
            RATIO,
            query(fresh(f"tidewise_forecast_widening_ratio{{{OF}}}"), "factor"),
            limits=((1, GREY),),
            span=4,
        ),
        states(
            "Known ahead, and read",
            "Whether the calendar has holidays, events or floors to come, whether its files can be read, and which "
            "series were learned from.",
            query(f"max by (kind) ({fresh(f'tidewise_forecast_calendar_ahead{{{OF}}}')}) > bool 0", "{{kind}} to come"),
            query(f"min by (file) ({fresh('tidewise_forecast_calendar_file_readable')})", "{{file}}"),
            query(_info("series_info", "series"), "{{series}}"),
            words={"1": ("yes", GREEN), "0": ("no", GREY)},
            span=4,
        ),
    ]
