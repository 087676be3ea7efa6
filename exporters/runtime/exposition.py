"""The page as text, in a fraction of the time that prometheus-client's own encoder takes.

What stands before a value (`name{labels} `) is the same at each scrape, so it is made once and kept. What an exporter
of ours never publishes (exemplars, native histograms, names outside the classic characters) and formats that hardly
anybody asks for go to prometheus-client's encoder, whose output this one equals byte for byte.
"""

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Sample, Timestamp
from prometheus_client.utils import floatToGoString

_CLASSIC = re.compile("[a-zA-Z_][a-zA-Z0-9_]*")
# The text format calls some kinds by other names, and some families by the ending of their series.
_TEXT_KINDS = {"info": "gauge", "stateset": "gauge", "gaugehistogram": "histogram", "unknown": "untyped"}
_TEXT_ENDINGS = {"counter": "_total", "info": "_info"}
# These have no place in a text family: they are gauges behind it, in this order.
_APART = ("_created", "_gcount", "_gsum")
_SPARE = 1000  # lines that may be remembered beyond twice those of the page

Stamp = float | Timestamp
_exponent: Callable[[float], str] = floatToGoString


class Source(Protocol):
    """A registry, as far as a page needs one."""

    def collect(self) -> Iterable[Metric]:
        """The families of one page."""


@dataclass(frozen=True)
class _Collected:
    metrics: Sequence[Metric]

    def collect(self) -> Sequence[Metric]:
        return self.metrics


class _UnusualError(Exception):
    """Something that is left to prometheus-client."""


class Pages:
    """Writes pages, and keeps what stood before their values: never more than twice of what the last page had."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heads: dict[tuple[bool, str, str, str, str], str] = {}
        self._prefixes: dict[tuple[str, tuple[str, ...]], dict[tuple[str, ...], str]] = {}
        self.kept = 0  # lines that are remembered

    def page(self, source: Source, accept: str) -> tuple[bytes, str]:
        """The page in the format that the header `accept` asks for, and its content type."""
        encode, content_type, is_openmetrics = _format(accept)
        if is_openmetrics is None:
            return encode(source), content_type
        metrics = list(source.collect())
        try:
            return self.text(metrics, is_openmetrics), content_type
        except (_UnusualError, TypeError):  # TypeError: a value or label of another kind; the encoder says of which
            return encode(_Collected(metrics)), content_type

    def text(self, metrics: Sequence[Metric], is_openmetrics: bool) -> bytes:
        """`metrics` as OpenMetrics 1.0, or else as text 0.0.4."""
        lines: list[str] = []
        with self._lock:  # it is all computing: two at once would not be faster, and the memory keeps its limit
            for metric in metrics:
                lines.append(self._head(metric, is_openmetrics))
                if is_openmetrics:
                    self._samples(metric.samples, lines, str)
                else:
                    self._text_samples(metric, lines)
            if self.kept > 2 * len(lines) + _SPARE:
                self._heads.clear()
                self._prefixes.clear()
                self.kept = 0
        if is_openmetrics:
            lines.append("# EOF\n")
        return "".join(lines).encode()

    def _head(self, metric: Metric, is_openmetrics: bool) -> str:
        key = (is_openmetrics, metric.name, metric.documentation, metric.type, metric.unit)
        head = self._heads.get(key)
        if head is None:
            make = _openmetrics_head if is_openmetrics else _text_head
            head = self._heads[key] = make(metric)
            self.kept += 1
        return head

    def _text_samples(self, metric: Metric, lines: list[str]) -> None:
        names = {sample.name for sample in metric.samples}
        apart = [name for name in (metric.name + ending for ending in _APART) if name in names]
        if not apart:
            self._samples(metric.samples, lines, _milliseconds)
            return
        self._samples([sample for sample in metric.samples if sample.name not in apart], lines, _milliseconds)
        for name in apart:
            lines.append(_help_and_type(name, metric.documentation, "gauge"))
            self._samples([sample for sample in metric.samples if sample.name == name], lines, _milliseconds)

    def _samples(self, samples: Iterable[Sample], lines: list[str], stamp: Callable[[Stamp], str]) -> None:
        """Append a line for each sample. The hot path: what is not here happens once a family or once a process."""
        last: tuple[str, tuple[str, ...]] | None = None
        prefixes: dict[tuple[str, ...], str] = {}
        for name, labels, value, timestamp, exemplar, native in samples:
            kind = (name, tuple(labels))
            if kind != last:
                last, prefixes = kind, self._prefixes.setdefault(kind, {})
            values = tuple(labels.values())
            prefix = prefixes.get(values)
            if prefix is None:
                prefix = prefixes[values] = _prefix(name, labels)
                self.kept += 1
            # from a million on Go writes exponents; NaN and the infinities are in no range
            number = repr(float(value)) if -1e6 < value < 1e6 else _exponent(value)
            if exemplar or native:
                raise _UnusualError
            lines.append(f"{prefix}{number}\n" if timestamp is None else f"{prefix}{number} {stamp(timestamp)}\n")


@lru_cache(maxsize=32)
def _format(accept: str) -> tuple[Callable[[Any], bytes], str, bool | None]:
    """prometheus-client's encoder for that header, its content type, and whether that is OpenMetrics; None: neither."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is no version: plain text is always right
        return generate_latest, CONTENT_TYPE_PLAIN_0_0_4, False
    function, options = (encode.func, encode.keywords) if isinstance(encode, partial) else (encode, {})
    # the other ways to write a name also change those of classic characters
    if options.get("escaping", openmetrics.UNDERSCORES) not in (openmetrics.UNDERSCORES, openmetrics.ALLOWUTF8):
        return encode, content_type, None
    if function is generate_latest:
        return encode, content_type, False
    return encode, content_type, True if options.get("version") == "1.0.0" else None


def _prefix(name: str, labels: Mapping[str, str]) -> str:
    """What stands before a value. Label names that begin with two underscores are reserved."""
    if not all(_CLASSIC.fullmatch(word) for word in (name, *labels)) or any(word.startswith("__") for word in labels):
        raise _UnusualError
    if not labels:
        return f"{name} "
    inside = ",".join(f'{word}="{_escaped(text)}"' for word, text in sorted(labels.items()))
    return f"{name}{{{inside}}} "


def _text_head(metric: Metric) -> str:
    name = metric.name + _TEXT_ENDINGS.get(metric.type, "")
    return _help_and_type(name, metric.documentation, _TEXT_KINDS.get(metric.type, metric.type))


def _help_and_type(name: str, documentation: str, kind: str) -> str:
    if not _CLASSIC.fullmatch(name):
        raise _UnusualError
    meaning = documentation.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n"


def _openmetrics_head(metric: Metric) -> str:
    if not _CLASSIC.fullmatch(metric.name):
        raise _UnusualError
    unit = f"# UNIT {metric.name} {metric.unit}\n" if metric.unit else ""
    return f"# HELP {metric.name} {_escaped(metric.documentation)}\n# TYPE {metric.name} {metric.type}\n{unit}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _milliseconds(stamp: Stamp) -> str:
    return str(int(float(stamp) * 1000))
