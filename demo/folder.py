"""The demo's own folder: made, locked against a second demo, and emptied only where a demo made it."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = "made-by-tidewise-demo"


class FolderError(Exception):
    """The folder cannot be used. `str()` says what to do."""


@contextmanager
def taken(folder: Path) -> Iterator[Path]:
    """The folder, empty but for its mark, and locked as long as the context lasts. Raises FolderError."""
    mark = folder / MARK
    try:
        if folder.exists() and not mark.exists() and any(folder.iterdir()):
            raise FolderError(f"{folder}: holds files that no demo made; give an empty folder with --folder")
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise FolderError(f"{folder}: {error.strerror}; give a folder of yours with --folder") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderError(f"{folder}: another demo runs in it; stop that one, or give another --folder") from None
        for path in folder.iterdir():
            if path != mark:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        yield folder
    finally:
        os.close(lock)
