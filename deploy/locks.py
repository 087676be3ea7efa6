"""What an image installs: the part of requirements.lock that a set of extras needs, with its hashes."""

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
FOLDER = Path(__file__).parent / "docker"

# One file an image: what is asked for. `build` makes the wheel that the others install.
IMAGES = {
    "exporters": "tidewise[exporters]",
    "controllers": "tidewise[redis,aws,grpc,docker,cluster,kubernetes,budget]",
    "build": "hatchling",
}
HEADER = "# Of requirements.lock, what {} needs: `python -m deploy locks` writes it.\n"


def render_lock(wanted: str) -> str:
    """The lines of requirements.lock for one requirement and all that it needs."""
    pinned = _pinned(LOCK.read_text(encoding="utf-8"))
    needed = _closure(Requirement(wanted))
    lines = [text for name, texts in sorted(pinned.items()) if name in needed for text in texts]
    return HEADER.format(wanted) + "".join(lines)


def _pinned(lock: str) -> dict[str, list[str]]:
    """Name -> its entries; a name with markers may have several."""
    found: dict[str, list[str]] = {}
    for entry in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE):
        if name := re.match(r"[A-Za-z0-9._-]+", entry):
            found.setdefault(canonicalize_name(name[0]), []).append(entry)
    return found


def _closure(wanted: Requirement) -> set[str]:
    """Names of all that is needed. What only another system or Python needs counts as needed: the lock has a marker."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [wanted]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        for extra in ("", *sorted(one.extras)):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += _needs(name, extra)
        found.add(name)
    return found


def _needs(name: str, extra: str) -> Iterable[Requirement]:
    try:
        texts = requires(name) or []
    except PackageNotFoundError:  # what another system or Python needs; the lock has its own needs beside it
        return
    for text in texts:
        requirement = Requirement(text)
        asked = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", str(requirement.marker or ""))
        if canonicalize_name(asked[1] if asked else "") == canonicalize_name(extra):
            yield requirement
