"""What a forecast says about the time from now on, as a load for queues and as a distribution for services. Pure."""

from controllers.domain import Forecast, Horizon, Reason, Sample
from controllers.scale.distribution import Distribution, at_quantile
from controllers.scale.queueing import Load, interpolate

# Demand is a rate over the last minute: it tells of half a minute ago, and so does every forecast of it.
RATE_DELAY_SECONDS = 30.0
SAME_WINDOW_SECONDS = 120.0  # a forecast's window that begins and ends within this of the wanted one stands for it
NEARLY = 0.9
LEAST_FACTOR, MOST_FACTOR = 0.5, 2.0
FADE_SECONDS = 1800.0  # a correction of what is so far ahead is none: by then the error may be over


def usable(forecast: Forecast | None, now: float) -> tuple[Forecast | None, tuple[Reason, ...]]:
    """The forecast if it may count now, else None and why not."""
    if forecast is None or not forecast.horizons:
        return None, (Reason.FORECAST_MISSING,)
    if not forecast.made_at - 60 <= now <= forecast.valid_until:
        return None, (Reason.FORECAST_EXPIRED,)
    if not forecast.gate_open:
        return None, (Reason.GATE_CLOSED,)
    return forecast, ()


def band_at(forecast: Forecast, at: float) -> tuple[float, float]:
    """What demand at a time (Unix seconds) was to lie between: the outer quantiles, of the nearest horizon until it."""
    seconds = at - forecast.made_at
    nearest = forecast.horizons[0]
    if seconds <= nearest.seconds:
        return _band(nearest)
    times = [float(h.seconds) for h in forecast.horizons]
    bands = [_band(h) for h in forecast.horizons]
    return (
        interpolate(seconds, times, [low for low, _ in bands]),
        interpolate(seconds, times, [high for _, high in bands]),
    )


def _band(horizon: Horizon) -> tuple[float, float]:
    values = (horizon.value, *horizon.quantiles.values())
    return min(values), max(values)


def correction(forecast: Forecast, demand: Sample | None) -> float:
    """By how much present demand is beyond the band that the forecast gave for now; 1.0: within it, or not known.

    A forecast knows what came before it was made, and has corrected itself by that
    (controllers/forecast/correction.py). So this asks only of one that is older than its nearest horizon: until then it
    said nothing about now.
    """
    if demand is None or demand.at - forecast.made_at < forecast.horizons[0].seconds:
        return 1.0
    low, high = band_at(forecast, demand.at)
    if demand.value > high:
        return min(MOST_FACTOR, demand.value / high) if high > 0 else MOST_FACTOR
    if demand.value < low:
        return max(LEAST_FACTOR, demand.value / low)
    return 1.0


def faded(factor: float, seconds: float) -> float:
    """What is left of a correction `seconds` ahead."""
    return 1.0 + (factor - 1.0) * max(0.0, 1.0 - max(0.0, seconds) / FADE_SECONDS)


def load_ahead(
    forecast: Forecast, now: float, demand: Sample | None, objective: float, until: float, factor: float = 1.0
) -> Load:
    """The forecast as a queue's load from now `until` so many seconds ahead, tied to present demand where known.

    The upper path is the middle one times what the forecast says about the `objective` quantile of cumulative arrivals
    relative to their median, so that short noise, which a queue evens out, is not paid for.
    """
    ahead = _until(forecast, now, until)
    times = [due for due, _ in ahead]
    middle = [h.value if factor == 1.0 else h.value * faded(factor, due) for due, h in ahead]
    ratio = [_upper_ratio(h, objective) for _, h in ahead]
    if demand is not None:
        times.insert(0, min(demand.at - now, 0.0) - RATE_DELAY_SECONDS)
        middle.insert(0, demand.value)
        ratio.insert(0, ratio[0])
    return Load(tuple(times), tuple(middle), tuple([m * r for m, r in zip(middle, ratio, strict=True)]))


