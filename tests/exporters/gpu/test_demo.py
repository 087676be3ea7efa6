"""What `--demo` shows of cards: every family, the same series at each time, counters that never fall."""

from exporters.gpu import FAMILIES, demo


def series(at: float) -> dict[tuple[str, ...], float]:
    return {(s.name, *s.labels.values()): s.value for metric in demo(at) for s in metric.samples}


def test_every_family_is_shown() -> None:
    assert {metric.name for metric in demo(1.7e9)} == {family.name for family in FAMILIES}


def test_the_same_series_at_each_time_and_counters_that_never_fall() -> None:
    before, after = series(1.79e9), series(1.79e9 + 3600)
    assert before.keys() == after.keys()
    assert before != after
    assert all(after[key] >= value for key, value in before.items() if key[0].endswith("_total"))
    assert before == series(1.79e9)


def test_what_is_shown_is_plausible_and_labelled() -> None:
    for at in range(1_790_000_000, 1_790_002_000, 100):
        for (name, *labels), value in series(float(at)).items():
            assert value >= 0
            assert not name.endswith("_ratio") or value <= 1, name
            if name.startswith("gpu_") and not name.startswith("gpu_driver"):
                assert labels[0].startswith("demo-")
