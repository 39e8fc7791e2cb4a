"""Replaces the packs of a running service: on request, on SIGHUP, and when their folder changes.

New packs are built beside the old and swapped whole; what does not load changes nothing and is kept as `problems`. All workers of
a server are asked through the board, and each goes on looking at the folder until what it last tried is what is there, so that they
end on the same revision however a change arrived.
"""

import asyncio
import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from guardrail.board import Board, Notice
from guardrail.engine.guard import Guard
from guardrail.errors import ConfigError, PackError
from guardrail.packs.watch import State, state_of
from guardrail.proxy.endpoint import Service

log = structlog.get_logger("guardrail")

_TICK_SECONDS: Final = 0.5
_OTHERS_SECONDS: Final = 30.0
"""How long an answer waits for the other workers: several times what loading takes."""


class Reloader:
    """Keeps the packs of `service` as they are in `folders`. `load` makes a guard of what is there.

    `watch_seconds` is the time between two looks at the folders, 0 for none; `before` is how they were before the packs in force were read.
    """

    def __init__(
        self,
        service: Service,
        load: Callable[[], Guard],
        board: Board,
        folders: Sequence[Path] = (),
        watch_seconds: float = 0.0,
        before: State | None = None,
    ) -> None:
        self._service = service
        self._load = load
        self._board = board
        self._folders = tuple(folders) if watch_seconds else ()
        self._pause = min(watch_seconds or _TICK_SECONDS, _TICK_SECONDS)
        self._looks = max(round(watch_seconds / _TICK_SECONDS), 1)
        self._tried = before if before is not None else self._state()
        self._asked = board.asked()
        self._loading = asyncio.Lock()
        self.problems: tuple[str, ...] = ()
        """Why the newest packs are not in force; none when they are."""
        self._post()

    @property
    def revision(self) -> str:
        return self._service.guard.knowledge.revision

    def workers(self) -> dict[str, int]:
        """How many workers of this server have which revision in force."""
        return dict(self._board.revisions())

    async def reload(self) -> tuple[int, dict[str, Any]]:
        """Load again in all workers; the status and the answer for whoever asked. Packs that do not load here are tried nowhere else."""
        status, answer = await self._swap()
        if status == 200:
            self._board.ask_reload()
            self._asked = self._board.asked()
            answer["workers"] = await self._others()
        return status, answer

    async def watch(self) -> None:
        """Reload whenever it is asked for or the folder has changed and come to rest, for as long as the service runs."""
        seen, count = self._tried, 0
        while True:
            await asyncio.sleep(self._pause)
            if self._board.asked() != self._asked:
                await self._swap()
                continue
            count += 1
            if not self._folders or count % self._looks:
                continue
            now = await asyncio.to_thread(self._state)
            # A folder that is being copied is different at each look.
            if now == seen and now != self._tried:
                await self._swap()
            seen = now

    def close(self) -> None:
        """The service ends."""
        self._board.take_down()

    async def _swap(self) -> tuple[int, dict[str, Any]]:
        """The status and the answer of a reload of this worker."""
        async with self._loading:
            # Asked before reading: a change while the packs are read is seen as one afterwards.
            self._asked = self._board.asked()
            self._tried = await asyncio.to_thread(self._state)
            before = self.revision
            try:
                guard = await asyncio.to_thread(self._load)
            except (PackError, ConfigError, OSError) as error:
                return 422, self._refuse(error)
            self.problems = ()
            self._service.guard = guard
            gc.freeze()
            self._post()
        log.info("packs_reloaded", before=before, packs=self.revision)
        return 200, {"before": before, "revision": self.revision}

    def _refuse(self, error: PackError | ConfigError | OSError) -> dict[str, Any]:
        self.problems = tuple(map(str, error.problems)) if isinstance(error, PackError) else (str(error),)
        self._post()
        log.error("packs_refused", packs=self.revision, problems=len(self.problems), first=self.problems[0], alarm=True)
        return {"error": "the packs do not load; nothing was changed", "revision": self.revision, "problems": list(self.problems)}

    def _post(self) -> None:
        self._board.post(Notice(self.revision, len(self.problems)))

    def _state(self) -> State:
        return state_of(*self._folders)

    async def _others(self) -> dict[str, int]:
        """Wait until all workers have this revision, or for long enough; how many have which."""
        try:
            async with asyncio.timeout(_OTHERS_SECONDS):
                while set(self._board.revisions()) - {self.revision}:  # noqa: ASYNC110  # other processes set no event
                    await asyncio.sleep(0.1)
        except TimeoutError:
            log.error("packs_differ", packs=self.revision, workers=self.workers(), alarm=True)
        return self.workers()
