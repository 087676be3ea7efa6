"""`tidewise scale`: observe, decide, apply, once every interval, for every workload of the configuration."""

import argparse
import gc
from pathlib import Path

from controllers.actuators import ACTUATORS, Actuator
from controllers.actuators.shadow import in_shadow
from controllers.budget.client import Client
from controllers.config import Config, ConfigError, Workload, load
from controllers.domain import Mode
from controllers.leases import Leader
from controllers.loop import Controller, run
from controllers.scale import override_routes
from controllers.scale.configured import rules_of
from controllers.scale.following.followers import Followers, followers
from controllers.scale.overrides import OverrideError, Overrides
from controllers.scale.purse import Purse
from controllers.scale.replacements import ReplacementError, Replacements, routes
from controllers.scale.scaler import Scaler
from controllers.sources.prometheus import Source
from exporters.runtime import bearer
from exporters.runtime.endpoint import Request, Response, json_response

__all__ = ["Scaler", "actuator_of", "build", "main", "purse_of", "rules_of"]

CLOSE_SECONDS = 5.0  # in all, for giving up floors at an orderly end


def main(argv: list[str]) -> int:
    """`tidewise scale`. Raises ConfigError, EndpointError."""
    parser = argparse.ArgumentParser(
        prog="tidewise scale",
        description="Decides the replicas of every workload, and sets them where its mode is 'act'.",
        epilog="A workload without 'mode' is in shadow: decided and published on /metrics, never touched. "
        "`tidewise why WORKLOAD` explains the last decision.",
    )
    parser.add_argument("--config", type=Path, default=Path("tidewise.yaml"), help="default: %(default)s")
    config = load(parser.parse_args(argv).config)
    collect_seldom()
    return run(build(config, Source(config.prometheus)))


def collect_seldom() -> None:
    """A step makes some hundred objects a workload and keeps few: looking for cycles among them took a third of it."""
    gc.set_threshold(100_000, 20, 20)


def build(config: Config, source: Source) -> Controller:
    """The controller for the loop. Raises ConfigError for what the files hold, EndpointError."""
    deadline_seconds = max(20.0, 2 * config.scale.interval_seconds)
    try:
        book = Replacements(config.scale.replacements)
        overrides = Overrides(config.scale.overrides)
    except (ReplacementError, OverrideError) as error:
        raise ConfigError([str(error)]) from None
    leader = Leader(config.scale.lease, silence_seconds=3 * deadline_seconds) if config.scale.lease else None
    purse = purse_of(config)
    following = followers(config)
    if leader is not None:
        following.board.only_while(leader.may_act)
    actuators = {w.identity: actuator_of(w, source, following) for w in config.workloads}
    scaler = Scaler(config, source, actuators, purse, book, leader, overrides)

    def refused(request: Request) -> Response | None:
        answer = bearer.refused(request, config.scale.token_file, "scale.token_file")
        if answer is None and not scaler.may_act():
            return json_response({"error": "another replica of the scaler acts; ask that one"}, 503)
        return answer

    def close() -> None:
        scaler.release(CLOSE_SECONDS)
        following.stop()
        if leader is not None:
            leader.stop()
        if purse is not None:
            purse.close()

    following.start()
    if leader is not None:
        leader.start()
    return Controller(
        name="scale",
        interval_seconds=config.scale.interval_seconds,
        listen=config.scale.listen,
        step=scaler.step,
        collectors=[scaler.published, following.board],
        routes={
            **routes(book, {w.identity: w.mode is Mode.ACT for w in config.workloads}, refused),
            **override_routes.routes(
                overrides,
                {w.identity: override_routes.Steered(w.mode, w.replicas.max) for w in config.workloads},
                scaler.published.needed,
                refused,
            ),
        },
        landing=scaler.published.landing,
        close=close,
        deadline_seconds=deadline_seconds,
    )


def purse_of(config: Config) -> Purse | None:
    """The way to the ledger; None where nothing has a price, or there is no budget that it counts against."""
    budget = config.budget
    if budget is None or not any(w.price for w in config.workloads):
        return None
    hold = budget.replica_hold
    grace_seconds = hold.ttl_seconds + hold.grace_seconds  # so long is what was held last paid for
    return Purse(Client(budget.url, budget.token_file), hold.ttl_seconds, grace_seconds)


def actuator_of(workload: Workload, source: Source, following: Followers) -> Actuator:
    """The workload's actuator; one that touches nothing unless its mode is `act`."""
    kind = workload.target.kind
    if workload.target.publish is not None:
        actuator = following.actuator(workload, source)
    else:
        actuator = ACTUATORS[kind](getattr(workload.target, kind))
    return actuator if workload.mode is Mode.ACT else in_shadow(actuator)
