"""What an exporter declares, it shows: of a real server or a stand-in, not only in its demonstration."""

from pathlib import Path

import pytest

from exporters.reference import families_by_exporter
from tests.exporters.seen import MISSING, seen


def test_every_family_had_a_value_that_was_not_made_up(request: pytest.FixtureRequest) -> None:
    """The last of all tests: it judges the others."""
    config, here = request.config, Path(__file__).parent
    chosen = any(config.getoption(name, False) for name in ("keyword", "markexpr", "lf")) or "::" in str(config.args)
    if chosen or not {item.path for item in request.session.items} >= set(here.rglob("test_*.py")):
        pytest.skip("only a run of all the exporters' tests tells which families they never see")
    if MISSING:
        pytest.skip(f"without what these need, some families are seen by no test: {', '.join(sorted(MISSING))}")
    declared = {title: declared for title, declared in families_by_exporter().items() if title != "every exporter"}
    unseen = [
        f"{title}: {family.series}" for title, of in declared.items() for family in of if family.name not in seen()
    ]
    assert unseen == []
