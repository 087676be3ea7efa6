"""`tidewise floors`: which floors are in force under people's own autoscalers, and give back those that are over.

For a CronJob or a person, where no scaler of ours is left to do it: a floor's object remembers the user's own minimum.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from controllers.actuators.interface import ActuatorError
from controllers.actuators.kubernetes import shared_api
from controllers.actuators.kubernetes_floor import has_expired, marked_scalers, tell_floor
from controllers.actuators.kubernetes_scalers import Scaler, floor_of, own_minimum
from controllers.config import Config, load
from controllers.domain import Mode
from controllers.kubernetes_api import Api, ApiError

SECONDS = 20.0  # for one namespace


@dataclass(frozen=True, slots=True)
class Where:
    """A namespace of a cluster; kubeconfig and context as in a target."""

    kubeconfig: Path | None
    context: str | None
    namespace: str


Places = Mapping[Where, bool]  # whether a floor may be put there now, so that not being allowed to look is a failure


def main(argv: list[str]) -> int:
    """0: done. 1: something could not be read or given back. Raises ConfigError."""
    parser = argparse.ArgumentParser(
        prog="tidewise floors",
        description="Lists the floors that were put under HPAs and ScaledObjects, in the namespaces of the "
        "configuration's Kubernetes targets or in those that are named.",
        epilog="Exit status: 0 done, 1 something could not be read or given back, 2 the configuration has mistakes.",
    )
    parser.add_argument("--config", type=Path, default=Path("tidewise.yaml"), help="default: %(default)s")
    parser.add_argument(
        "--namespace", action="append", metavar="NS", help="look here instead; no configuration is read"
    )
    parser.add_argument("--kubeconfig", type=Path, help="with --namespace; without it, the pod's own account")
    parser.add_argument("--context", help="of that kubeconfig")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--expire", action="store_true", help="give back the minimum where the floor's time is over")
    chosen.add_argument("--restore", action="store_true", help="give back the minimum everywhere, now")
    options = parser.parse_args(argv)
    if options.namespace:
        places: Places = {Where(options.kubeconfig, options.context, name): True for name in options.namespace}
    elif options.kubeconfig or options.context:
        parser.error("--kubeconfig and --context go with --namespace")
    else:
        places = namespaces(load(options.config))
    if not places:
        print(f"{options.config}: no workload has a Kubernetes target, so there are no floors")
        return 0
    return act(places, expire=options.expire, restore=options.restore)


def namespaces(config: Config) -> Places:
    """Where the configuration's Kubernetes targets live. A workload that does not act may have left a floor there."""
    found: dict[Where, bool] = {}
    for workload in config.workloads:
        acts = workload.mode is Mode.ACT and workload.target.several is None
        for target in workload.target.all_kubernetes:
            where = Where(target.kubeconfig, target.context, target.namespace)
            found[where] = found.get(where, False) or (acts and target.beside == "floor")
    return found


def act(places: Places, *, expire: bool, restore: bool) -> int:
    """Prints a line for each floor, and what became of it."""
    failed, count = False, 0
    for place, has_floors in places.items():
        api = shared_api(place.kubeconfig, place.context)
        until = time.monotonic() + SECONDS
        try:
            scalers = marked_scalers(api, place.namespace, until)
        except ApiError as error:
            if error.status == 403 and not has_floors:
                print(f"{place.namespace}: nothing puts a floor there, and it may not be looked at")
                continue
            print(f"{place.namespace}: {error}", file=sys.stderr)
            failed = True
            continue
        for scaler in scalers:
            count += 1
            over = has_expired(scaler, time.time())
            try:
                fate = _given_back(api, scaler, until) if restore or (expire and over) else ""
            except (ActuatorError, ApiError) as error:
                print(error, file=sys.stderr)
                failed = True
                fate = "; not given back"
            print(f"{_line(scaler, over)}{fate}")
    if count == 0 and not failed:
        print("no floors")
    return 1 if failed else 0


def _given_back(api: Api, scaler: Scaler, until: float) -> str:
    return f"; given back: minimum {tell_floor(api, scaler, None, time.time(), 0.0, until).minimum}"


def _line(scaler: Scaler, over: bool) -> str:
    name = f"{scaler.place.namespace}/{scaler.place.name} ({scaler.kind})"
    floor = floor_of(scaler)
    if floor is None:
        return f"{name}: somebody made its minimum {scaler.minimum} since; the floor is over"
    when = datetime.fromtimestamp(floor.until, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    own = own_minimum(scaler)
    return f"{name}: floor {floor.floor}, its own minimum is {own}, {'over since' if over else 'until'} {when}"
