"""Services: requests, how long they take, which fail, and whether the services answer at all. Part of queues.py."""

from grafana.panels import (
    COUNT,
    GREEN,
    ORANGE,
    RATIO,
    RED,
    SECONDS,
    Panel,
    dashed,
    lines,
    query,
    states,
)

REQUESTS_PER_SECOND = "suffix: requests/s"
DAYS = "d"


def sections() -> list[tuple[str, list[Panel]]]:
    """Rows for the dashboard of queues and latency, the most asked first."""
    return [("Requests", _requests()), ("Routes", _routes()), ("Probes", _probes())]


def _requests() -> list[Panel]:
    return [
        lines(
            "Requests by answer",
            "Requests that were answered, by class of the answer; none: the client or the server went away before. "
            "A service that nobody asks has 0, one that is unknown has no line.",
            REQUESTS_PER_SECOND,
            query(
                "sum by (service, code_class) (rate(request_duration_seconds_count[$__rate_interval]))",
                "{{service}} {{code_class}}",
            ),
            span=8,
            stacked=True,
        ),
        lines(
            "Time to answer",
            "Half, 95 % and 99 % of the requests of five minutes took at most that. A gap: nobody asked. HAProxy's own "
            "page tells no percentiles.",
            SECONDS,
            query("service:latency_seconds:p50_5m", "{{service}} p50"),
            query("service:latency_seconds:p95_5m", "{{service}} p95"),
            query("service:latency_seconds:p99_5m", "{{service}} p99"),
            span=8,
        ),
        lines(
            "Errors",
            "Answered with a 5xx, of the requests of five minutes and of an hour. Dashed: where the month's errors "
            "would be used up within two days, and somebody is called.",
            RATIO,
            query("service:errors:ratio_rate5m", "{{service}} 5 min"),
            query("service:errors:ratio_rate1h", "{{service}} 1 h"),
            query("14.4 * (1 - service:objective:value)", "too many: {{service}}"),
            span=8,
        ).override_by_regexp("/^too many/", dashed(RED)),
    ]


def _routes() -> list[Panel]:
    return [
        lines(
            "Slowest routes",
            "The ten routes whose 95th percentile is the longest. other: routes beyond the limit, and addresses that "
            "the service does not know.",
            SECONDS,
            query(
                """
                topk(10, histogram_quantile(0.95,
                  sum by (service, route, le) (rate(request_duration_seconds_bucket[$__rate_interval]))) >= 0)
                """,
                "{{service}} {{route}}",
            ),
            span=8,
        ),
        lines(
            "Most time spent",
            "Seconds of work within a second, by route: where making it faster is worth the most.",
            COUNT,
            query(
                "topk(10, sum by (service, route) (rate(request_duration_seconds_sum[$__rate_interval])))",
                "{{service}} {{route}}",
            ),
            span=8,
        ),
        lines(
            "Failures by reason",
            "client_aborted: the client went away or was too slow, which may be its own affair.",
            REQUESTS_PER_SECOND,
            query(
                "sum by (service, reason) (rate(request_failures_total[$__rate_interval]))", "{{service}} {{reason}}"
            ),
            span=8,
        ),
    ]


def _probes() -> list[Panel]:
    return [
        states(
            "Do the services answer?",
            "Asked at each scrape by HTTP, TCP or gRPC. An empty stretch: nobody asked.",
            query("service_probe_success", "{{service}} {{kind}} {{target}}"),
            words={"1": ("answers", GREEN), "0": ("does not", RED)},
            span=12,
        ),
        lines(
            "Time until a probe's answer",
            "Connecting included; a gap while it does not answer as it should.",
            SECONDS,
            query("service_probe_duration_seconds", "{{service}} {{kind}} {{target}}"),
            span=6,
        ),
        lines(
            "Certificates are valid for",
            "Of the services that are asked by TLS.",
            DAYS,
            query(
                "(service_probe_certificate_expiry_timestamp_seconds - time()) / 86400",
                "{{service}} {{target}}",
            ),
            limits=((7, ORANGE),),
            span=6,
            low=None,
        ),
    ]
