"""What the worker processes of one server tell each other: a notice each, and whether a reload was asked for.

The board is a folder of small files that `guardrail serve` makes; each worker writes its own and reads them all. A server of one
process needs no folder. What a worker did that died is taken off by whoever reads.
"""

import os
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

VARIABLE: Final = "GUARDRAIL_BOARD"
"""Names the folder to the worker processes."""
_SUFFIX: Final = ".worker"
_ASKED: Final = "reload"


class Notice(msgspec.Struct, frozen=True):
    """The packs that a worker has in force, and how many problems kept newer ones away."""

    packs: str
    problems: int = 0


class Board:
    """One worker's view; `folder` is None where it is the only one."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._own = Notice("")
        self._asked_here = 0

    def post(self, notice: Notice) -> None:
        """Say how it is with this worker."""
        self._own = notice
        if self._folder is not None:
            path = self._folder / f"{os.getpid()}{_SUFFIX}"
            new = path.with_suffix(".new")
            new.write_bytes(msgspec.json.encode(notice))
            os.replace(new, path)

    def take_down(self) -> None:
        """This worker ends."""
        if self._folder is not None:
            (self._folder / f"{os.getpid()}{_SUFFIX}").unlink(missing_ok=True)

    def notices(self) -> list[Notice]:
        """Of all workers that live."""
        if self._folder is None:
            return [self._own]
        found = []
        for path in sorted(self._folder.glob("*" + _SUFFIX)):
            try:
                os.kill(int(path.stem), 0)
                found.append(msgspec.json.decode(path.read_bytes(), type=Notice))
            except ProcessLookupError:
                path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue
        return found

    def revisions(self) -> Mapping[str, int]:
        """How many workers have which packs in force."""
        return Counter(notice.packs for notice in self.notices())

    def ask_reload(self) -> None:
        """Every worker is to load its packs again. Does so little that a signal handler may call it."""
        self._asked_here += 1
        if self._folder is not None:
            (self._folder / _ASKED).write_bytes(os.urandom(8))

    def heed_hangup(self) -> None:
        """SIGHUP asks for a reload, as it does of other servers. In the main thread only."""
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda number, frame: self.ask_reload())

    def asked(self) -> tuple[int, bytes]:
        """Changes whenever somebody asks for a reload."""
        if self._folder is None:
            return self._asked_here, b""
        try:
            return 0, (self._folder / _ASKED).read_bytes()
        except FileNotFoundError:
            return 0, b""
