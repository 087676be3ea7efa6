"""Replace by the scaler, the one writer of capacity: recovery asks, the scaler acknowledges durably, or refuses."""

from controllers.config.recovery import RecoveryTarget
from controllers.recovery.http import NeighbourError, Reply, exchange
from controllers.recovery.operation import Result
from controllers.recovery.remedies.interface import Ask, Outcome, Remedy


def replace_remedy(target: RecoveryTarget) -> Remedy | None:
    """The target's `replace:`."""
    settings = target.replace
    if settings is None:
        return None
    url = f"{settings.url.rstrip('/')}/replace"

    def apply(ask: Ask, seconds: float) -> Outcome | None:
        body = {
            "workload": ask.workload,
            "instance": ask.instance,
            "operation": ask.effect,
            "ttl_seconds": settings.ttl_seconds,
        }
        try:
            reply = exchange("POST", url, min(seconds, settings.timeout_seconds), body, settings.token_file)
        except NeighbourError as error:
            return None if error.may_have_arrived else Outcome(Result.UNREACHABLE, str(error))
        return _outcome(reply)

    def read_back(ask: Ask, seconds: float) -> Outcome | None:
        question = f"{url}?operation={ask.effect}"
        try:
            reply = exchange("GET", question, min(seconds, settings.timeout_seconds), None, settings.token_file)
        except NeighbourError:
            return None
        if reply.status == 404 and _said(reply) == "unknown operation":
            return Outcome(Result.UNREACHABLE, "the scaler never heard of it")
        return Outcome(Result.DONE, "acknowledged, as the scaler says") if reply.status == 200 else None

    return Remedy(apply, read_back, settings.timeout_seconds)


def _outcome(reply: Reply) -> Outcome | None:
    """A proxy's 502 or 504 says nothing about what happened behind it; the scaler's own 503 does."""
    if reply.status == 200:
        return Outcome(Result.DONE, "acknowledged by the scaler")
    if 400 <= reply.status < 500:
        return Outcome(Result.REFUSED, f"HTTP {reply.status}: {_said(reply)}")
    if reply.status == 503 and _said(reply):
        return Outcome(Result.UNREACHABLE, f"HTTP 503: {_said(reply)}")
    return None


def _said(reply: Reply) -> str:
    return str(reply.body.get("error", "")) if isinstance(reply.body, dict) else ""
