"""Servers of an HAProxy backend: added, made ready, drained and removed while it runs, and kept in its configuration.

What is wanted stands in HAProxy's configuration file, what there is in HAProxy; nothing is remembered here, so that
each call goes on where an earlier one, of this process or another, ended. `haproxy_plan` says what to do next.
"""

import time
from collections.abc import Mapping

import structlog

from controllers.actuators import haproxy_file
from controllers.actuators.haproxy_plan import (
    Block,
    Plan,
    Preference,
    Situation,
    Slot,
    Step,
    Verb,
    available,
    conflict,
    counted,
    given_up,
    others,
    plan,
    resting,
    slot_of,
    without,
)
from controllers.actuators.haproxy_socket import BusyError, Runtime, refuse_reading
from controllers.actuators.interface import Actuator, ActuatorError, NoCapacityError, PermanentError
from controllers.actuators.program import run_program
from controllers.config.haproxy import HaproxyTarget
from controllers.domain import Replicas

PATIENCE_SECONDS = 1.0  # for checks to pass within one call; the next one goes on with what is left
POLL_SECONDS = 0.1

log = structlog.get_logger()


def haproxy_actuator(target: HaproxyTarget) -> Actuator:
    """The actuator for `target.haproxy`."""
    backend = Backend(target)
    return Actuator(backend.read_replicas, backend.apply)


def try_rights(target: HaproxyTarget, seconds: float) -> None:
    """Whether servers may be changed and the file be written, by changing nothing. Raises ActuatorError."""
    command = f"set server {target.backend}/{target.prefix}none state ready"
    answer = Runtime(target.socket, target.backend).ask(command, time.monotonic() + seconds)
    refuse_reading(answer, command, target.socket, target.backend)
    with haproxy_file.held(target.file):
        pass


