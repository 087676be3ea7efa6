"""What an exporter does not use is not loaded, and is whole for whoever loads it later."""

import subprocess
import sys

PROGRAM = """
import sys
import exporters.__main__ as exporter
section = exporter.read_section(None, ["host"])
exporter.collect_functions(section, ["host"], exporter.DEFAULT_CONFIG)
luggage = ("asyncio", "rich", "ssl", "_hashlib", "http.server", "urllib.request", "yaml")
print([name for name in luggage if name in sys.modules])

import asyncio, http.server, secrets, ssl, urllib.request
import structlog, prometheus_client, cheroot.ssl.builtin
ssl.create_default_context()
assert issubclass(http.server.BaseHTTPRequestHandler, object) and secrets.token_hex() and urllib.request.urlopen
prometheus_client.Counter("a", "A.").inc()
assert b"a_total 1.0" in prometheus_client.generate_latest()

async def log():
    await structlog.get_logger().ainfo("heard")

asyncio.run(log())
"""


def test_an_exporter_carries_no_luggage_and_hides_nothing_from_others() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[]\n")
    assert "heard" in done.stdout


STUBBORN = """
import pathlib, sys, tempfile
from exporters import lean
folder = tempfile.mkdtemp()
sys.path.insert(0, folder)
pathlib.Path(folder, "stubborn.py").write_text("from colorsys import rgb_to_hsv")
lean._load("stubborn", {"colorsys": None})
print(sys.modules["stubborn"].rgb_to_hsv.__module__)
"""


def test_a_library_that_cannot_do_without_gets_all_of_it() -> None:
    done = subprocess.run([sys.executable, "-c", STUBBORN], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("colorsys\n", "")
