"""What a file needs beside its own fsync to be there after a power cut."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """The names in it are on the disk: of a file that was created, renamed or linked there. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
