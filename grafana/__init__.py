"""Grafana dashboards as code: one module a dashboard; `python -m grafana` makes the JSON in `dashboards/` of them."""

import warnings

with warnings.catch_warnings():
    # The SDK would rather have its newer dashboard model, which only the newest Grafana provisions from files; this
    # one is provisioned by all of them. It warns when these are first imported: so here.
    warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
    from grafana_foundation_sdk.builders import dashboard, table

__all__ = ["dashboard", "table"]
