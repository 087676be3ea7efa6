"""Queues and services that a Prometheus knows by contract names."""

from controllers.init.draft import Queue
from controllers.sources.prometheus import Answer, Source

SECONDS = 15.0
QUEUES = 'count by (system, queue) ({__name__=~"queue:messages:sum|queue_messages"})'
SERVICES = 'count by (service) ({__name__=~"service:requests:rate1m|request_duration_seconds_count"})'


def read_series(source: Source) -> tuple[list[Queue], list[str], str]:
    """Queues, services, and a sentence about what was looked at. Raises SourceError."""
    queues = sorted(
        {
            Queue(labels["system"], labels["queue"])
            for labels in _labels(source.instant(QUEUES, deadline_seconds=SECONDS))
            if labels.get("system", "").strip() and labels.get("queue", "").strip()
        },
        key=lambda queue: (queue.system, queue.name),
    )
    services = sorted(
        {
            labels["service"]
            for labels in _labels(source.instant(SERVICES, deadline_seconds=SECONDS))
            if labels.get("service", "").strip()
        }
    )
    found = f"{_count(len(queues), 'queue')} and {_count(len(services), 'service')} of the contract"
    return queues, services, f"Prometheus {source.url}: {found}"


def _labels(answer: Answer) -> list[dict[str, str]]:
    return [dict(series.labels) for series in answer]


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
