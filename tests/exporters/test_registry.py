"""Adding an exporter: one file and one line. And what is not asked for is not even imported."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporters.__main__ import collect_functions, read_section
from exporters.collector import CollectFunction
from exporters.config import exporters_model
from exporters.registry import EXPORTERS, exporter
from exporters.runtime.config import ConfigError

TOY = '''
"""A toy."""
from prometheus_client.core import GaugeMetricFamily
from exporters.runtime.config import Section

class Config(Section):
    """How many toys."""
    number: int = 3

def collectors(config):
    return {"box": lambda deadline: [GaugeMetricFamily("toys", "Toys in the box.", config.number)]}
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one file and the one line; the folder is also the current one."""
    (tmp_path / "toy_exporter.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(EXPORTERS, "toy", "toy_exporter")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_exporter_is_one_file_and_one_line(
    toy: Path, page: Callable[[Mapping[str, CollectFunction]], str]
) -> None:
    config = toy / "tidewise.yaml"
    config.write_text("exporters:\n  toy: {number: 5}\n")
    functions = collect_functions(read_section(None, ["toy"]), ["toy"], config)
    assert list(functions) == ["toy.box"]
    assert page(functions).endswith("\ntoys 5.0\n")


def test_its_section_is_checked_and_in_the_schema(toy: Path) -> None:
    (toy / "tidewise.yaml").write_text("exporters: {toy: {numbr: 5}}\n")
    with pytest.raises(ConfigError) as refused:
        read_section(None, ["toy"])
    assert str(refused.value) == "tidewise.yaml: exporters.toy.numbr: unknown key; did you mean 'number'?"
    assert "toy" in exporters_model().model_json_schema()["properties"]


@pytest.mark.parametrize(
    "text",
    [pytest.param(None, id="no file"), "exporters: {}\n", "exporters: {toy: }\n", "exporters:\n", "workloads: []\n"],
)
def test_without_a_section_the_defaults_hold(toy: Path, text: str | None) -> None:
    if text is not None:
        (toy / "tidewise.yaml").write_text(text)
    section: Any = read_section(None, ["toy"])
    assert section.listen == ["127.0.0.1:9811"]
    ((metric,),) = (function(0.0) for function in collect_functions(section, ["toy"], toy).values())
    assert metric.samples[0].value == 3


def test_an_exporter_that_does_not_run_is_not_checked(toy: Path) -> None:
    (toy / "tidewise.yaml").write_text("exporters: {toy: {}, queue: {nonsense: 1}}\n")
    read_section(None, ["toy"])
    with pytest.raises(ConfigError):
        read_section(None, ["toy", "queue"])


def test_every_registered_exporter_keeps_to_the_protocol() -> None:
    for name in EXPORTERS:
        assert issubclass(exporter(name).Config, object)
        assert callable(exporter(name).collectors)
        assert callable(exporter(name).demo)
        assert isinstance(exporter(name).FAMILIES, tuple)
        assert exporter(name).Config.__doc__, "the schema shows it"


def test_host_alone_imports_neither_queues_nor_redis_nor_what_passwords_and_tls_need() -> None:
    program = (
        "import sys, exporters.__main__\n"
        "from exporters.__main__ import read_section\n"
        "read_section(None, ['host'])\n"
        "heavy = 'exporters.queue', 'exporters.runtime.web', 'bcrypt', 'redis', 'numpy', 'pandas', 'requests'\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n", done.stderr


def test_an_exporter_without_anything_to_watch_says_so(tmp_path: Path) -> None:
    config = tmp_path / "tidewise.yaml"
    config.write_text("exporters: {}\n")
    with capture_logs() as logs:
        functions = collect_functions(
            read_section(config, ["host", "queue", "database"]), ["host", "queue", "database"], config
        )
    assert {name.partition(".")[0] for name in functions} == {"host"}
    assert [(log["event"], log["exporter"]) for log in logs] == [
        ("nothing_configured", "queue"),
        ("nothing_configured", "database"),
    ]
