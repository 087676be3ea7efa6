"""Label values that come from elsewhere: made writable, and no more of them than a page can carry."""

import threading

from prometheus_client.metrics_core import Metric

from exporters.families import Counter

OTHER = "other"
LONGEST = 200  # characters
REFUSED = Counter(
    "tidewise_exporter_label_values_capped",
    "Times that a value beyond the limit of a label was counted as 'other', by collector and label.",
    ("collector", "label"),
    "the exporter itself",
)


def clean(value: str | bytes, longest: int = LONGEST) -> str:
    r"""`value` as a label value: bytes that are no UTF-8 become visible as \xNN, and its end is cut off where long."""
    if isinstance(value, str):
        value = value[: longest + 1].encode("utf-8", "surrogatepass")
    text = value[: 4 * longest + 4].decode("utf-8", "backslashreplace")
    return text if len(text) <= longest else text[: longest - 1] + "…"


class Cap:
    """The first `most` distinct values of one label as they are; every further one is `other`, and is counted.

    One for each label of each collector: `route = Cap("latency.logs", "route", 100)`, then `route(text)`.
    """

    _all: "list[Cap]" = []
    _lock = threading.Lock()

    def __init__(self, collector: str, label: str, most: int) -> None:
        self.collector, self.label, self.most = collector, label, most
        self.refused = 0
        self._known: dict[str, str] = {}
        with Cap._lock:
            Cap._all.append(self)

    def __call__(self, value: str | bytes) -> str:
        text = clean(value)
        if text in self._known:
            return text
        if len(self._known) >= self.most:
            self.refused += 1
            return OTHER
        self._known[text] = text
        return text


def refused() -> Metric:
    """How often each cap of this process refused; part of every page."""
    counts: dict[tuple[str, str], int] = {}
    with Cap._lock:
        for cap in Cap._all:
            key = (cap.collector, cap.label)
            counts[key] = counts.get(key, 0) + cap.refused
    family = REFUSED.metric()
    for key, count in sorted(counts.items()):
        family.add_metric(key, count)
    return family
