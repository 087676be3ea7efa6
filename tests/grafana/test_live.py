"""Every query of every panel of every dashboard, against the Prometheus of a live demo."""


from grafana.queries import Query
from tests.live_demo import LiveDemo

# What a short demo cannot have, by dashboard and panel (or all panels of a dashboard), and why.
MISSING: dict[tuple[str, str], str] = {}


def missing(query: Query) -> bool:
    return (query.dashboard, query.panel) in MISSING or (query.dashboard, "*") in MISSING


def test_every_query_of_every_panel_has_series(live_demo: LiveDemo) -> None:
    silent = [query for query in live_demo.silent if not missing(query)]
    assert silent == [], "\n".join(
        f"{query.dashboard} / {query.panel} / {query.letter}: {query.expr}" for query in silent
    )


def test_what_is_said_to_be_missing_is_missing_and_a_small_part(live_demo: LiveDemo) -> None:
    found = {(query.dashboard, query.panel) for query in live_demo.silent}
    assert {about for about in MISSING if about[1] != "*"} <= found, "these have series by now: take them out"
    assert len(MISSING) < 0.1 * len(live_demo.answers)
