"""What `tidewise forecast` answers on the terminal."""

import json
from types import SimpleNamespace

import pytest

from controllers.forecast.command import once

NAME = "default/a"


@pytest.fixture
def source(make: SimpleNamespace) -> SimpleNamespace:
    return make.FakeSource({NAME: lambda t: 10 + t % 7})


def test_once_prints_a_table_or_json(
    make: SimpleNamespace, source: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make.config("a", "b", history_days=2)
    assert once(config, source, "table") == 1  # b has no samples
    shown = capsys.readouterr()
    assert f"{NAME}: " in shown.out
    assert "3600s" in shown.out
    assert "default/b: no forecast (no_samples)" in shown.err
    assert once(make.config("a", history_days=2), source, "json") == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert [horizon["seconds"] for horizon in told["horizons"]] == [120, 300, 900, 1800, 3600]
