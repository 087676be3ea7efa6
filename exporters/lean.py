"""Keeps out of memory what a library loads and no process of ours uses: 7 of 45 MiB.

structlog loads `rich`, where it is installed, for tracebacks in colour, and asyncio for loggers that are awaited. While
structlog is loaded, the first is hidden from it and the second a name behind which asyncio is loaded when it is used.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def load_structlog() -> None:
    """Import structlog without what it would bring along. Nothing where it, or that, is loaded already."""
    if "structlog" in sys.modules:
        return
    stand_ins: dict[str, Any] = {"rich": None, "asyncio": _Later("asyncio")}  # None: an import says ImportError
    ours = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(ours)
    try:
        importlib.import_module("structlog")
    finally:
        for name in ours:
            del sys.modules[name]
