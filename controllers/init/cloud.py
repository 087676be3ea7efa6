"""Auto Scaling groups of one AWS region, as drafts of workloads."""

from typing import Any

from controllers.init.draft import Draft, Value, bounds, label

MOST_GROUPS = 500


class CloudError(Exception):
    """The region could not be asked; a sentence with what to do."""


def read_cloud(region: str, profile: str | None = None, endpoint_url: str | None = None) -> tuple[list[Draft], str]:
    """The drafts, and a sentence about what was looked at. Raises CloudError."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise CloudError("the Python package boto3 is missing; install tidewise[aws]") from None
    patience = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 3})
    try:
        session = boto3.session.Session(profile_name=profile, region_name=region)
        client = session.client("autoscaling", endpoint_url=endpoint_url, config=patience)
        pages = client.get_paginator("describe_auto_scaling_groups").paginate()
        groups: list[dict[str, Any]] = [group for page in pages for group in page["AutoScalingGroups"]][:MOST_GROUPS]
    except ClientError as error:
        raise CloudError(f"AWS {region} refuses: {error.response['Error'].get('Message', error)}") from None
    except BotoCoreError as error:
        raise CloudError(f"AWS {region} cannot be asked: {error}") from None
    drafts = [draft_of(group, region, profile, endpoint_url) for group in groups]
    return drafts, f"AWS {region}: {len(groups) or 'no'} Auto Scaling group{'' if len(groups) == 1 else 's'}"


def draft_of(group: dict[str, Any], region: str, profile: str | None, endpoint_url: str | None) -> Draft:
    """One group. What arrives it does not say; the balancer's target groups tell whether its instances work."""
    name = str(group["AutoScalingGroupName"])
    where: dict[str, Any] = {"region": region}
    if profile:
        where["profile"] = profile
    if endpoint_url:
        where["endpoint_url"] = endpoint_url
    where["auto_scaling_group"] = name
    if group.get("TargetGroupARNs"):
        where["target_groups"] = list(group["TargetGroupARNs"])
    suspended = [str(one["ProcessName"]) for one in group.get("SuspendedProcesses") or []]
    return Draft(
        name=label(name),
        namespace="default",
        origin=f"the Auto Scaling group {name} in {region}",
        target=Value({"aws": where}),
        replicas=bounds(int(group["MinSize"]), int(group["MaxSize"])),
        notes=(f"its processes {', '.join(suspended)} are suspended",) if suspended else (),
    )
