"""The kernel's files, read as a whole: each is made anew when it is read, and none is worth a buffer."""

import os
from pathlib import Path


class KernelFile:
    """A file that stays open: to look its path up at each scrape takes longer than most of them take to read.

    The kernel writes it anew whenever it is read from its beginning. Not safe for threads.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._descriptor: int | None = None

    def read(self) -> bytes:
        """All of it. OSError where it is missing, or the kernel refuses; the next time it is opened again."""
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.pread(self._descriptor, 65536, 0)
            while piece := os.pread(self._descriptor, 65536, len(text)):
                text += piece
        except OSError:
            self.close()
            raise
        return text

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    __del__ = close


def read(path: str | Path) -> bytes:
    """All of a file, once."""
    return KernelFile(path).read()


def is_readable(path: str | Path) -> bool:
    """A kernel may have the file and refuse to read it (pressure switched off at boot)."""
    try:
        read(path)
    except OSError:
        return False
    return True


def number(text: bytes, name: bytes) -> int | None:
    """The whole number behind `name` at the beginning of a line; None where there is no such line."""
    start = 0 if text.startswith(name) else text.find(b"\n" + name) + 1
    if start == 0 and not text.startswith(name):
        return None
    start += len(name)
    end = text.find(b"\n", start)
    words = text[start : end if end >= 0 else None].split(None, 1)
    return int(words[0]) if words and words[0].isdigit() else None
