"""Cards for the tests: NVML as a shim that a text file steers, or the real library where the machine has one."""

import ctypes
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from exporters.gpu import card, xids
from exporters.gpu.fleet import Fleet

HERE = Path(__file__).parent
TWO_CARDS = HERE / "two_cards.txt"


class State:
    """What the shim answers. Every change is there at once, for calls that hang as well."""

    def __init__(self, folder: Path, text: str) -> None:
        self.path, self.calls_path = folder / "state.txt", folder / "calls.txt"
        self._lines = dict(line.split(":", 1) for line in text.splitlines())
        self._write()

    def set(self, **lines: str | None) -> None:
        """`gpu0__nvmlDeviceGetPowerUsage="error 15"`; None takes the line out."""
        for key, value in lines.items():
            self[key.replace("__", ".")] = value

    def __setitem__(self, key: str, value: str | None) -> None:
        self._lines.pop(key, None)
        if value is not None:
            self._lines[key] = f" {value}"
        self._write()

    def __getitem__(self, key: str) -> str | None:
        value = self._lines.get(key)
        return None if value is None else value.removeprefix(" ")

    def calls(self) -> list[str]:
        """Made since the last time this was asked."""
        text = self.calls_path.read_text() if self.calls_path.exists() else ""
        self.calls_path.unlink(missing_ok=True)
        return text.split()

    def _write(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text("".join(f"{key}:{value}\n" for key, value in self._lines.items()))
        new.replace(self.path)


def real_library() -> bool:
    """Whether there is a card here, by a process of its own: the library is loaded once for good."""
    program = "import pynvml; pynvml.nvmlInit(); raise SystemExit(pynvml.nvmlDeviceGetCount() == 0)"
    done = subprocess.run(["python3", "-c", program], capture_output=True, timeout=60)
    return done.returncode == 0


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libnvidia-ml.so.1, built from nvml_shim.c."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: the shim of NVML cannot be built")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    flags = ["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([compiler, *flags, "-o", library, HERE / "nvml_shim.c"], check=True)
    return library


@pytest.fixture
def cards(shim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """Two cards of different ability, as the shim has them, in this process."""
    state = State(tmp_path, TWO_CARDS.read_text())
    monkeypatch.setenv("TIDEWISE_NVML_STATE", str(state.path))
    monkeypatch.setenv("TIDEWISE_NVML_CALLS", str(state.calls_path))
    library = ctypes.CDLL(str(shim))
    library.shimReset()
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(xids, "WAIT_MILLISECONDS", 10)
    monkeypatch.setattr(card, "SHORTEST_WINDOW_SECONDS", 0.0)
    return state


FleetFactory = Callable[..., Fleet]


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[FleetFactory]:
    """`make_fleet(owned=…, retry_seconds=…, patience_seconds=…)`; all are closed after the test."""
    made: list[Fleet] = []

    def make(**options: Any) -> Fleet:
        options = {"owned": None, "retry_seconds": 0.0, "patience_seconds": 5.0, "proc": tmp_path / "proc"} | options
        made.append(Fleet(lambda: pynvml, **options))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


@pytest.fixture
def nvml(request: pytest.FixtureRequest) -> str:
    """Which library the test looks through: "real" where there is a card, else "shim" with two cards."""
    if _REAL:
        return "real"
    request.getfixturevalue("cards")
    return "shim"


_REAL = real_library()


def until(done: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.01)