def rate_ahead(forecast: Forecast, now: float, load: Load, seconds: float) -> Distribution:
    """The mean rate of what arrives until so many seconds ahead, where `load` expects its middle."""
    _, horizon = _until(forecast, now, seconds)[-1]
    middle = load.middle_at(seconds)
    median = horizon.arrivals.get(0.5)
    if not median:
        return Distribution.certain(middle)
    return Distribution.from_quantiles(
        {q: middle * value / median for q, value in horizon.arrivals.items()}
    ) or Distribution.certain(middle)


def peak_within(forecast: Forecast, now: float, start: float, end: float, factor: float = 1.0) -> dict[float, float]:
    """Quantiles of the largest one-minute demand within [start, end) seconds from now; never empty.

    Of the forecast's own window, where that is about the same one; else the highest of the horizons that reach into it,
    each of which covers all until its end.
    """
    table = _window_peak(forecast, now, start, end)
    if table is None:
        ahead = _until(forecast, now, end)
        table = _highest([h for due, h in ahead if due >= start] or [ahead[-1][1]])
    return _times(table, faded(factor, start))


def peak_until(forecast: Forecast, now: float, end: float, factor: float = 1.0) -> dict[float, float]:
    """Quantiles of the largest one-minute demand within so many seconds from now; never empty.

    Of the first horizon that reaches nearly so far: the next one is mostly twice as long.
    """
    return _times(_highest([h for _, h in _until(forecast, now, NEARLY * end)]), factor)


def _highest(horizons: list[Horizon]) -> dict[float, float]:
    table = _peaks(horizons[0])
    for horizon in horizons[1:]:
        other = _peaks(horizon)
        table = {q: max(table.get(q, 0.0), other.get(q, 0.0)) for q in {**table, **other}}
    return table


def _times(table: dict[float, float], factor: float) -> dict[float, float]:
    return table if factor == 1.0 else {q: value * factor for q, value in table.items()}


def _peaks(horizon: Horizon) -> dict[float, float]:
    """Without quantiles it stands for itself."""
    return horizon.peak or {0.5: horizon.value}


def middle_ahead(forecast: Forecast, now: float, seconds: float) -> float:
    """Demand per second that is expected so far ahead."""
    ahead = _until(forecast, now, seconds)
    return interpolate(seconds, [due for due, _ in ahead], [h.value for _, h in ahead])


def highest_middle(forecast: Forecast, now: float, until: float) -> float:
    """The most demand per second that is expected at a horizon before so many seconds from now."""
    return max(h.value for _, h in _until(forecast, now, until))


def steady_peak(forecast: Forecast | None, now: float, start: float, end: float) -> dict[float, float] | None:
    """While the gate is closed: quantiles of the largest one-minute demand within [start, end) seconds from now, from
    how far demand strays from what it is; None where nobody tells.
    """
    if forecast is None or forecast.gate_open or not forecast.made_at - 60 <= now <= forecast.valid_until:
        return None
    return _window_peak(forecast, now, start, end)


def _window_peak(forecast: Forecast, now: float, start: float, end: float) -> dict[float, float] | None:
    window = forecast.window
    if window is None or not window.peak:
        return None
    since_made = now + RATE_DELAY_SECONDS - forecast.made_at
    begins = abs(window.begin_seconds - start - since_made) <= SAME_WINDOW_SECONDS
    ends = abs(window.end_seconds - end - since_made) <= SAME_WINDOW_SECONDS
    return window.peak if begins and ends else None


def _until(forecast: Forecast, now: float, until: float) -> list[tuple[float, Horizon]]:
    """(seconds from now, horizon) of those ahead, up to the first that is not before `until`."""
    since_made = now + RATE_DELAY_SECONDS - forecast.made_at
    found: list[tuple[float, Horizon]] = []
    for horizon in forecast.horizons:
        due = horizon.seconds - since_made
        if due > 0:
            found.append((due, horizon))
            if due >= until:
                break
    return found or [(0.0, forecast.horizons[-1])]


def _upper_ratio(horizon: Horizon, objective: float) -> float:
    upper, median = at_quantile(horizon.arrivals, objective), horizon.arrivals.get(0.5)
    return max(1.0, upper / median) if upper is not None and median else 1.0
