"""A month that never was: two models, an instance, and a bill that is a little dearer."""

from collections.abc import Iterator
from zoneinfo import ZoneInfo

from prometheus_client.metrics_core import Metric

from exporters.cost.money import MICRO
from exporters.cost.months import month_start
from exporters.cost.spend import ASKED, ASKING, INSTANCE_PRICE, LINES, Line, Month, Scope, month_metrics

_KRW_PER_HOUR = ((Scope("demo-google", "demo-ocr", "demo-flash", "demo-captions", "demo/video"), 5.2),
                 (Scope("demo-openai", "demo-text", "demo-mini", "demo-report", ""), 3.1))  # fmt: skip


def demo(at: float) -> Iterator[Metric]:
    """Plausible values at a Unix time. Spend falls where a month begins, and not at the same moment for each source."""
    start, elsewhere = month_start(at, ZoneInfo("Asia/Seoul")), month_start(at, ZoneInfo("UTC"))
    hours, other_hours = (at - start) / 3600 + 0.1, (at - elsewhere) / 3600 + 0.1
    lines = [
        Line(scope, "KRW", int(per_hour * hours * MICRO),
             {"input_tokens": int(40_000 * hours), "output_tokens": int(6_000 * hours)})
        for scope, per_hour in _KRW_PER_HOUR
    ]  # fmt: skip
    instance = Scope("demo-cloud", "demo-worker-1", workload="demo/video")
    bill = Scope("demo-aws", "demo-Compute")
    metrics = (
        *month_metrics(Month("demo-ledger", "estimated", start, lines, start - 20 * 86_400), 10),
        *month_metrics(
            Month(
                "demo-instances", "estimated", elsewhere, [Line(instance, "KRW", int(12 * other_hours * MICRO))], start
            ),
            10,
        ),
        *month_metrics(
            Month("demo-aws", "billed", elsewhere, [Line(bill, "USD", int(0.011 * other_hours * MICRO))]), 10
        ),
    )
    families: dict[str, Metric] = {}
    for metric in metrics:  # a name stands once on a page
        if metric.name in families:
            families[metric.name].samples.extend(metric.samples)
        else:
            families[metric.name] = metric
    price, lines_read, asked, asking = (family.metric() for family in (INSTANCE_PRICE, LINES, ASKED, ASKING))
    price.add_metric(["demo-worker-1", "demo-cloud", "demo/video", "KRW"], 12)
    for result, a_second in (("counted", 0.3), ("repeated", 0.01), ("other_month", 0.0), ("refused", 0.001)):
        lines_read.add_metric([result], int(a_second * max(0.0, at - 1.7e9)))
    asked.add_metric(["demo-aws"], at - at % 86_400)
    asking.add_metric(["demo-aws", "USD"], 0.01 * int((at - elsewhere) // 86_400 + 1))
    yield from (*families.values(), price, lines_read, asked, asking)
