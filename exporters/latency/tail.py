"""Follows a log from where it was left, whatever is done to the file: each line comes once.

Renamed and made anew (the old one is read to its end first), copied and truncated (what was not read yet is read in
the copy), rotated several times, or while nobody looked: a place in a log is known again by the bytes before it, and a
file that was read by how it begins, whatever they are called now. No clock is asked.
"""

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

CHUNK = 1 << 20  # bytes read at once, and the longest line that is looked at
MARK = 256  # bytes at the beginning and before the place by which a file is known again
LINGER_SECONDS = 5.0  # a server may write on into the old file before it opens the new one
GONE_SECONDS = 60.0  # a file may be away for a moment while it is rotated
MOST_KNOWN = 200  # rotated files of which it is remembered that they are no news

Head = tuple[int, str]  # how a file begins: of so many bytes, a digest


class Place(BaseModel):
    """A place in a log, as it is kept over a restart. mark: of the bytes before it; skipping: inside of a long line."""

    model_config = ConfigDict(strict=True, extra="forbid")

    device: int
    inode: int
    offset: Annotated[int, Field(ge=0)]
    mark: str
    skipping: bool = False


class _File:
    """One file that is open, read up to `offset`."""

    def __init__(self, descriptor: int, offset: int = 0, *, skipping: bool = False) -> None:
        self.descriptor = descriptor
        self.device, self.inode = self.state.st_dev, self.state.st_ino
        self.move_to(offset)
        self.skipping = skipping
        self.left_at: float | None = None  # time.monotonic() at which another took its place
        self.done = False  # to its last byte, the partial line at its end included

    @property
    def state(self) -> os.stat_result:
        return os.fstat(self.descriptor)

    @property
    def unchanged(self) -> bool:
        """Whether what was read is still there."""
        return mark(self.descriptor, self.offset) == self.mark

    def move_to(self, offset: int) -> None:
        self.offset = offset
        self.mark = mark(self.descriptor, offset)
        self.head = head(self.descriptor, offset)

    def begins_as(self, known: Collection[Head]) -> bool:
        """Whether it is one of those, or what has become of one."""
        size = self.state.st_size
        lengths = {length for length, _ in known if 0 < length <= size}
        return any(head(self.descriptor, length) in known for length in lengths)

    def place(self) -> Place:
        return Place.model_construct(
            device=self.device,
            inode=self.inode,
            offset=self.offset,
            mark=self.mark,
            skipping=self.skipping,
        )


