"""What `tidewise check` finds out about targets that are published, in Docker or behind HAProxy: what is there, and
whether a busy container or server is given the time to finish."""

from collections.abc import Callable, Mapping

from controllers.actuators import haproxy_file
from controllers.actuators.docker import docker_actuator, grace_seconds
from controllers.actuators.haproxy import haproxy_actuator, try_rights
from controllers.actuators.interface import Actuator, ActuatorError
from controllers.actuators.publish import Board, publish_actuator
from controllers.config import Config, DockerTarget, Target, Workload
from controllers.config.haproxy import HaproxyTarget
from controllers.domain import Mode
from controllers.sources.prometheus import Source

SECONDS = 10.0  # for one workload
LONGEST = 3.0  # times the mean: 95 % of what takes an exponential time is done by then


def report(config: Config, source: Source, learned: Mapping[str, float]) -> tuple[list[str], bool]:
    """The lines to be said, and whether an acting workload cannot be scaled.

    `learned`: seconds that one piece of work takes, by workload.
    """
    lines: list[str] = []
    missing = False
    for workload, of, target, actuator in _looked_at(config, source):
        try:
            found = actuator.read_replicas(SECONDS)
            if target.haproxy is not None:
                try_rights(target.haproxy, SECONDS)
        except ActuatorError as error:
            acts = workload.mode is Mode.ACT
            missing = missing or acts
            lines.append(f"{'error' if acts else 'warning'}: {workload.identity}: {of}{error}")
            continue
        kind = "published" if target.publish is not None else target.kind
        lines.append(f"{workload.identity}: {of}{kind}: {found.ready} of {found.wanted} replicas work")
        seconds = learned.get(workload.identity, workload.capacity.service_seconds)
        if target.docker is not None and seconds is not None:
            lines += _too_short(workload, target.docker, seconds, grace_seconds)
        if target.haproxy is not None and seconds is not None:
            lines += _cut_off(workload, target.haproxy, seconds)
        if target.haproxy is not None:
            lines += _changed_by_a_reload(workload, target.haproxy)
    return lines, missing


def _looked_at(config: Config, source: Source) -> list[tuple[Workload, str, Target, Actuator]]:
    """Each target; of several each one, with its name."""
    looked: list[tuple[Workload, str, Target, Actuator]] = []
    for workload in config.workloads:
        parts = [(f"{part.name}, ", part.target) for part in workload.target.several or []]
        for of, target in [("", workload.target), *parts]:
            if target.publish is not None:
                actuator = publish_actuator(target.publish, workload.identity, source, Board())
                looked.append((workload, of, target, actuator))
            elif target.docker is not None:
                looked.append((workload, of, target, docker_actuator(target.docker)))
            elif target.haproxy is not None:
                looked.append((workload, of, target, haproxy_actuator(target.haproxy)))
    return looked


def _too_short(
    workload: Workload, target: DockerTarget, seconds: float, ask: Callable[[DockerTarget, float], float]
) -> list[str]:
    """The warning that a busy container is killed before its work is done; nothing where there is time enough."""
    try:
        grace = ask(target, SECONDS)
    except ActuatorError as error:
        return [f"warning: {workload.identity}: {error}"]
    if grace >= LONGEST * seconds:
        return []
    said = (
        f"warning: {workload.identity}: a container that is told to end is killed after {grace:g} s, and one piece of "
        f"work takes {seconds:g} s in the mean and {LONGEST * seconds:g} s now and then; raise stop_grace_period of "
        f"{target.service}, or target.docker.stop_seconds"
    )
    return [said]


def _cut_off(workload: Workload, target: HaproxyTarget, seconds: float) -> list[str]:
    """The warning that a server is stopped before its last requests are answered; nothing where there is time."""
    if target.drain_seconds >= LONGEST * seconds:
        return []
    said = (
        f"warning: {workload.identity}: what a server has in hand {target.drain_seconds:g} s after its drain began is "
        f"cut off, and one request takes {seconds:g} s in the mean and {LONGEST * seconds:g} s now and then; raise "
        "target.haproxy.drain_seconds"
    )
    return [said]


def _changed_by_a_reload(workload: Workload, target: HaproxyTarget) -> list[str]:
    """The warning that servers get other options with a reload than they were added with; nothing where they do not."""
    numbers = haproxy_file.default_servers(haproxy_file.read(target.file), target.backend)
    if not numbers:
        return []
    said = (
        f"warning: {workload.identity}: {target.file}: line {numbers[0]}: HAProxy applies default-server at a reload, "
        "and not to servers that are added while it runs; write the same into target.haproxy.options"
    )
    return [said]
