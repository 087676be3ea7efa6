"""Replicas on Amazon EC2: an Auto Scaling group of the user's, or instances that Tidewise starts and ends itself."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from controllers.config.values import Count, HttpUrl, Name, Number, Text, distinct
from exporters.runtime.config import Section

OWN_TAGS = "tidewise:"  # the prefix of the tags that hold the state of an instance

TargetGroupArn = Annotated[
    str, Field(pattern=r"^arn:aws[a-z-]*:elasticloadbalancing:[a-z0-9-]+:\d{12}:targetgroup/\S+$")
]


def _not_ours(tags: dict[str, str]) -> dict[str, str]:
    for tag in tags:
        if tag.startswith((OWN_TAGS, "aws:")):
            raise ValueError(f"found the tag '{tag}'; '{OWN_TAGS}' and 'aws:' are taken, give it another name")
    return tags


class AwsInstances(Section):
    """Instances of a launch template. Those with the tag `tidewise:fleet` = `fleet` are its replicas, and no others.

    Where a type or a place has no capacity the next is tried: each of `instance_types` in each of `subnets` or
    `zones`, the first type everywhere first. Without them those of the template count.
    """

    fleet: Name
    launch_template: Text  # its id (lt-…) or its name
    launch_template_version: Text = "$Default"
    tags: Annotated[dict[str, Text], AfterValidator(_not_ours)] = {}
    subnets: Annotated[list[Text], AfterValidator(distinct)] = []
    zones: Annotated[list[Text], AfterValidator(distinct)] = []
    instance_types: Annotated[list[Text], AfterValidator(distinct)] = []
    boot_seconds: Annotated[Number, Field(ge=30, le=7200)] = 600.0  # one that is not healthy by then is ended
    boot_attempts: Annotated[Count, Field(ge=1, le=20)] = 3  # so many in a row, and no more are started for an hour
    drain_seconds: Annotated[Number, Field(ge=0, le=86_400)] | None = None  # the longest that one told to end is kept

    @model_validator(mode="after")
    def _one_kind_of_place(self) -> Self:
        if self.subnets and self.zones:
            raise ValueError("found subnets and zones; a subnet lies in a zone, so write one of them")
        return self


class AwsTarget(Section):
    """Exactly one of an Auto Scaling group and instances. Credentials are boto3's: environment, profile, or role.

    `target_groups` (ARNs of ELBv2): a replica works once it is healthy in each of them. Instances are registered there
    and deregistered before they end; an Auto Scaling group does that itself for those attached to it.
    """

    region: Annotated[str, Field(pattern="^[a-z0-9-]{1,40}$")]
    profile: Text | None = None
    endpoint_url: HttpUrl | None = None
    auto_scaling_group: Text | None = None
    instances: AwsInstances | None = None
    target_groups: Annotated[list[TargetGroupArn], AfterValidator(distinct)] = []
    timeout_seconds: Annotated[Number, Field(gt=0, le=60)] = 20.0  # for reading, and again for setting

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [key for key in ("auto_scaling_group", "instances") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"found {' and '.join(given) or 'none'} of auto_scaling_group, instances; give exactly one"
            )
        return self