class Tail:
    """Reads a log on. `gaps`: how often its place was lost, so that lines may be missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.gaps = 0
        self._files: list[_File] = []  # the last one is the newest; those before it are read to their ends
        self._known: dict[Head, None] = {}  # of rotated files that are read, or were never to be; the oldest first
        self._looked: set[tuple[int, int, int, int]] = set()  # rotated files as they were the last time
        self._started = False
        self._seen_at = time.monotonic()

    @property
    def known(self) -> list[Head]:
        return list(self._known)

    def resume(self, places: Sequence[Place], known: Sequence[Head]) -> None:
        """Go on where that was left. A place that is in no file any more is a gap.

        Raises OSError where a place is not found and the log cannot be looked into either: it may be there.
        """
        candidates = [self.path, *_rotated(self.path)]
        files = [_find(candidates, place) for place in places]
        if None in files:
            try:
                _closed(_open(self.path))
            except OSError:
                for file in files:
                    if file is not None:
                        _closed(file)
                raise
        self._started = True
        self._known = dict.fromkeys(known)
        for number, found in enumerate(files):
            last = number == len(files) - 1
            if found is None:
                self.gaps += 1
            else:
                self._files.append(found)
                found.left_at = None if last else time.monotonic()

    def begin_at_end(self) -> None:
        """Leave out what is in the log already; if there is none yet, all of it is new. Raises OSError."""
        for file in self._news([]):
            _closed(file)
        try:
            file = _open(self.path)
        except FileNotFoundError:
            self._started = True
            return
        self._started = True
        size = file.state.st_size
        before = os.pread(file.descriptor, CHUNK, max(0, size - CHUNK))
        line_end = before.rfind(b"\n") + 1
        file.skipping = line_end == 0 and size >= CHUNK
        file.move_to(size if file.skipping else size - len(before) + line_end)
        self._files.append(file)

    def places(self) -> list[Place]:
        return [file.place() for file in self._files]

    @property
    def behind_bytes(self) -> int:
        """What is written and not read."""
        return sum(max(0, file.state.st_size - file.offset) for file in self._files)

    def read(self, until: float, take: Callable[[bytes], None], skipped: Callable[[], None]) -> bool:
        """Give whole lines to `take`, and call `skipped` for each that is too long; whether all there was is read.

        until: a time.monotonic() after which nothing more is read. Raises OSError where the log is not there.
        """
        if not self._started:
            self.begin_at_end()
        for _ in range(4):  # it may be truncated while it is read
            try:
                self._notice()
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
                self._open_again()
            done = [self._read(file, until, take, skipped) for file in self._files]
            if None not in done:
                break
        for file in self._files:
            if file.done:
                self._remember(file)
        self._files = [file for file in self._files if not (file.done and _closed(file))]
        return all(done)

    def close(self) -> None:
        for file in self._files:
            os.close(file.descriptor)
        self._files = []

    def _open_again(self) -> None:
        """After its server has let go of the open files (NFS): find the places as after a restart."""
        stale, self._files = self._files, []
        try:
            self.resume([file.place() for file in stale], self.known)
        except OSError:
            self._files = stale
            raise
        for file in stale:
            _closed(file)

    def _notice(self) -> None:
        """Open what has become the log since the last time."""
        now = time.monotonic()
        truncated = [file for file in self._files if not file.unchanged]
        try:
            new = _open(self.path)
        except FileNotFoundError:
            new = None
        try:
            news = self._news([*self._files, new] if new else self._files)
        except OSError:
            if new is not None:
                _closed(new)
            raise
        for file in truncated:
            self._truncated(file)
        current = self._files[-1] if self._files else None
        # When else the file is the same, what appears beside it was put there by somebody, and is none of the log's.
        turned = bool(truncated) or new is None or current is None or current.offset == 0
        if new is None:
            pass
        elif current is None:
            self._files.append(new)
        elif os.path.samestat(new.state, current.state):
            _closed(new)
        else:
            if current.offset and mark(new.descriptor, current.offset) == current.mark:
                new.move_to(current.offset)  # the same lines in a new file: edited, or a copy in its place
                new.skipping, current.done = current.skipping, True
            else:
                turned = True
            current.left_at = now
            self._files.append(new)
        for file in news:
            file.left_at = now
        if turned:
            self._files[-1:-1] = news
        else:
            for file in news:
                _closed(file)
        if new is not None or (current is not None and current.offset < current.state.st_size):
            self._seen_at = now  # it is there, or written under another name
        elif not self._files or now - self._seen_at > GONE_SECONDS:
            raise FileNotFoundError(f"{self.path}: no such file; is the path right, and does the server write there?")

    def _truncated(self, file: _File) -> None:
        """What was read is no more in it: go on in the copy that was made, and then from its beginning."""
        old = _find(list(_rotated(self.path)), file.place())
        if old is None:
            self.gaps += 1
        else:
            old.left_at = time.monotonic()
            self._files.insert(self._files.index(file), old)
        file.move_to(0)
        file.skipping, file.done = False, False

    def _news(self, opened: Sequence[_File]) -> list[_File]:
        """The rotated files that were not there the last time; none that is open, and no copy of one."""
        reading = {each.head for each in opened}
        reading |= {head(each.descriptor, MARK) for each in opened if each.state.st_size >= MARK}
        found: list[_File] = []
        looked = set()
        for path in _rotated(self.path):
            try:
                state = path.stat()
                as_seen = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
                file = None if as_seen in self._looked else _open(path)
            except OSError:
                continue
            looked.add(as_seen)
            if file is None:
                continue
            if any(os.path.samestat(file.state, each.state) for each in opened):
                _closed(file)
                continue
            try:
                known = file.begins_as({*self._known, *reading})
                self._remember(file)
            except OSError:  # the disk: what cannot be read is no news
                _closed(file)
                continue
            if known:
                _closed(file)
            else:
                found.append(file)
        self._looked = looked
        return found

    def _remember(self, file: _File) -> None:
        """It is no news any more."""
        self._known[head(file.descriptor, file.state.st_size)] = None
        while len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def _read(
        self, file: _File, until: float, take: Callable[[bytes], None], skipped: Callable[[], None]
    ) -> bool | None:
        """Whether all was read that stood there at the beginning; None where the file was truncated meanwhile."""
        if file.done:
            return True
        whole = file.state.st_size
        while True:
            chunk = os.pread(file.descriptor, CHUNK, file.offset)
            if not file.unchanged:
                return None
            end = chunk.rfind(b"\n") + 1
            if end:
                block, file.skipping, inside = chunk[:end], False, file.skipping
                if inside:
                    skipped()
                    block = block[block.index(b"\n") + 1 :]
                if block:
                    take(block.lstrip(b"\0"))  # a server that does not append leaves a hole where it was truncated
                file.move_to(file.offset + end)
            elif len(chunk) == CHUNK:
                file.skipping = True
                file.move_to(file.offset + CHUNK)
            else:
                self._end(file, chunk, take, skipped)
                return True
            if file.offset >= whole and file.left_at is None:
                return True
            if time.monotonic() > until:
                return False

    def _end(self, file: _File, rest: bytes, take: Callable[[bytes], None], skipped: Callable[[], None]) -> None:
        """At the end of what is written; `rest` is the beginning of a line. If nobody writes on, it is a line."""
        if file.left_at is None or time.monotonic() < file.left_at + LINGER_SECONDS:
            return
        file.done = True
        if file.skipping:
            skipped()
        elif rest:
            take(rest + b"\n")
        file.move_to(file.offset + len(rest))


def mark(descriptor: int, offset: int) -> str:
    """By which a place in a file is known again: a digest of the beginning and of the bytes before it."""
    head = os.pread(descriptor, min(MARK, offset), 0)
    tail = os.pread(descriptor, min(MARK, offset), max(0, offset - MARK))
    return hashlib.blake2b(b"%d:%b%b" % (len(head), head, tail), digest_size=12).hexdigest()


def head(descriptor: int, size: int) -> Head:
    """By which a file is known again that begins like this, of `size` bytes that are in it."""
    begin = os.pread(descriptor, min(MARK, size), 0)
    return len(begin), hashlib.blake2b(begin, digest_size=12).hexdigest()


def _closed(file: _File) -> bool:
    os.close(file.descriptor)
    return True


def _open(path: Path) -> _File:
    """Raises OSError, also for what is no file: it cannot be read again, and might never answer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path}: is no regular file; have the server write its log to one")
    return _File(descriptor)


