"""Keeps out of memory what libraries load and an exporter does not use: 12 of 45 MiB.

structlog brings `rich` and greenlet, where they are installed, for tracebacks in colour and old servers, and asyncio
for loggers that are awaited; prometheus-client brings an HTTP server, an HTTP client and TLS for pages that it would
serve or push itself; OpenSSL comes a second and a third time. While a library is loaded, those modules are stand-ins,
which are gone again afterwards: whoever wants one of them imports the real one.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Loads the module when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


class _Empty(ModuleType):
    """Has an empty class for every name: what a class derives from, or a default value, that is never used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def load() -> None:
    """Import the libraries without what they would bring along."""
    # None: an import says that there is no such module
    _load("structlog", {"rich": None, "greenlet": None, "asyncio": _Later("asyncio")})
    servers = ("http.server", "ssl", "urllib.request", "wsgiref.simple_server")
    _load("prometheus_client", {name: _Empty(name) for name in servers})
    _load("cheroot.server", {"ssl": None})  # it looks for a version of it that nobody has any more
    _load("pydantic.types", {"secrets": _Later("secrets")})


def _load(library: str, stand_ins: dict[str, Any]) -> None:
    """What is loaded already stays as it is."""
    if library in sys.modules:
        return
    ours = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(ours)
    try:
        importlib.import_module(library)
    except Exception:  # a version that does something else: then all of it
        package = library.partition(".")[0]
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]
    finally:
        for name in ours:
            del sys.modules[name]
    importlib.import_module(library)
