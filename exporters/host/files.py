"""The kernel's files, read as a whole: each is made anew when it is read, and none is worth a buffer."""

import os
from pathlib import Path


def read(path: str | Path) -> bytes:
    """All of a file. OSError where it is missing, or the kernel refuses."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        first = os.read(descriptor, 65536)
        pieces = [first]
        while piece := os.read(descriptor, 65536):
            pieces.append(piece)
    finally:
        os.close(descriptor)
    return first if len(pieces) == 1 else b"".join(pieces)


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
