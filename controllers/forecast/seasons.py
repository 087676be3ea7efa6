"""Seasons that no calendar knows: periods that the spectrum shows steadily, such as jobs every 20 minutes or 7 hours.

A period counts when its peak stands far above the frequencies around it, in the whole history and in each half; when it
is no echo of the day's own shape; and when the phase profile of one half foretells the other. The day and its first
harmonics, and whatever takes longer than half a day, are the calendar's and are not looked for.

A model takes what the phases add or multiply out of the demand before it learns (`without`), and puts it onto its paths
(`with_phases`). Both come from the history that was fitted to, so no origin after it sees anything of its future.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from controllers.forecast.features import OFFSET_RATIO, ceiling
from controllers.forecast.history import DAY_SECONDS, Bools, Floats, History, Ints
from controllers.forecast.sums import bins, cumulative, window

MOST = 3  # periods that are told apart
TRIES = 3  # peaks looked at more closely, for each
DAY_WAVES = 12  # harmonics of the day that are the day's shape; quicker ones may be jobs
LONGEST_SECONDS = 43_200.0
CYCLES = 16  # that a history must hold
PEAK = 25.0  # times the frequencies around it: chance gives 16 once in a thousand histories
HALF_PEAK = 7.0  # in each half
HARMONIC_PEAK = 10.0  # times the day's harmonics around it, where it is one of them
FORETOLD = 0.02  # of the variance of one half, by the phase profile of the other
OF_DAY = 0.6  # of what the day's profile foretells, where a period divides the day: else it is that profile's echo
SHIFTS = (-0.1, -0.05, 0.05, 0.1)  # tried around a peak's frequency, in parts of the resolution
SPREAD = 30  # frequencies to either side that a peak is compared with
CLEARLY = 1.2  # as much must a multiple of a period foretell, to be the period
CELLS = 96  # of a phase profile, at most


@dataclass(frozen=True, slots=True)
class Phases:
    """What each phase of Unix time in `period_seconds` adds to demand per second, or to its logarithm; 0 on average."""

    period_seconds: float
    shape: Floats
    adds: bool = False  # to the demand itself, as jobs of a fixed size do

    def at(self, times: Floats) -> Floats:
        """At bins that end at these Unix seconds."""
        cells = len(self.shape)
        found: Floats = self.shape[np.minimum((phase(times, self.period_seconds) * cells).astype(np.int64), cells - 1)]
        return found


def phase(times: Floats, period_seconds: float) -> Floats:
    """In [0, 1). A millisecond is forgiven, so that a bin that ends with a period begins the next one."""
    found: Floats = np.clip(((times + 1e-3) % period_seconds) / period_seconds, 0.0, 1.0 - 1e-9)
    return found


def ends(history: History, at: Ints) -> Floats:
    """Unix seconds at which bins end."""
    times: Floats = history.start + at.astype(np.float64) * history.step_seconds
    return times


def steady_periods(history: History) -> tuple[float, ...]:
    """Periods in seconds, the longest first; empty for noise, for a random walk and for what the calendar explains."""
    return tuple(found.period_seconds for found in phase_factors(history))


def phase_factors(history: History) -> tuple[Phases, ...]:
    """The steady periods, each with what its phases add to demand or multiply it with, whichever fits better.

    Several models ask this of one history, one after the other, so the last answers are remembered.
    """
    return _phase_factors(history.start, history.step_seconds, history.values.tobytes())


@lru_cache(maxsize=8)
def _phase_factors(start: float, step: float, content: bytes) -> tuple[Phases, ...]:
    values = np.frombuffer(content)
    values = np.minimum(values, ceiling(values))
    known = np.isfinite(values)
    mean = float(values[known].mean()) if known.any() else 0.0
    if mean <= 0 or known.mean() < 0.5 or len(values) < 4 * CYCLES:
        return ()
    times = start + np.arange(len(values)).astype(np.float64) * step
    logs = np.log(np.where(known, values, mean) + OFFSET_RATIO * mean)
    rest = without_day(logs, known, max(1, round(DAY_SECONDS / step)))
    if float(np.abs(rest).max()) < 1e-6:  # a constant, or nothing but the day's waves: what is left is rounding
        return ()
    found: list[Phases] = []
    while len(found) < MOST:
        peaks = [peak for peak in candidates(rest, step) if not echoes(peak, found, len(rest), step)]
        best = next((one for peak in peaks[:TRIES] if (one := strongest(rest, known, times, step, peak, peaks))), None)
        if best is None:
            break
        within = [one for one in found if is_whole(best.period_seconds / one.period_seconds)]
        if within:  # quicker ones that were parts of it
            found = [one for one in found if not is_whole(best.period_seconds / one.period_seconds)]
            rest = np.where(known, rest + np.sum([one.at(times) for one in within], axis=0), 0.0)
            flat = np.where(known, rest - centred(rest, known, bins(best.period_seconds, step)), 0.0)
            best = Phases(best.period_seconds, profile(flat, known, times, best.period_seconds, step))
        found.append(best)
        rest = np.where(known, rest - best.at(times), 0.0)
    found.sort(key=lambda phases: -phases.period_seconds)
    return tuple(fitting(values, known, times, step, one) for one in found)


def fitting(values: Floats, known: Bools, times: Floats, step: float, found: Phases) -> Phases:
    """The phases as they were found, in logs, or as amounts where those are nearer to the demand."""
    level = centred(values, known, bins(found.period_seconds, step))
    amounts = Phases(
        found.period_seconds,
        profile(np.where(known, values - level, 0.0), known, times, found.period_seconds, step),
        adds=True,
    )
    rates = np.exp(found.at(times))
    rates /= max(float(rates[known].mean()), 1e-9)
    added = np.abs(values - np.maximum(level + amounts.at(times), 0.0))[known].sum()
    multiplied = np.abs(values - level * rates)[known].sum()
    return amounts if added < multiplied else found


def without(history: History, phases: Sequence[Phases], offset: float) -> History:
    """Demand as it would be if nothing depended on these phases; `offset` (demand per second) as logs have it."""
    if not phases:
        return history
    times, values = ends(history, np.arange(len(history.values))), history.values
    for one in phases:
        part = one.at(times)
        values = np.maximum(values - part if one.adds else (values + offset) / np.exp(part) - offset, 0.0)
    return History(history.start, history.step_seconds, values, history.censored)


def with_phases(paths: Floats, history: History, origins: Ints, phases: Sequence[Phases], offset: float) -> Floats:
    """The opposite, for paths (origins, steps)."""
    if not phases:
        return paths
    times = ends(history, origins[:, None] + np.arange(1, paths.shape[1] + 1))
    for one in reversed(phases):
        part = one.at(times)
        paths = np.maximum(paths + part if one.adds else (paths + offset) * np.exp(part) - offset, 0.0)
    return paths


def without_day(logs: Floats, known: Bools, day: int) -> Floats:
    """What is left of a mean level and the first harmonics of the day; 0 where unknown."""
    angles = 2 * np.pi / day * np.arange(1, DAY_WAVES + 1)[:, None] * np.arange(min(day, len(logs)))
    x = np.concatenate((np.ones((1, angles.shape[1])), np.cos(angles), np.sin(angles)))
    place = np.arange(len(logs)) % day
    mass = np.bincount(place, known, minlength=x.shape[1])
    total = np.bincount(place, np.where(known, logs, 0.0), minlength=x.shape[1])
    gram = (x * mass) @ x.T
    gram[np.diag_indices(len(x))] += 1e-6 * max(float(mass.sum()), 1.0)
    curve = np.linalg.solve(gram, x @ total) @ x
    rest: Floats = np.where(known, logs - curve[place], 0.0)
    return rest


def candidates(rest: Floats, step: float) -> list[float]:
    """Frequencies (per second) of peaks that stand out in the whole and in both halves, the highest first."""
    count = len(rest)
    total = count * step
    power = periodogram(rest)
    ratio = power / around(power)
    per_day = np.arange(len(power)) * DAY_SECONDS / total
    width = 2.5 * DAY_SECONDS / total  # of a peak, in harmonics of the day
    off_day = np.abs(per_day - np.round(per_day))
    slowest = max(DAY_SECONDS / LONGEST_SECONDS, CYCLES * DAY_SECONDS / total)
    peaks = (ratio > PEAK) & (per_day >= slowest) & ~((off_day < width) & (per_day < DAY_WAVES + 0.5))
    peaks[1:-1] &= (power[1:-1] >= power[:-2]) & (power[1:-1] >= power[2:])
    peaks[[0, -1]] = False
    if not peaks.any():
        return []
    halves = [periodogram(part) for part in (rest[: count // 2], rest[count - count // 2 :])]
    halves = [half / around(half) for half in halves]
    found = []
    for place in sorted(np.flatnonzero(peaks).tolist(), key=lambda place: -power[place]):
        if not all(half[place // 2 - 1 : place // 2 + 3].max() > HALF_PEAK for half in halves):
            continue
        if off_day[place] < width and not above_harmonics(power, place, DAY_SECONDS / total):
            continue
        left, top, right = np.log(np.maximum(power[place - 1 : place + 2], 1e-300)).tolist()
        found.append((place + 0.5 * (right - left) / max(2 * top - left - right, 1e-9)) / total)
    return found


def periodogram(rest: Floats) -> Floats:
    power: Floats = np.abs(np.fft.rfft((rest - rest.mean()) * np.hanning(len(rest)))) ** 2
    return power


def around(power: Floats) -> Floats:
    """The mean power of the frequencies around each one, from their median, so that peaks do not count."""
    size = min(2 * SPREAD, len(power))
    blocks = len(power) // size
    middle = np.median(power[: blocks * size].reshape(blocks, size), axis=1) / np.log(2)
    level: Floats = np.interp(np.arange(len(power)), (np.arange(blocks) + 0.5) * size, middle)
    return np.maximum(level, 1e-12 * max(float(power.max()), 1e-300))


def above_harmonics(power: Floats, place: int, per_bin: float) -> bool:
    """Whether a harmonic of the day is far above those before and after it: a sharp daily step has them all."""
    harmonic = round(place * per_bin)
    others = [k for k in range(harmonic - 8, harmonic + 9) if k not in (harmonic, 0)]
    places = [round(k / per_bin) for k in others]
    levels = [float(power[max(0, p - 1) : p + 2].max()) for p in places if 0 < p < len(power) - 1]
    return bool(levels) and float(power[place]) > HARMONIC_PEAK * float(np.median(levels))


def is_whole(ratio: float) -> bool:
    return round(ratio) > 1 and abs(ratio - round(ratio)) < 1e-6


def echoes(frequency: float, found: list[Phases], count: int, step: float) -> bool:
    # a harmonic beyond what the step can show comes back mirrored
    return any(echo(seen, one, count * step) for one in found for seen in (frequency, 1.0 / step - frequency))


def echo(frequency: float, found: Phases, total: float) -> bool:
    """Whether a peak is a harmonic of a period found, or one that swells and fades with the day or the week."""
    per_day, waves = DAY_SECONDS * frequency, DAY_SECONDS / found.period_seconds
    off = abs(per_day - waves * max(1, round(per_day / waves)))
    width = 2.5 * DAY_SECONDS / total
    return off < 2 / 7 + width or (off < 4.5 and abs(off - round(off)) < width)


def strongest(rest: Floats, known: Bools, times: Floats, step: float, peak: float, peaks: list[float]) -> Phases | None:
    """The period of a peak, or of the slower one whose harmonic it is; None when it does not foretell the halves."""
    score, best = steady(rest, known, times, step, peak)
    width = 2.0 / (len(rest) * step)
    slower = {
        part
        for other in peaks
        if (part := round(peak / other)) > 1 and abs(peak / part - other) < width  # the higher peak is the more exact
    }
    for part in sorted(slower)[:TRIES]:
        score, best = better((score, best), steady(rest, known, times, step, peak / part))
    # the slowest wave of a short job may be too weak for a peak
    for part in (2, 3) if score > FORETOLD else ():
        if part * best.period_seconds <= LONGEST_SECONDS:
            frequency = 1.0 / (part * best.period_seconds)
            score, best = better((score, best), steady(rest, known, times, step, frequency))
    return best if score > FORETOLD else None


def better(one: tuple[float, Phases], longer: tuple[float, Phases]) -> tuple[float, Phases]:
    """Several periods in a row foretell as well as one, so the longer has to foretell clearly more."""
    return longer if longer[0] > CLEARLY * max(one[0], 0.0) else one


def steady(rest: Floats, known: Bools, times: Floats, step: float, frequency: float) -> tuple[float, Phases]:
    """How much the best period near a peak foretells, and its phases; 0 where it is an echo of the day's profile."""
    total = len(rest) * step
    flat = np.where(known, rest - centred(rest, known, bins(1.0 / frequency, step)), 0.0)
    middle = 1.0 / frequency
    scores = {middle: foretold(flat, known, times, middle, step)}
    if scores[middle] < FORETOLD / 2:
        return 0.0, Phases(middle, np.zeros(1))
    # schedules are in whole minutes: such a period wins unless it does much worse
    slow, fast = 1.0 / (frequency - 0.3 / total), 1.0 / (frequency + 0.3 / total)
    minutes = [60.0 * whole for whole in range(int(np.ceil(fast / 60.0)), int(slow / 60.0) + 1)][:TRIES]
    for period in (*(1.0 / (frequency + shift / total) for shift in SHIFTS), *minutes):
        scores[period] = foretold(flat, known, times, period, step)
    best = max(scores, key=lambda period: scores[period] * (1.4 if period in minutes else 1.0))
    waves = DAY_SECONDS / best
    of_day = abs(waves - round(waves)) < DAY_SECONDS / total
    if of_day and scores[best] < OF_DAY * foretold(flat, known, times, DAY_SECONDS, step):
        return 0.0, Phases(best, np.zeros(1))
    return scores[best], Phases(best, profile(flat, known, times, best, step))


