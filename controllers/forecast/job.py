"""One fit as something that travels: to another process or machine as bytes, and back with what it cost."""

import hashlib
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from controllers.forecast.almanac import Calendar
from controllers.forecast.backtest import CLOSE, Effort
from controllers.forecast.history import History
from controllers.forecast.models import MODELS
from controllers.forecast.models.ensemble import Mixture
from controllers.forecast.selection import Fitted, select


@dataclass(frozen=True, slots=True)
class Job:
    """One workload to be fitted; its history ends now and has at least one known sample. The rest: see `select`."""

    history: History
    calendar: Calendar
    horizons_seconds: tuple[int, ...]
    hours: History | None = None
    window: tuple[float, float] | None = None
    heavy: bool = True
    before: Fitted | None = None
    effort: Effort = CLOSE


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a workload was not fitted. `kind` becomes a label."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """How a job ended, and the CPU seconds it took where it was done."""

    result: Fitted | Failure
    cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Packed:
    """A job as bytes. Not bare bytes: joblib would lay those out on one Dask worker, and they would die with it."""

    payload: bytes


def fit(job: Job) -> Fitted:
    fitted = select(
        job.history,
        job.calendar,
        job.horizons_seconds,
        hours=job.hours,
        window=job.window,
        heavy=job.heavy,
        before=job.before,
        effort=job.effort,
        counter=cpu_clock(),
    )
    return fitted if job.effort == CLOSE else without_idle(fitted)


def without_idle(fitted: Fitted) -> Fitted:
    """Heavy models that have no part in the forecast are dropped: a forest has a megabyte, and a fleet thousands.

    They are fitted anew when it is their turn; until then they are not tried.
    """
    members = fitted.learned.learned if isinstance(fitted.learned, Mixture) else {}
    used = {name: part for name, part in fitted.parts.items() if not MODELS[name].heavy or name in members}
    if fitted.model in fitted.parts:
        used[fitted.model] = fitted.parts[fitted.model]
    return replace(fitted, parts=used)


def cpu_clock() -> Callable[[], float]:
    """CPU seconds of this work alone: beside a Dask worker's main thread other threads fit as well."""
    return time.process_time if threading.current_thread() is threading.main_thread() else time.thread_time


def packed(job: Job) -> Packed:
    return Packed(pickle.dumps(job, pickle.HIGHEST_PROTOCOL))


def done(packed: Packed, fit: Callable[[Job], Fitted]) -> bytes:
    """Does the job and packs how it ended: unpacked only by whoever uses it."""
    clock = cpu_clock()
    began = clock()
    try:
        result: Fitted | Failure = fit(pickle.loads(packed.payload))  # noqa: S301 - our own process made it
    except Exception as error:  # the last resort: one workload's fit may not cost the others theirs
        result = Failure(type(error).__name__, str(error))
    return pickle.dumps(Done(result, clock() - began), pickle.HIGHEST_PROTOCOL)


def edition() -> str:
    """Which Tidewise this is: its version and its forecaster's sources. Machines that fit together agree on it."""
    try:
        number = version("tidewise")
    except PackageNotFoundError:  # run from a checkout
        number = "unknown"
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return f"{number} ({digest.hexdigest()[:12]})"
