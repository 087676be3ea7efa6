"""What was spent since the month began: from the ledger, from usage events, by declared prices, as AWS bills it.

Each source stands for itself, under its label. The same money may be in two of them: they are never added up here.
"""

from collections.abc import Mapping
from datetime import date
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from exporters.collector import CollectFunction
from exporters.cost.aws import Aws, CostExplorer, needs_boto3
from exporters.cost.demo import demo
from exporters.cost.events import Events, UsageFiles
from exporters.cost.instances import InstanceCosts, Instances
from exporters.cost.ledger import Ledger, LedgerReader
from exporters.cost.months import zone_name
from exporters.cost.spend import FAMILIES
from exporters.runtime.config import Section

__all__ = ["FAMILIES", "Config", "collectors", "demo"]


class Config(Section):
    """Where spend is read. `time_zone`: of the months of usage events and instances; the ledger has its own."""

    ledger: Ledger | None = None
    usage: UsageFiles | None = None
    instances: Instances = []
    instances_checked: date | None = None
    aws: Aws | None = None
    time_zone: Annotated[str, AfterValidator(zone_name)] = "UTC"
    lines_max: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 200


def collectors(config: Config) -> Mapping[str, CollectFunction]:
    """One a source. Raises ConfigError where a package is missing."""
    zone, most = ZoneInfo(config.time_zone), config.lines_max
    found: dict[str, CollectFunction] = {}
    if config.ledger:
        found[f"ledger.{config.ledger.address}"] = LedgerReader(config.ledger, most).collect
    if config.usage:
        found["usage"] = Events(config.usage, zone, most).collect
    if config.instances:
        found["instances"] = InstanceCosts(config.instances, config.instances_checked, zone, most).collect
    if config.aws:
        needs_boto3()
        found["aws"] = CostExplorer(config.aws, most).collect
    return found
