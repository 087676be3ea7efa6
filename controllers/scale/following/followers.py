"""Whoever follows a published number: the board they read, and the doors they come to, as configured."""

from dataclasses import dataclass, field
from typing import Protocol

from controllers.actuators.interface import Actuator
from controllers.actuators.publish import Board, publish_actuator
from controllers.config import Config, Workload
from controllers.scale.following import external_metrics
from controllers.scale.following.answers import Numbers, numbers
from controllers.sources.prometheus import Source
from exporters.runtime.config import ConfigError

FEWEST_DECISIONS = 2  # that may be missed before a number no longer counts


class Door(Protocol):
    """Something that listens."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


@dataclass
class Followers:
    """`start()` before the first step, `stop()` after the last."""

    board: Board = field(default_factory=Board)
    doors: tuple[Door, ...] = ()

    def start(self) -> None:
        """All or none: raises EndpointError, ConfigError."""
        try:
            for door in self.doors:
                door.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        for door in self.doors:
            door.stop()

    def actuator(self, workload: Workload, source: Source) -> Actuator:
        """Of a workload whose target is `publish`."""
        assert workload.target.publish is not None  # noqa: S101 - for the type checker: the caller has looked
        return publish_actuator(workload.target.publish, workload.identity, source, self.board)


def followers(config: Config) -> Followers:
    """Nothing listens yet. Raises ConfigError for what cannot be."""
    found = Followers()
    known = numbers(found.board, config.workloads)
    _refuse(config, known)
    doors: list[Door] = []
    if config.scale.external_metrics is not None:
        doors.append(external_metrics.endpoint(config.scale.external_metrics, known))
    if config.scale.external_scaler is not None:
        try:
            from controllers.scale.following.external_scaler import Server
        except ImportError:
            raise ConfigError(["scale.external_scaler: needs gRPC; install tidewise[grpc]"]) from None
        doors.append(Server(config.scale.external_scaler, known))
    found.doors = tuple(doors)
    return found


def _refuse(config: Config, known: Numbers) -> None:
    problems = [
        f"{workload.identity}: target.publish.valid_seconds: found {workload.target.publish.valid_seconds:g}, but a "
        f"decision comes every {config.scale.interval_seconds:g} s and one may be late; write at least "
        f"{FEWEST_DECISIONS * config.scale.interval_seconds:g}"
        for workload in config.workloads
        if workload.target.publish is not None
        and workload.target.publish.valid_seconds < FEWEST_DECISIONS * config.scale.interval_seconds
    ]
    if not known.modes:
        problems += [
            f"scale.{key}: nobody can follow anything there, for no workload has the target 'publish'; give one that "
            "target, or take this out"
            for key in ("external_metrics", "external_scaler")
            if getattr(config.scale, key) is not None
        ]
    if problems:
        raise ConfigError(problems)
