"""The file in which entries wait for the store. What is in it survives a kill of the process.

Every entry is appended here first and shipped to the store from here, so that a store which is away or slow only makes the file
longer. A process holds a lock on its file; a file whose lock is free was left by a process that died, and is adopted: read to its
end and removed. Where no file can be written, entries wait in memory, up to a limit.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import structlog

CHUNK = 1 << 20
MEMORY = 64 << 20  # about 30,000 entries; a process that holds more than that in vain is close to its end

log = structlog.get_logger("guardrail")


class Spool:
    """The spool of this process. `append` and `read` may be called from two threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._size = self._read = 0
        self._memory = bytearray()
        self._writable = True
        self._lock = threading.Lock()

    def append(self, lines: bytes) -> bool:
        """Keep whole lines; False where they are lost."""
        with self._lock:
            if not self._memory and self._append_to_file(lines):
                return True
            # Order is kept: what follows waits in memory too, until the store has taken all of it.
            if len(self._memory) + len(lines) > MEMORY:
                return False
            self._memory += lines
            return True

    def next(self) -> list[bytes]:
        """The next lines that wait, some hundreds; they are there until `shipped` says otherwise."""
        with self._lock:
            if self._fd is not None and self._read < self._size:
                return _lines(self._fd, self._read)
            return bytes(self._memory[: self._memory.rfind(b"\n", 0, CHUNK) + 1 or self._memory.find(b"\n") + 1]).splitlines(keepends=True)

    def shipped(self, count: int) -> None:
        """The store has so many bytes of what `next` gave."""
        with self._lock:
            if self._fd is None or self._read == self._size:
                del self._memory[:count]
                return
            self._read += count
            if self._read == self._size:
                os.ftruncate(self._fd, 0)
                self._read = self._size = 0

    @property
    def waiting(self) -> bool:
        """Whether anything is here that the store does not have."""
        with self._lock:
            return self._read < self._size or bool(self._memory)

    def close(self) -> None:
        """Let go of the file; an empty one is removed, another stays for who comes next."""
        with self._lock:
            if self._fd is not None:
                if self._read == self._size:
                    self._path.unlink(missing_ok=True)
                os.close(self._fd)
                self._fd = None

    def _append_to_file(self, lines: bytes) -> bool:
        try:
            if self._fd is None:
                self._fd = locked_file(self._path)
            written = 0
            while written < len(lines):
                written += os.pwrite(self._fd, lines[written:], self._size + written)
        except OSError as error:
            if self._writable:
                log.error("audit_spool_not_writable", path=str(self._path), error=error.strerror, alarm=True)
            self._writable = False
            if self._fd is not None:
                os.ftruncate(self._fd, self._size)
            return False
        self._size += len(lines)
        self._writable = True
        return True


class Orphan:
    """The spool of a process that died, held by us."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._read = 0

    def next(self) -> list[bytes]:
        return _lines(self._fd, self._read)

    def shipped(self, count: int) -> None:
        self._read += count

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def orphans(base: Path) -> Iterator[Orphan]:
    """The spools beside `base` whose processes are gone. Raises OSError."""
    for path, fd in orphan_files(base.parent, f"{base.name}-"):
        yield Orphan(path, fd)


def orphan_files(folder: Path, prefix: str) -> Iterator[tuple[Path, int]]:
    """Files whose lock is free, each locked by us until the next is asked for. Raises OSError."""
    for path in sorted(folder.glob(f"{prefix}*")):
        try:
            fd = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:  # otherwise another process has just finished with it
                yield path, fd
        except BlockingIOError:
            continue
        finally:
            os.close(fd)


def locked_file(path: Path) -> int:
    """The file, made and locked. Between the two another process may take it for an orphan and remove it: then once more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)


def _lines(fd: int, start: int) -> list[bytes]:
    """Whole lines from an offset on; a torn last one only where nothing else is left."""
    size = CHUNK
    while True:
        found = os.pread(fd, size, start)
        end = found.rfind(b"\n") + 1
        if end or len(found) < size:
            # Split at line feeds only: nothing else ends a line, and JSON has no bare ones.
            return found[: end or len(found)].splitlines(keepends=True)
        size *= 2  # one line is longer than that
