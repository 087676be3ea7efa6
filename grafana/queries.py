"""The queries of a dashboard, as Grafana would send them: variables filled in, then asked of a Prometheus."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::\w+)?\}|([A-Za-z_]\w*))")  # "$1" is a regex group, not a variable
_LABEL_VALUES = re.compile(r"label_values\((.*), *(\w+)\)")
_BUILT_IN = {"__rate_interval": "1m", "__interval": "15s"}  # four scrapes; one


class QueryError(RuntimeError):
    """A query that cannot be filled in or asked, or that Prometheus refuses. The message says which and why."""


@dataclass(frozen=True)
class Query:
    """One query of one panel. `what`: "annotation" or the panel's type."""

    dashboard: str
    panel: str
    what: str
    letter: str
    expr: str
    legend: str = ""
    instant: bool = False


@dataclass(frozen=True)
class Answer:
    """`series`: (labels, samples as (Unix seconds, value)); of an instant query one sample each."""

    query: Query
    series: list[tuple[dict[str, str], list[tuple[float, float]]]] = field(default_factory=list)

    def name(self, labels: Mapping[str, str]) -> str:
        """What the legend calls a series."""
        if self.query.legend in ("", "__auto"):
            return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()) if key != "__name__")
        return re.sub(r"\{\{ *(\w+) *\}\}", lambda found: labels.get(found[1], ""), self.query.legend).strip()


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels that ask something or say something, those in closed rows included, without the rows themselves."""
    for panel in dashboard.get("panels", ()):
        if panel["type"] == "row":
            yield from panels(panel)
        else:
            yield panel


def queries(dashboard: Mapping[str, Any]) -> Iterator[Query]:
    """Every query of every panel, then those of the annotations."""
    uid = dashboard["uid"]
    for panel in panels(dashboard):
        yield from panel_queries(uid, panel)
    for annotation in dashboard["annotations"]["list"]:
        yield Query(uid, annotation["name"], "annotation", "A", annotation["expr"])


def panel_queries(uid: str, panel: Mapping[str, Any]) -> Iterator[Query]:
    """Every query of a panel."""
    for target in panel.get("targets", ()):
        yield Query(
            uid,
            panel["title"],
            panel["type"],
            target["refId"],
            target["expr"],
            target.get("legendFormat", ""),
            bool(target.get("instant")),
        )


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with $name, ${name} and ${name:format} replaced. QueryError where a name has no value."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name in values:
            return values[name]
        if name in _BUILT_IN:
            return _BUILT_IN[name]
        raise QueryError(f"{text}: no variable is called {name}")

    return _VARIABLE.sub(value, text)


class Prometheus:
    """A Prometheus, asked as Grafana asks it. `at`: the end of every range, Unix seconds."""

    def __init__(self, url: str, at: float) -> None:
        self.url = url.rstrip("/")
        self.at = at
        self._session = requests.Session()
        self._session.trust_env = False  # it is near: no proxy of the environment

    def variables(self, dashboard: Mapping[str, Any], chosen: Mapping[str, str] | None = None) -> dict[str, str]:
        """A value for each variable: as `chosen`, as set in the dashboard, or the first that its query finds."""
        values: dict[str, str] = {}
        for variable in dashboard["templating"]["list"]:
            name = variable["name"]
            if chosen is not None and name in chosen:
                values[name] = chosen[name]
            elif variable["type"] == "query":
                found = self._label_values(fill(variable["query"], values))
                if variable.get("includeAll"):
                    values[name] = variable["allValue"]
                elif variable.get("current", {}).get("value") in found:
                    values[name] = variable["current"]["value"]
                else:
                    values[name] = found[0] if found else ""
            elif variable["type"] == "textbox":
                values[name] = variable["query"]
        return values

    def answer(self, query: Query, values: Mapping[str, str], span: tuple[float, float], step: float) -> Answer:
        """What Prometheus says. `span`: from and to, seconds relative to `at`; `step`: between two samples."""
        expr = fill(query.expr, values)
        if query.instant:
            result = self._get("query", query=expr, time=self.at)["result"]
            return Answer(query, [(one["metric"], _samples([one["value"]])) for one in result])
        start, end = self.at + span[0], self.at + span[1]
        result = self._get("query_range", query=expr, start=start, end=end, step=step)["result"]
        return Answer(query, [(one["metric"], _samples(one["values"])) for one in result])

    def _label_values(self, query: str) -> list[str]:
        found = _LABEL_VALUES.fullmatch(query)
        if found is None:
            raise QueryError(f"{query}: a variable's query must be label_values(series, label)")
        match, label = found.groups()
        # Only what there was lately: a database remembers the labels of whatever it ever stored.
        values = self._get(f"label/{label}/values", **{"match[]": match, "start": self.at - 3600, "end": self.at})
        return sorted(values, key=lambda value: (len(value), value) if value.isdigit() else (0, value))

    def _get(self, path: str, **parameters: Any) -> Any:
        try:
            document = self._session.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=60).json()
        except requests.RequestException as error:  # also an answer that is no JSON
            raise QueryError(
                f"{self.url} does not answer like a Prometheus; is the address right? ({error})"
            ) from error
        if document["status"] != "success":
            raise QueryError(f"{self.url} refuses {parameters}: {document['error']}")
        return document["data"]


def silent(prometheus: Prometheus, dashboard: Mapping[str, Any], span: tuple[float, float], step: float) -> list[str]:
    """The queries of a dashboard that find no series, each as panel, letter and what was asked. For tests."""
    values = prometheus.variables(dashboard)
    return [
        f"{query.panel} {query.letter}: {fill(query.expr, values)}"
        for query in queries(dashboard)
        if not prometheus.answer(query, values, span, step).series
    ]


def _samples(values: list[list[Any]]) -> list[tuple[float, float]]:
    return [(float(at), float(value)) for at, value in values]
