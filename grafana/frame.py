"""The frame of every dashboard: its variables, links to the others and to the runbooks, and what happened when."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import Dataquery

from grafana.panels import BLUE, PURPLE, RED, SOURCE, Panel

TAG = "tidewise"


def choice(
    name: str,
    label: str,
    description: str,
    series: str,
    of: str,
    *,
    many: bool = True,
    first: str = "",
    numeric: bool = False,
) -> dashboard.QueryVariable:
    """A variable: the values of the label `of` that `series` has. `many`: several or all; `first`: chosen at first."""
    variable = (
        dashboard.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .query(f"label_values({series}, {of})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NUMERICAL_ASC if numeric else models.VariableSort.ALPHABETICAL_ASC)
    )
    if many:
        # ".+" and not the list of all: it also finds what there is no longer, and nothing chosen is not an error.
        variable.multi(True).include_all(True).all_value(".+")
        variable.current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    elif first:
        variable.current(models.VariableOption(selected=True, text=first, value=first))
    return variable


WORKLOADS = choice("workload", "Workload", "Namespace and name of what is scaled", "workload:replicas:max", "workload")
WORKLOAD = choice(
    "workload", "Workload", "Namespace and name of what is scaled", "workload:replicas:max", "workload", many=False
)


def board(
    uid: str,
    title: str,
    description: str,
    parts: Sequence[tuple[str, Sequence[Panel]]],
    *,
    variables: Sequence[dashboard.QueryVariable | dashboard.TextBoxVariable] = (),
    span: tuple[str, str] = ("now-1h", "now"),
    refresh: str = "30s",
    events: str = "",
) -> models.Dashboard:
    """A whole dashboard. `parts`: (heading, panels); `events`: a PromQL matcher, the decisions of these are marked."""
    frame = (
        dashboard.Dashboard(f"Tidewise / {title}")
        .uid(f"tidewise-{uid}")
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(*span)
        .refresh(refresh)
        .readonly()
        .links(_links(uid))
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in variables:
        frame.with_variable(variable)
    frame.annotation(
        _events(
            "Alerts",
            'ALERTS{alertstate="firing", severity!="none"}',
            RED,
            "{{alertname}}",
            "{{workload}} {{queue}} {{instance}} {{collector}}",
        )
    )
    # Not the state: an attempt may be over between two scrapes.
    acted = "sum by (target, remedy) (increase(tidewise_recovery_actions_total[$__rate_interval])) > 0"
    frame.annotation(_events("Recoveries", acted, PURPLE, "Recovery acts", "{{target}} {{remedy}}"))
    if events:
        series = f"workload:replicas:desired{{{events}}}"
        changed = f"1 + 0 * ({series} != {series} offset 1m)"  # Grafana takes no 0 for an event
        frame.annotation(_events("Decisions", changed, BLUE, "Replicas decided anew", "{{workload}}"))
    for heading, panels in parts:
        frame.with_row(dashboard.Row(heading))
        for one in panels:
            frame.with_panel(one)
    built = frame.build()
    for place, panel in enumerate(built.panels or (), start=1):
        panel.id_val = place  # Grafana would number them itself, but links to one panel need it to stay
        if span[1] != "now" and isinstance(panel, models.Panel) and _asks_for_now(panel):
            panel.time_from, panel.hide_time_override = "5m", True  # else the end of the range is taken for now
    return built


def _asks_for_now(panel: models.Panel) -> bool:
    return any(isinstance(target, Dataquery) and target.instant for target in panel.targets or ())


def _links(uid: str) -> list[Builder[models.DashboardLink]]:
    """At the top: back to the overview, to every other dashboard, and to what to do about an alert."""
    shown: list[Builder[models.DashboardLink]] = [
        dashboard.DashboardLink("Dashboards")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .keep_time(True)
        .include_vars(True)
    ]
    for other, title in (("overview", "Overview"), ("runbooks", "Runbooks")):
        if other != uid:
            link = dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(f"/d/tidewise-{other}")
            shown.append(link.keep_time(True).include_vars(True))
    return shown


def _events(name: str, expr: str, colour: str, title: str, about: str) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(True)
        .icon_color(colour)
        .expr(expr)
        .step("60s")
        .title_format(title)
        .text_format(about)
        .tag_keys("severity")
    )
