"""What dashboards are made of: queries and the kinds of panel. `frame.py` puts them into a dashboard.

Every panel has a title, a description and a unit because these functions ask for them. A gap stays a gap: nothing
here joins points over missing data or shows 0 where there is none.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    text,
    timeseries,
)
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from grafana_foundation_sdk.models import text as text_models

SOURCE = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")

# Units as Grafana names them.
RATIO, SECONDS, BYTES, BYTES_PER_SECOND, COUNT = "percentunit", "s", "bytes", "Bps", "short"
ITEMS, ITEMS_PER_SECOND, REPLICAS = "suffix: items", "suffix: items/s", "suffix: replicas"
MONEY = "locale"  # digits in groups; the currency is a label
STATE = "none"  # 0, 1, …: the value mapping gives it its words

GREEN, YELLOW, ORANGE, RED, BLUE, GREY, PURPLE = "green", "yellow", "orange", "red", "blue", "#808080", "purple"

Steps = Sequence[tuple[float | None, str]]  # (from this value on, colour); None: from the beginning
Words = dict[str, tuple[str, str]]  # value as text -> (word, colour)
Panel = timeseries.Panel | stat.Panel | statetimeline.Panel | table.Panel | bargauge.Panel | text.Panel


def query(expr: str, legend: str = "") -> prometheus.Dataquery:
    """One PromQL expression over time. `legend`: as Grafana writes it, {{label}}."""
    return (
        prometheus.Dataquery().datasource(SOURCE).expr(" ".join(expr.split())).legend_format(legend or "__auto").range()
    )


def now(expr: str, legend: str = "", *, as_table: bool = False) -> prometheus.Dataquery:
    """Its value at the end of the range. What is unknown then is n/a, where a range's last value may be an hour old.

    as_table: labels become columns.
    """
    target = query(expr, legend).instant()
    return target.format(prometheus_models.PromQueryFormat.TABLE) if as_table else target


def lines(
    title: str,
    description: str,
    unit: str,
    *targets: prometheus.Dataquery,
    span: int = 12,
    height: int = 8,
    limits: Steps = (),
    stacked: bool = False,
    steps: bool = False,
    low: float | None = 0,
    high: float | None = None,
) -> timeseries.Panel:
    """Values over time. `limits` are drawn as dashed lines, `steps` for what changes at once (replicas)."""
    panel = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(25 if stacked else 5)
        .span_nulls(False)
        .show_points(common_models.VisibilityMode.AUTO)  # a value between two gaps would be invisible as a line
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    if low is not None:
        panel.min(low)
    if high is not None:
        panel.max(high)
    if steps:
        panel.line_interpolation(common_models.LineInterpolation.STEP_AFTER)
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if limits:
        panel.thresholds(_thresholds(((None, "transparent"), *limits))).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        )
    return _finish(panel, title, description, unit, targets, span, height)


def number(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *,
    limits: Steps = ((None, BLUE),),
    words: Words | None = None,
    name: str = "",
    link: tuple[str, str] | None = None,
    span: int = 3,
    height: int = 4,
) -> stat.Panel:
    """The value now, large, coloured by `limits`. `name`: show this legend instead; `link`: (dashboard uid, title)."""
    panel = (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .color_mode(common_models.BigValueColorMode.BACKGROUND)
        .text_mode(common_models.BigValueTextMode.NAME if name else common_models.BigValueTextMode.VALUE)
        .thresholds(_thresholds(limits))
    )
    if words:
        panel.mappings([_mapping(words)])
    if link:
        panel.data_links([_link(*link)])
    return _finish(panel, title, description, unit, [now(expr, name)], span, height)


def states(
    title: str,
    description: str,
    *targets: prometheus.Dataquery,
    words: Words,
    span: int = 12,
    height: int = 8,
) -> statetimeline.Panel:
    """What was so and when, a row a series. Where a series has no value the row is empty, not "no"."""
    panel = (
        statetimeline.Panel()
        .merge_values(True)
        .show_value(common_models.VisibilityMode.NEVER)
        .row_height(0.8)
        .fill_opacity(80)
        .line_width(0)
        .span_nulls(False)
        .mappings([_mapping(words)])
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    return _finish(panel, title, description, STATE, targets, span, height)


def bars(
    title: str,
    description: str,
    unit: str,
    expr: str,
    legend: str,
    *,
    limits: Steps,
    low: float = 0,
    high: float | None = None,
    span: int = 12,
    height: int = 8,
) -> bargauge.Panel:
    """The value of each series now, as a bar."""
    panel = (
        bargauge.Panel()
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .min(low)
        .thresholds(_thresholds(limits))
    )
    if high is not None:
        panel.max(high)
    return _finish(panel, title, description, unit, [now(expr, legend)], span, height)


@dataclass(frozen=True)
class Column:
    """A column of a table: the values of `expr`, or a label. `link`: (dashboard uid, title), with the row's `key`."""

    name: str
    unit: str = STATE
    expr: str = ""
    label: str = ""
    limits: Steps = ()
    words: Words = field(default_factory=dict)
    link: tuple[str, str] | None = None


