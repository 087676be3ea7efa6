"""A fake AWS that one can read: moto, and before it what moto leaves out.

It remembers client tokens, shows everything only after a lag, lets instances boot, be sick and drain, and fails as it
is told: refuses, does it and drops the answer, does not answer, or the asking process is killed after a call.
"""

import functools
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import boto3
from botocore.exceptions import ClientError, ReadTimeoutError

from controllers.actuators import Actuator
from controllers.actuators.aws import aws_actuator
from controllers.actuators.aws_account import Account
from controllers.config import AwsTarget

REGION = "eu-west-1"
SHOWN_LATE = ("run_instances", "terminate_instances", "create_tags")


class KilledError(Exception):
    """The process that asked was killed; the call was carried out."""


@dataclass
class Fault:
    """What becomes of the `nth` call (from 1) of `operation` from now on; `times` of them from there."""

    operation: str
    does: Callable[[Callable[[], Any]], Any]
    nth: int = 1
    times: int = 1
    when: Callable[[dict[str, Any]], bool] = lambda parameters: True


def refuses(code: str, headers: dict[str, str] | None = None, status: int = 400) -> Callable[..., Any]:
    def does(call: Callable[[], Any]) -> Any:
        meta = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
        raise ClientError({"Error": {"Code": code, "Message": "so it was told"}, "ResponseMetadata": meta}, "X")  # type: ignore[typeddict-item]

    return does


def drops_the_answer(call: Callable[[], Any]) -> Any:
    call()
    raise ReadTimeoutError(endpoint_url="http://127.0.0.1")


def answers_after(release: threading.Event) -> Callable[..., Any]:
    """Carried out and answered only once the test allows it."""

    def does(call: Callable[[], Any]) -> Any:
        release.wait(30)
        return call()

    return does


@functools.cache
def moto_client(service: str, url: str) -> Any:
    return boto3.client(service, endpoint_url=url, region_name=REGION)


@dataclass
class Cloud:
    """One account and region. `now`: its clock (Unix seconds), which only the test moves."""

    url: str
    now: float = field(default_factory=time.time)
    lag_seconds: float = 0.0
    boot_seconds: float = 0.0  # from registration until a target is healthy
    drain_seconds: float = 0.0
    sick: bool = False  # what boots from now on never becomes healthy
    forgets: bool = False  # ended instances are not found by their tags any more
    no_listener: bool = False  # no load balancer has the target groups
    kill_after: int | None = None  # so many more calls that change something, and the process is killed
    faults: list[Fault] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)
    born: dict[str, float] = field(default_factory=dict)
    registered: dict[tuple[str, str], float] = field(default_factory=dict)
    deregistered: dict[tuple[str, str], float] = field(default_factory=dict)
    sick_ones: set[str] = field(default_factory=set)
    shown: list[tuple[float, list[dict[str, Any]]]] = field(default_factory=lambda: [(0.0, [])])
    seen: Counter[int] = field(default_factory=Counter)

    def clock(self) -> float:
        return self.now

    def real(self, service: str) -> Any:
        """moto itself."""
        return moto_client(service, self.url)

    def account(self) -> Account:
        return Account(
            REGION, endpoint_url=self.url, clock=self.clock, make=lambda name: _Client(self, self.real(name))
        )

    def actuator(self, account: Account | None = None, **settings: Any) -> Actuator:
        """A new process that looks after the fleet."""
        target = AwsTarget.model_validate({"region": REGION, "endpoint_url": self.url, **settings})
        return aws_actuator(target, account or self.account(), self.clock)

    def count(self, operation: str) -> int:
        return sum(name == operation for name, _ in self.calls)

    def instances(self, *states: str) -> list[dict[str, Any]]:
        """What there really is."""
        pages = self.real("ec2").describe_instances()["Reservations"]
        found = [one for page in pages for one in page["Instances"]]
        return [one for one in found if one["State"]["Name"] in (states or ("pending", "running"))]

    def fails(self, operation: str, does: Callable[..., Any], **more: Any) -> Fault:
        fault = Fault(operation, does, **more)
        self.faults.append(fault)
        return fault


