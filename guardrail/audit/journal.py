"""Exchanges whose answer is complete and whose entry is not in the spool yet. What is noted here survives a kill of the process.

The entry is made after the answer and by another thread, since redacting or encrypting words takes longer than an answer may wait.
So that a kill in between loses no exchange, what was decided is noted here, without any words, before the last bytes of the answer go
out: one write of some microseconds into the system's file cache, which a killed process leaves behind. No store, no lock and no other
thread is waited for, and nothing is forced to the disk.

The file is made of slots: `note` takes one, `forget` gives it back when the spool has the exchange. A process holds a lock on its
file; a file whose lock is free was left by a process that died, and `AuditStore` brings in what it notes. Where nothing can be
noted, because the disk is full or all slots are taken, the answer goes out all the same and the log says so.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import structlog

from guardrail.audit.spool import locked_file, orphan_files

SLOT_BYTES = 8192  # an emergency of twenty rules
SLOTS = 1024  # far more than are answered at once or wait for the spool
_FREE = b"\n"

log = structlog.get_logger("guardrail")


class Journal:
    """The journal of this process. `note` is for the thread that answers, `forget` for the one that fills the spool."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self._free = list(range(SLOTS - 1, -1, -1))  # the last that was given back comes first: few slots are ever touched
        self._taken: dict[str, int] = {}
        self._works = True
        self._open()

    def note(self, entry: Mapping[str, Any]) -> bool:
        """Note an entry without words; False where it could not be. Never raises, never waits for another thread."""
        try:
            line = _line(entry)
            slot = self._taken.get(entry["id"])
            if self._fd is None or line is None or (slot is None and not self._free):
                return self._failed("no room")
            if slot is None:
                slot = self._taken[entry["id"]] = self._free.pop()
            os.pwrite(self._fd, line, slot * SLOT_BYTES)
        except (OSError, TypeError, ValueError) as error:  # a full disk; a name that is no text
            return self._failed(str(error))
        self._works = True
        return True

    def forget(self, ids: Iterable[str]) -> None:
        """The spool has these."""
        if self._fd is None:
            self._open()
            return
        for id in ids:
            slot = self._taken.pop(id, None)
            if slot is not None:
                try:
                    os.pwrite(self._fd, _FREE, slot * SLOT_BYTES)
                except OSError as error:
                    self._failed(str(error))
                self._free.append(slot)

    def close(self) -> None:
        """Let go of the file; one that notes what the spool never got stays for who comes next."""
        if self._fd is not None:
            if not self._taken:
                self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = None

    def _open(self) -> None:
        try:
            self._fd = locked_file(self._path)
        except OSError as error:
            self._failed(str(error.strerror))

    def _failed(self, why: str) -> bool:
        if self._works:
            log.error("audit_journal_not_writable", path=str(self._path), error=why, alarm=True)
        self._works = False
        return False


class LeftJournal:
    """The journal of a process that died, held by us."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    def entries(self) -> list[dict[str, Any]]:
        """What it notes; a slot that was torn by the kill belongs to an answer that did not go out."""
        found = (_entry(os.pread(self._fd, SLOT_BYTES, slot * SLOT_BYTES)) for slot in range(SLOTS))
        return [entry for entry in found if entry is not None]

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def journal_path(spool: Path, writer: str) -> Path:
    return spool.with_name(f"{spool.name}.journal-{writer}")


def left_journals(spool: Path) -> Iterator[LeftJournal]:
    """The journals of processes that are gone and whose spools were brought in. Raises OSError."""
    for path, fd in orphan_files(spool.parent, f"{spool.name}.journal-"):
        writer = path.name.rpartition("-")[2]
        # What stands in the spool, too, is told from the store once it is there.
        if not spool.with_name(f"{spool.name}-{writer}").exists():
            yield LeftJournal(path, fd)


def _line(entry: Mapping[str, Any]) -> bytes | None:
    body = orjson.dumps(entry)
    line = b"%08x %b\n" % (zlib.crc32(body), body)
    return line if len(line) <= SLOT_BYTES else None


def _entry(slot: bytes) -> dict[str, Any] | None:
    check, _, body = slot.partition(b"\n")[0].partition(b" ")
    if check != b"%08x" % zlib.crc32(body):
        return None
    entry: dict[str, Any] = orjson.loads(body)
    return entry