class Backend:
    """One backend and the servers it may have. It keeps nothing between two calls."""

    def __init__(self, target: HaproxyTarget) -> None:
        self._target = target
        self._runtime = Runtime(target.socket, target.backend)
        self._pool = tuple(slot_of(target.prefix, host, port) for host, port in target.addresses)

    def read_replicas(self, seconds: float) -> Replicas:
        """Servers of ours; those of the user's own in the same backend are not counted. Raises ActuatorError."""
        wanted, ready, draining, unfinished = counted(self._observe(self._until(seconds)))
        return Replicas(wanted, ready, draining=draining, unfinished=unfinished)

    def apply(
        self,
        replicas: int,
        seconds: float,
        victims: tuple[str, ...] = (),
        in_hand: Mapping[str, float] | None = None,
    ) -> None:
        """Goes as far towards `replicas` servers as can be gone now. Raises ActuatorError."""
        until = self._until(seconds)
        with haproxy_file.held(self._target.file):
            problems = self._work(replicas, until, Preference(victims, in_hand))
            now = self._observe(until)
        told = len(now.block.wanted())
        if told < replicas and not available(now):
            raise NoCapacityError(self._no_more(now, replicas, told, problems), told)
        if problems:
            raise ActuatorError("; ".join(problems))
        if told != replicas:
            raise ActuatorError(
                f"backend {self._target.backend}: {told} of {replicas} servers are written down; the next call goes on"
            )

    def _until(self, seconds: float) -> float:
        return time.monotonic() + min(seconds, self._target.timeout_seconds)

    def _observe(self, until: float) -> Situation:
        """Raises ActuatorError; PermanentError where a server of somebody else's has the name of one of ours."""
        target = self._target
        text = haproxy_file.read(target.file)
        now = Situation(
            block=haproxy_file.parsed(text, target.backend, target.prefix, str(target.file)),
            seen=self._runtime.seen(until),
            pool=self._pool,
            prefix=target.prefix,
            now=time.time(),
            uptime_seconds=self._runtime.uptime_seconds(until),
            ready_seconds=target.ready_seconds,
            drain_seconds=target.drain_seconds,
        )
        clash = conflict(now)
        if clash is not None:
            ours, theirs = clash
            raise PermanentError(
                f"{target.socket}: backend {target.backend} has a server {theirs.name} at {theirs.address}, not at "
                f"{ours.address}: somebody else's; rename it, or choose another `prefix`"
            )
        return now

    def _work(self, replicas: int, until: float, prefer: Preference) -> list[str]:
        """Plans and carries out until nothing is left to do now. Returns what went wrong with single servers."""
        problems: list[str] = []
        began = time.monotonic()
        half, late = (began + until) / 2, until - 0.15 * (until - began)
        patience = min(began + PATIENCE_SECONDS, half)
        wanted: int | None = replicas
        before: tuple[Step, ...] = ()
        while True:
            now = self._observe(until)
            if time.monotonic() > late:
                return problems
            planned = plan(now, wanted, prefer)
            problems += [self._never_healthy(now, slot) for slot in planned.failed]
            if planned.steps and planned.steps != before:
                problems += self._carry_out(now, planned, until, half)
                before = planned.steps
                # what failed is not tried again in this call, nor another server: the next decision may want it
                wanted = None if problems else wanted
            elif problems or time.monotonic() > patience or not (planned.steps or planned.starting):
                return problems
            else:
                time.sleep(POLL_SECONDS)
                before = ()

    def _carry_out(self, now: Situation, planned: Plan, until: float, half: float) -> list[str]:
        """Does the steps in order. A program that fails is its own server's problem, and said at the end.

        In the second half of its time no program is begun: it would be stopped in the middle.
        """
        block, problems = now.block, list[str]()
        left_out: set[Slot] = set()
        for step in planned.steps:
            late = step.verb in (Verb.START, Verb.STOP) and time.monotonic() > half
            if step.slot is not None and (late or step.slot in left_out):
                left_out.add(step.slot)
                continue
            try:
                block = self._do(step, block, until)
            except _ProgramError as error:
                problems.append(str(error))
                if step.slot is not None:
                    left_out.add(step.slot)
                    if step.verb is Verb.START:
                        block = self._write(given_up(block, step.slot, time.time()))
            except BusyError as error:
                log.info("haproxy_server_busy", problem=str(error))
        return problems

    def _do(self, step: Step, block: Block, until: float) -> Block:
        """One effect; the block as it is written afterwards. Raises ActuatorError."""
        if step.verb is Verb.WRITE and step.block is not None:
            return self._write(step.block)
        slot = step.slot
        if slot is None:
            raise TypeError(f"{step.verb} needs a server")
        log.info("haproxy_step", backend=self._target.backend, server=slot.name, step=step.verb.value)
        if step.verb is Verb.START:
            self._program(self._target.start, slot, until)
        elif step.verb is Verb.STOP:
            self._program(self._target.stop, slot, until)
            return self._write(without(block, slot))
        else:
            self._runtime.tell(self._command(step.verb, slot), until)
        return block

    def _command(self, verb: Verb, slot: Slot) -> str:
        server = f"{self._target.backend}/{slot.name}"
        match verb:
            case Verb.ADD:
                return f"add server {server} {slot.address} {self._target.options}"
            case Verb.DRAIN | Verb.READY | Verb.MAINTENANCE:
                return f"set server {server} state {verb.value}"
            case Verb.END_SESSIONS:
                return f"shutdown sessions server {server}"
            case _:
                return f"{verb.value} {server}"

    def _program(self, argv: list[str] | None, slot: Slot, until: float) -> None:
        if argv is None:
            return
        words = {"{name}": slot.name, "{address}": slot.address, "{host}": slot.host, "{port}": str(slot.port)}
        try:
            # some of the time is left for saying in HAProxy and in the file what came of it
            run_program([_filled(argument, words) for argument in argv], 0.7 * max(0.1, until - time.monotonic()))
        except ActuatorError as error:
            raise _ProgramError(str(error)) from None

    def _write(self, block: Block) -> Block:
        target = self._target
        text = haproxy_file.read(target.file)
        fresh = haproxy_file.rendered(text, block, target.backend, target.options, str(target.file))
        if fresh != text:
            haproxy_file.write(target.file, fresh)
        return block

    def _never_healthy(self, now: Situation, slot: Slot) -> str:
        seen = now.seen.get(slot.name)
        check = seen.check if seen and seen.check else "none has ended"
        return (
            f"backend {self._target.backend}: {slot.name} was not healthy within {self._target.ready_seconds:g} s "
            f"(last check: {check}); it is taken out again: look at what listens on {slot.address}"
        )

    def _no_more(self, now: Situation, replicas: int, told: int, problems: list[str]) -> str:
        """Why there are no more servers to be had."""
        rest = resting(now)
        leaving, taken = len(now.block.entries) - told, others(now)
        why = [
            *([f"{leaving} still leave"] if leaving else []),
            *([f"{', '.join(sorted(rest))} failed to start {next(iter(rest.values())).count} times"] if rest else []),
            *(
                f"{slot.address} is also {taken[slot.address]}, a server of your own"
                for slot in self._pool
                if slot.address in taken
            ),
            *problems,
        ]
        return (
            f"backend {self._target.backend}: {told} of {replicas} servers, of {len(self._pool)} in `servers`"
            f"{': ' if why else ''}{'; '.join(why)}; add some to `servers`, or lower replicas.max"
        )


class _ProgramError(ActuatorError):
    """`start` or `stop` of one server failed; the others go on."""


def _filled(argument: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        argument = argument.replace(word, value)
    return argument