def centred(rest: Floats, known: Bools, size: int) -> Floats:
    """Mean over one period around each bin."""
    sums, seen = cumulative(np.where(known, rest, np.nan))
    mean, _ = window(sums, seen, np.arange(len(rest)), size, size // 2)
    return mean


def foretold(flat: Floats, known: Bools, times: Floats, period: float, step: float) -> float:
    """Share of a half's variance that the other half's phase profile explains: the smaller of both."""
    middle = len(flat) // 2
    folds = [
        folded(flat[part], known[part], times[part], period, step) for part in (slice(middle), slice(middle, None))
    ]
    shares = []
    for (sums, counts, _), (other_sums, other_counts, other_squares) in (folds, folds[::-1]):
        said = sums / np.maximum(counts, 1)
        error = other_squares - 2 * float(said @ other_sums) + float(said**2 @ other_counts)
        shares.append(1 - error / other_squares if other_squares > 0 and counts.sum() else 0.0)
    return min(shares)


def folded(flat: Floats, known: Bools, times: Floats, period: float, step: float) -> tuple[Floats, Ints, float]:
    """Sums and numbers of the known bins in each cell of the phase, and the sum of squares. `flat` is 0 elsewhere."""
    most = CELLS if period < DAY_SECONDS else round(DAY_SECONDS / step)
    cells = int(np.clip(round(period / step), 2, most))
    place = np.minimum((phase(times, period) * cells).astype(np.int64), cells - 1)
    sums: Floats = np.bincount(place, flat, minlength=cells).astype(np.float64)
    return sums, np.bincount(place, known, minlength=cells).astype(np.int64), float(flat @ flat)


def profile(flat: Floats, known: Bools, times: Floats, period: float, step: float) -> Floats:
    sums, counts, _ = folded(flat, known, times, period, step)
    means = sums / np.maximum(counts, 1)
    means -= float(means @ counts) / max(int(counts.sum()), 1)
    return means