class _Client:
    """A boto3 client whose calls pass through the cloud's faults."""

    def __init__(self, cloud: Cloud, real: Any) -> None:
        self._cloud = cloud
        self._real = real

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(**parameters: Any) -> Any:
            cloud = self._cloud
            cloud.calls.append((operation, parameters))
            mine = type(self).__dict__.get(f"_{operation}")

            def do() -> Any:
                answer = mine(self, **parameters) if mine else getattr(self._real, operation)(**parameters)
                if cloud.lag_seconds and operation in SHOWN_LATE:
                    cloud.shown.append((cloud.now, self._all()))
                return answer

            for number, fault in enumerate(cloud.faults):
                if fault.operation == operation and fault.when(parameters):
                    cloud.seen[number] += 1
                    if fault.nth <= cloud.seen[number] < fault.nth + fault.times:
                        return fault.does(do)
            answer = do()
            if cloud.kill_after is not None and not operation.startswith("describe"):
                cloud.kill_after -= 1
                if cloud.kill_after < 0:
                    cloud.kill_after = None
                    raise KilledError(operation)
            return answer

        return call

    def _all(self, **parameters: Any) -> list[dict[str, Any]]:
        pages = self._real.describe_instances(**parameters)["Reservations"]
        found = [one for page in pages for one in page["Instances"]]
        if self._cloud.forgets:
            found = [one for one in found if one["State"]["Name"] != "terminated" or "InstanceIds" in parameters]
        for one in found:
            one["LaunchTime"] = datetime.fromtimestamp(self._cloud.born.get(one["InstanceId"], 0.0), UTC)
        return found

    def _run_instances(self, **parameters: Any) -> Any:
        token, cloud = parameters["ClientToken"], self._cloud
        if token in cloud.tokens:
            return {"Instances": self._all(InstanceIds=[cloud.tokens[token]])}
        answer = self._real.run_instances(**parameters)
        cloud.tokens[token] = new = answer["Instances"][0]["InstanceId"]
        cloud.born[new] = cloud.now
        if cloud.sick:
            cloud.sick_ones.add(new)
        return answer

    def _describe_instances(self, **parameters: Any) -> Any:
        if not self._cloud.lag_seconds:
            return {"Reservations": [{"Instances": self._all(**parameters)}]}
        old = [shown for at, shown in self._cloud.shown if at <= self._cloud.now - self._cloud.lag_seconds][-1]
        return {"Reservations": [{"Instances": old}]}

    def _register_targets(self, **parameters: Any) -> Any:
        for target in parameters["Targets"]:
            key = (parameters["TargetGroupArn"], target["Id"])
            self._cloud.registered.setdefault(key, self._cloud.now)
            self._cloud.deregistered.pop(key, None)
        return self._real.register_targets(**parameters)

    def _deregister_targets(self, **parameters: Any) -> Any:
        for target in parameters["Targets"]:
            key = (parameters["TargetGroupArn"], target["Id"])
            self._cloud.deregistered[key] = self._cloud.now
            self._cloud.registered.pop(key, None)
        return self._real.deregister_targets(**parameters)

    def _describe_target_health(self, **parameters: Any) -> Any:
        cloud, group = self._cloud, parameters["TargetGroupArn"]
        answer = self._real.describe_target_health(**parameters)
        for one in answer["TargetHealthDescriptions"]:
            since = cloud.registered.get((group, one["Target"]["Id"]), 0.0)
            booting = cloud.now - since < cloud.boot_seconds
            state = "unhealthy" if one["Target"]["Id"] in cloud.sick_ones else "initial" if booting else "healthy"
            one["TargetHealth"] = {"State": "unused" if cloud.no_listener else state}
        for (of, instance), at in cloud.deregistered.items():
            if of == group and cloud.now - at < cloud.drain_seconds:
                answer["TargetHealthDescriptions"].append(
                    {"Target": {"Id": instance}, "TargetHealth": {"State": "draining"}}
                )
        return answer