def _find(candidates: Sequence[Path], place: Place) -> _File | None:
    """The file that has the place, opened there: the one it was in, or else of several copies the longest."""
    found: list[tuple[bool, int, _File]] = []
    for path in candidates:
        try:
            file = _open(path)
        except OSError:
            continue
        same = (file.device, file.inode) == (place.device, place.inode)
        size = file.state.st_size
        try:
            is_it = size >= place.offset and mark(file.descriptor, place.offset) == place.mark
        except OSError:
            is_it = False
        if is_it and (same or place.offset):
            file.move_to(place.offset)
            file.skipping = place.skipping
            found.append((same, size, file))
        else:
            _closed(file)
    found.sort(key=lambda each: each[:2])
    for _, _, file in found[:-1]:
        _closed(file)
    return found[-1][2] if found else None


def _rotated(path: Path) -> Iterator[Path]:
    """access.log.1, access.log-20261127, access-20261127.log, access.1.log … beside access.log; nothing compressed."""
    number = r"[.-]\d[\dT_.:-]*"
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    pattern = re.compile(rf"{stem}(?:{suffix}{number}|{number}{suffix})")
    try:
        names = os.listdir(path.parent)
    except OSError:
        return
    for name in sorted(names):
        if pattern.fullmatch(name):
            yield path.parent / name
