"""What cannot be although each target alone is right: bounds that do not meet, one fleet that two would scale."""

from collections.abc import Iterator

from controllers.config.targets import Target
from controllers.config.workloads import Workload


def target_mistakes(workloads: list[Workload], has_budget: bool) -> list[str]:
    """One sentence each, with its place in the file."""
    mistakes: list[str] = []
    owners: dict[tuple[str | None, ...], str] = {}
    for index, workload in enumerate(workloads):
        place = f"workloads.{index}"
        mistakes += [f"{place}.{text}" for text in (*_bounds(workload), *_price(workload, has_budget))]
        for path, target in _targets(workload.target):
            if target.aws is None:
                continue
            aws = target.aws
            where = (aws.region, aws.profile, aws.endpoint_url)
            key, name = (
                ("auto_scaling_group", aws.auto_scaling_group)
                if aws.instances is None
                else ("instances.fleet", aws.instances.fleet)
            )
            path = f"{place}.target.{path}aws.{key}"
            first = owners.setdefault((key, name, *where), path)
            if first != path:
                mistakes.append(f"{path}: found '{name}', which is {first} as well; each would end the other's")
    return mistakes


def _targets(target: Target) -> Iterator[tuple[str, Target]]:
    yield "", target
    for index, part in enumerate(target.several or []):
        yield f"several.{index}.target.", part.target


def _bounds(workload: Workload) -> Iterator[str]:
    parts = workload.target.several
    if parts is None:
        return
    least, most = sum(part.min for part in parts), sum(part.max for part in parts)
    if least > workload.replicas.min:
        yield (
            f"target.several: the min of all add up to {least}, more than replicas.min ({workload.replicas.min}); "
            "lower them or raise it"
        )
    if most < workload.replicas.max:
        yield (
            f"target.several: the max of all add up to {most}, less than replicas.max ({workload.replicas.max}); "
            "raise them or lower it"
        )


def _price(workload: Workload, has_budget: bool) -> Iterator[str]:
    """The ledger holds money for a replica before anybody knows where it will run."""
    prices = [part.price for part in workload.target.several or [] if part.price is not None]
    if prices and has_budget and workload.price is None:
        dearest = max(prices, key=lambda price: price.amount)
        yield (
            f"price: is missing, and its targets have prices; the budget needs one for all, write the dearest: "
            f"price: {{per_replica_hour: {dearest}}}"
        )
