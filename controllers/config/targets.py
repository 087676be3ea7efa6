"""Where replicas live: one section a kind of target. A new kind is one class and one line in `Target`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from controllers.config.aws import AwsTarget
from controllers.config.docker import DockerTarget
from controllers.config.haproxy import HaproxyTarget
from controllers.config.publish import PublishTarget
from controllers.config.values import Count, MoneyText, Name, Number, Text, distinct
from exporters.runtime.config import Section


class CommandTarget(Section):
    """Replicas asked for and set by programs of the user's own; argv lists, never a shell.

    `get` prints either a number or JSON: {"replicas": wanted, "ready": working, "draining": told to end and still
    there}. One of the arguments of `set` holds `{replicas}`; `set` is told an absolute number and may be told the same
    number again. An argument with `{victims}` gets the instances, joined by commas, that a smaller number takes first;
    one with `{idle}` those of `in_hand`, from the idlest on (empty where that is not known, or the number grows).
    """

    get: Annotated[list[str], Field(min_length=1)]
    set: Annotated[list[str], Field(min_length=1)]
    timeout_seconds: Annotated[Number, Field(gt=0, le=300)] = 10.0

    @model_validator(mode="after")
    def _has_placeholder(self) -> Self:
        if not any("{replicas}" in argument for argument in self.set):
            raise ValueError(f"set: found {self.set!r}; one argument must hold {{replicas}}")
        return self


class Cluster(Section):
    """Which Kubernetes: that of a kubeconfig file, or, without one, that of the pod this runs in."""

    kubeconfig: Path | None = None
    context: Text | None = None  # of the kubeconfig; None: its current one

    @model_validator(mode="after")
    def _context_has_file(self) -> Self:
        if self.context is not None and self.kubeconfig is None:
            raise ValueError("found context without kubeconfig; name the file that has it")
        return self


ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]


class KubernetesObject(Section):
    """Any object whose kind has a scale subresource, such as an Argo Rollout."""

    kind: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]*$")]
    name: ObjectName
    api_version: Annotated[str, Field(pattern=r"^([a-z0-9.-]+/)?v[a-z0-9]+$")]


class KubernetesTarget(Cluster):
    """Replicas of a Kubernetes object: exactly one of a Deployment, a StatefulSet, or another kind that can scale.

    `beside`: what is done where an HPA or a KEDA ScaledObject scales the object as well: raise its minimum, which
    expires after `floor_seconds` unless it is told again, or refuse.
    """

    namespace: Name = "default"
    deployment: ObjectName | None = None
    statefulset: ObjectName | None = None
    generic: KubernetesObject | None = None
    timeout_seconds: Annotated[Number, Field(gt=0, le=60)] = 10.0  # for reading, and again for setting
    beside: Literal["floor", "refuse"] = "floor"
    floor_seconds: Annotated[Number, Field(ge=60, le=86400)] = 600.0

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in ("deployment", "statefulset", "generic") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"found {' and '.join(given) or 'none'} of deployment, statefulset, generic; give exactly one"
            )
        return self


class Lease(Cluster):
    """The Kubernetes Lease by which several replicas of one controller agree who acts.

    A leader that is gone is followed after `duration_seconds`; it stops acting by itself after two thirds of them.
    """

    name: ObjectName
    namespace: Name = "default"
    duration_seconds: Annotated[Count, Field(ge=3, le=600)] = 15


class PartTarget(Section):
    """One of several places for the same work, with bounds of its own. `price`: what a replica costs there an hour."""

    name: Name
    min: Annotated[Count, Field(ge=0)] = 0
    max: Annotated[Count, Field(ge=1)]
    price: MoneyText | None = None
    target: "Target"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise ValueError(f"found min {self.min} and max {self.max}; max must be at least min")
        if self.target.several is not None:
            raise ValueError("target.several: found several within several; write all of them in one list")
        if self.target.publish is not None:
            raise ValueError("target.publish: found it within several; who follows a number follows that of a workload")
        return self


def _comparable(parts: list[PartTarget]) -> list[PartTarget]:
    distinct([part.name for part in parts])
    priced = [part.price for part in parts if part.price is not None]
    if priced and len(priced) < len(parts):
        without = next(part.name for part in parts if part.price is None)
        raise ValueError(f"'{without}' has no price and others have; write all prices, or none: then the order counts")
    for price in priced:
        if price.currency != priced[0].currency:
            raise ValueError(f"found {priced[0]} and {price}; write all in one currency")
    return parts


class Target(Section):
    """Where the replicas live: exactly one of the actuators.

    `several`: more than one place for the same work, such as spot and on-demand, or one's own and a cloud to overflow
    to. The cheapest is filled first (without prices: the first of the list), and the dearest emptied first.
    """

    command: CommandTarget | None = None
    kubernetes: KubernetesTarget | None = None
    aws: AwsTarget | None = None
    docker: DockerTarget | None = None
    haproxy: HaproxyTarget | None = None
    publish: PublishTarget | None = None
    several: Annotated[list[PartTarget], Field(min_length=2, max_length=16), AfterValidator(_comparable)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in type(self).model_fields if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"found {' and '.join(given) or 'none'} of {', '.join(type(self).model_fields)}; give exactly one"
            )
        return self

    @property
    def kind(self) -> str:
        return next(key for key in type(self).model_fields if getattr(self, key) is not None)

    @property
    def all_kubernetes(self) -> list[KubernetesTarget]:
        """The Kubernetes objects that it tells, be they one of several."""
        targets = [self, *(part.target for part in self.several or ())]
        return [target.kubernetes for target in targets if target.kubernetes is not None]
