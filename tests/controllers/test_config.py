"""One bad file for each mistake, with the exact sentence it gets; and what a good file comes to."""

from decimal import Decimal
from pathlib import Path

import pytest

from controllers.check import read
from controllers.config import Config, Target, load
from controllers.domain import Mode
from exporters.runtime.config import SECTIONS, ConfigError

GOOD = """\
workloads:
  - name: video-analysis
    demand: {queue: video-jobs}
    target: {command: {get: [count], set: [scale, "{replicas}"]}}
    replicas: {max: 4}
"""


def replaced(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def added(line: str) -> str:
    return f"{GOOD}    {line}\n"


def bad_files() -> list[tuple[str, str, list[str]]]:
    """(name, content, sentences) of each block of bad_files.txt."""
    found = []
    for block in (Path(__file__).parent / "bad_files.txt").read_text().split("\n=== ")[1:]:
        name, _, rest = block.partition("\n")
        content, *sentences = rest.rstrip("\n").split(">>> ")
        found.append((name, content, [sentence.rstrip("\n") for sentence in sentences]))
    return found


BAD = bad_files()
ALL = {"{sections}": ", ".join(sorted(SECTIONS)), "{targets}": ", ".join(sorted(Target.model_fields))}


@pytest.mark.parametrize(("text", "sentences"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_file(tmp_path: Path, text: str, sentences: list[str]) -> None:
    path = tmp_path / "tidewise.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert sentences
    for word, known in ALL.items():
        sentences = [sentence.replace(word, known) for sentence in sentences]
    assert caught.value.problems == [f"{path}: {sentence}" for sentence in sentences]


def test_the_sections_of_the_controllers_are_checked_alike_by_a_controller(tmp_path: Path) -> None:
    path = tmp_path / "tidewise.yaml"
    path.write_text(added("moed: act"))
    with pytest.raises(ConfigError, match="did you mean 'mode'"):
        load(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file; create it, or name another with --config$"):
        load(tmp_path / "tidewise.yaml")


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "tidewise.yaml"
    path.write_bytes(b"workloads: \xff\n")
    with pytest.raises(ConfigError, match=r"cannot be read .* check its permissions and that it is UTF-8"):
        load(path)


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)


def loaded(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "tidewise.yaml"
    path.write_text(text)
    return load(path)


def test_a_first_workload_starts_in_shadow(tmp_path: Path) -> None:
    (workload,) = loaded(tmp_path, GOOD).workloads
    assert workload.identity == "default/video-analysis"
    assert workload.mode is Mode.SHADOW
    assert workload.demand.system == "redis"
    assert workload.target.kind == "command"


def test_money_keeps_its_currency_and_every_digit(tmp_path: Path) -> None:
    (workload,) = loaded(tmp_path, added("price: {per_replica_hour: '1,200.10 USD'}")).workloads
    assert workload.price is not None
    assert workload.price.per_replica_hour.amount == Decimal("1200.10")
    assert str(workload.price.per_replica_hour) == "1,200.10 USD"


def test_a_floor_that_just_fits_its_budget(tmp_path: Path) -> None:
    text = replaced("max: 4", "min: 1, max: 4") + "    price: {per_replica_hour: 1 KRW}\nbudget: {total: 744 KRW}\n"
    assert len(loaded(tmp_path, text).workloads) == 1


def test_a_floor_in_another_currency_is_the_ledgers_to_judge(tmp_path: Path) -> None:
    text = replaced("max: 4", "min: 4, max: 4") + "    price: {per_replica_hour: 9 USD}\nbudget: {total: 1 KRW}\n"
    assert len(loaded(tmp_path, text).workloads) == 1


def test_a_workload_is_found_by_either_name_unless_that_is_ambiguous(tmp_path: Path) -> None:
    twins = GOOD + GOOD.removeprefix("workloads:\n") + "    namespace: prod\n"
    config = loaded(tmp_path, twins)
    assert loaded(tmp_path, GOOD).workload("video-analysis") is not None
    assert config.workload("video-analysis") is None
    found = config.workload("prod/video-analysis")
    assert found is not None
    assert found.namespace == "prod"
    assert config.workload("prod/other") is None


def test_a_deadline_needs_a_queue_to_wait_in(tmp_path: Path) -> None:
    text = added(
        "also: [{name: llm, service: llm, slo: {deadline: 6h}}, {name: later, queue: later, slo: {deadline: 6h}}]"
    )
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert "workloads.0.also.0.slo.deadline: found 6h without a queue; only work that waits in a queue" in str(
        caught.value
    )
    assert "also.1" not in str(caught.value)
