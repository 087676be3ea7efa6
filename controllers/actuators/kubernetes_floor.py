"""Writes floors: one field of an HPA or ScaledObject, only where nobody changed it since it was read."""

import time

from controllers.actuators.interface import ActuatorError, NoCapacityError
from controllers.actuators.kubernetes_scalers import FLOOR, Scaler, all_scalers, change, floor_of, is_marked, parsed
from controllers.kubernetes_api import Api, ApiError, Json

ATTEMPTS = 5  # its status changes with every step of the autoscaler, and its version each time
WRITE_SHARE = 0.6  # of the deadline; the rest is for reading back what became of it


def read_scaler(api: Api, scaler: Scaler, until: float) -> Scaler:
    """As it is now. Raises ApiError; 404 where it is gone."""
    return parsed(scaler.kind, scaler.place.namespace, api.read(scaler.place, until))


def tell_floor(api: Api, seen: Scaler, replicas: int | None, now: float, seconds: float, until: float) -> Scaler:
    """The scaler after its floor is `replicas` for `seconds` from `now`; None gives the floor up.

    Raises NoCapacityError where its maximum is less (which is then its floor), ActuatorError where somebody else
    changed its minimum meanwhile, ApiError.
    """
    scaler = _told(api, seen, replicas, now, seconds, until)
    if replicas is not None and replicas > scaler.maximum:
        raise NoCapacityError(
            f"{scaler.place}: {replicas} were decided and its own maximum is {scaler.maximum}; raise that, or lower "
            "this workload's replicas.max",
            told=scaler.maximum,
        )
    return scaler


def _told(api: Api, seen: Scaler, replicas: int | None, now: float, seconds: float, until: float) -> Scaler:
    for attempt in range(1, ATTEMPTS + 1):
        patch = change(seen, replicas, now, seconds)
        if patch is None:
            return seen
        try:
            return _written(api, seen, patch, until)
        except ApiError as error:
            if error.status != 409 or attempt == ATTEMPTS:
                raise
        found = read_scaler(api, seen, until)
        _refuse_another(seen, found)
        if (found.stated, found.annotations.get(FLOOR)) != (seen.stated, seen.annotations.get(FLOOR)):
            raise ActuatorError(
                f"{seen.place}: somebody else made its minimum {found.minimum} instead of {seen.minimum} meanwhile; "
                "left alone, the next decision starts from there"
            )
        seen = found
    raise AssertionError("unreachable")


def _written(api: Api, seen: Scaler, patch: Json, until: float) -> Scaler:
    """Tells the floor; where the answer does not come or says nothing, reads back what became of it."""
    expected = patch.get("spec", {}).get(seen.field, seen.stated)
    now = time.monotonic()
    try:
        body = api.patch(seen.place, patch, now + (until - now) * WRITE_SHARE)
        found = parsed(seen.kind, seen.place.namespace, body)
    except ApiError as error:
        if not error.maybe_done:
            raise
        found = read_scaler(api, seen, until)
        _refuse_another(seen, found)
        if is_marked(found) != (patch["metadata"]["annotations"][FLOOR] is not None) or found.stated != expected:
            raise ActuatorError(f"{error}; read back: its minimum still is {found.minimum}") from None
    if expected is not None and found.stated != expected:
        raise ActuatorError(
            f"{seen.place}: its minimum was told {expected} and is {found.minimum}; does an admission webhook bound it?"
        )
    return found


def _refuse_another(seen: Scaler, found: Scaler) -> None:
    if found.uid != seen.uid:
        raise ActuatorError(
            f"{seen.place}: was deleted and created anew meanwhile; "
            "left alone, the next decision is made for the new one"
        )


def marked_scalers(api: Api, namespace: str, until: float) -> list[Scaler]:
    """Those of a namespace that have a floor of ours, or what is left of one. Raises ApiError."""
    return [scaler for scaler in all_scalers(api, namespace, until) if is_marked(scaler)]


def has_expired(scaler: Scaler, now: float) -> bool:
    """Whether its floor is over: its time has passed, or somebody set another minimum."""
    floor = floor_of(scaler)
    return floor is None or floor.until <= now