def rows(
    title: str, description: str, columns: Sequence[Column], *, key: str, span: int = 24, height: int = 8
) -> table.Panel:
    """A table with a row a value of the label `key`, one query a column of values."""
    valued = [column for column in columns if column.expr]
    values = {column.name: f"Value #{ref_id(place)}" for place, column in enumerate(valued)}
    if len(valued) == 1:
        values = dict.fromkeys(values, "Value")
    fields = {column.name: values.get(column.name, column.label) for column in columns}
    order = {
        "includeByName": dict.fromkeys(fields.values(), True),
        "indexByName": {name: place for place, name in enumerate(fields.values())},
        "renameByName": {name: shown for shown, name in fields.items()},
    }
    panel = (
        table.Panel()
        .with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(models.DataTransformerConfig(id_val="organize", options=order))
    )
    for column in columns:
        properties = [models.DynamicConfigValue(id_val="unit", value=column.unit)]
        if column.limits:
            properties += [
                models.DynamicConfigValue(id_val="thresholds", value=_thresholds(column.limits).build()),
                models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
            ]
        if column.words:
            properties += [
                models.DynamicConfigValue(id_val="mappings", value=[_mapping(column.words)]),
                models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
            ]
        if column.link:
            value = f"var-{key}=${{__value.raw}}"
            link = _link(*column.link, more=value).build()
            properties.append(models.DynamicConfigValue(id_val="links", value=[link]))
        panel.override_by_name(column.name, properties)
    targets = [now(column.expr, as_table=True) for column in valued]
    return _finish(panel, title, description, STATE, targets, span, height)


def matrix(
    title: str,
    description: str,
    unit: str,
    expr: str,
    *,
    row: str,
    column: str,
    names: Sequence[str],
    span: int = 24,
    height: int = 9,
) -> table.Panel:
    """A heat map of two labels: a row for each value of the one, a column for each of the other.

    names: of the rows, whose label counts them from 0.
    """
    corner = f"{row}\\{column}"  # how Grafana calls the first column
    steps = [
        ("sortBy", {"sort": [{"field": column}]}),
        ("groupingToMatrix", {"columnField": column, "rowField": row, "valueField": "Value", "emptyValue": "null"}),
        ("sortBy", {"sort": [{"field": corner}]}),
    ]
    panel = table.Panel().color_scheme(
        dashboard.FieldColor().mode(models.FieldColorModeId.CONTINUOUS_BL_YL_RD)  # from the least to the most
    )
    for name, options in steps:
        panel.with_transformation(models.DataTransformerConfig(id_val=name, options=options))
    panel.cell_options(
        common_models.TableColoredBackgroundCellOptions(mode=common_models.TableCellBackgroundDisplayMode.BASIC)
    )
    days = {str(number): (name, GREY) for number, name in enumerate(names)}
    panel.override_by_name(
        corner,
        styled(unit=STATE, mappings=[_mapping(days)], custom__cellOptions={"type": "auto"}, custom__width=110),
    )
    return _finish(panel, title, description, unit, [now(expr, as_table=True)], span, height)


def words(title: str, markdown: str, *, span: int = 12, height: int = 10) -> text.Panel:
    """A text, for reading."""
    panel = text.Panel().mode(text_models.TextMode.MARKDOWN).content(markdown)
    return panel.title(title).transparent(True).span(span).height(height)


def ref_id(place: int) -> str:
    """The letter Grafana gives the query at this place of a panel: A, B, …"""
    return string.ascii_uppercase[place]


def styled(**properties: object) -> list[models.DynamicConfigValue]:
    """Properties for an override; "custom__fillBelowTo" stands for Grafana's "custom.fillBelowTo"."""
    return [
        models.DynamicConfigValue(id_val=name.replace("__", "."), value=value) for name, value in properties.items()
    ]


def dashed(colour: str) -> list[models.DynamicConfigValue]:
    """For an override: a line that is a bound, not a measurement."""
    return styled(color=coloured(colour), custom__lineStyle={"fill": "dash", "dash": [8, 8]}, custom__fillOpacity=0)


def coloured(colour: str) -> dict[str, str]:
    """A series in one fixed colour, as the property `color` of an override."""
    return {"mode": "fixed", "fixedColor": colour}


P = TypeVar("P", timeseries.Panel, stat.Panel, statetimeline.Panel, table.Panel, bargauge.Panel)


def _finish(
    panel: P,
    title: str,
    description: str,
    unit: str,
    targets: Sequence[prometheus.Dataquery],
    span: int,
    height: int,
) -> P:
    for place, target in enumerate(targets):
        panel.with_target(target.ref_id(ref_id(place)))
    panel.datasource(SOURCE).title(title).description(description).span(span).height(height)
    panel.unit(unit).no_value("n/a")
    return panel


def _thresholds(limits: Steps) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for value, colour in limits])
    )


def _mapping(words: Words) -> models.ValueMap:
    return models.ValueMap(
        options={
            value: models.ValueMappingResult(text=word, color=colour, index=place)
            for place, (value, (word, colour)) in enumerate(words.items())
        }
    )


def _link(uid: str, title: str, more: str = "") -> dashboard.DashboardLink:
    """To another dashboard, with the time range and, by default, the variables that are chosen now."""
    url = f"/d/tidewise-{uid}?${{__url_time_range}}&var-datasource=${{datasource}}"
    return dashboard.DashboardLink(title).url(f"{url}&{more}" if more else url)
