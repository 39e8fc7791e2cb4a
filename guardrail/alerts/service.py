"""Alerts of one process: takes every finished exchange, watches the clock, and brings what is due to its receivers.

Two outboxes: the one in the audit store, which all replicas share and which outlives them, and one in memory, which takes what cannot
be written there: alerts while the store is away, that it is away among them, and all alerts where nothing is audited. What is in
memory is lost with the process.

All of it runs in a thread with an event loop of its own: a store or a name server that hangs must not delay an answer. `record`, which is
called by the exchanges, only compares and appends. Each receiver is served by a task of its own, so that a slow one delays no other.
"""

import asyncio
import contextlib
import itertools
import random
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import httpx
import structlog

from guardrail.alerts.alert import Due
from guardrail.alerts.deliver import Result, Sent, deliver
from guardrail.alerts.outbox import KEEP_SECONDS, Delivery, Outbox
from guardrail.alerts.settings import AlertSettings, FhirReceiver, Receiver
from guardrail.alerts.watch import Watch
from guardrail.audit.record import ExchangeRecord
from guardrail.errors import ConfigError, StoreError

log = structlog.get_logger("guardrail")

# Alerts that wait to be written, a matter of milliseconds; so many only when the process can do nothing any more.
_MOST_WAITING = 10_000
_BATCH = 200  # of one transaction
_AT_ONCE = 4
"""Attempts at one receiver at the same time, per process: chat tools take about one message a second."""
_TICK_SECONDS = 1.0
_LAST_WORDS_SECONDS = 5.0
_CLEAN_SECONDS = 3600.0
_COUNT_SECONDS = 10.0


class Meter(Protocol):
    """What counts deliveries. `result` is sent, failed (to be tried again) or given_up."""

    def delivered(self, receiver: str, result: str) -> None: ...
    def pending(self, receiver: str, count: int) -> None: ...


class Alerts:
    """A recorder of exchanges. `store_works` says whether the audit store does; `url` is where it is, None where there is none.

    `address` is where people reach this service: links begin with it.
    """

    def __init__(
        self,
        settings: AlertSettings,
        url: str | None,
        key: bytes,
        store_works: Callable[[], bool],
        meter: Meter,
        clock: Callable[[], float] = time.time,
        address: str | None = None,
    ) -> None:
        self._settings = settings
        self._store_works = store_works
        self._meter = meter
        self._clock = clock
        self._watch = Watch(settings, key, clock(), address)
        self._watching = threading.Lock()  # exchanges end in one thread, the clock is looked at in another
        self._stored = Outbox(url) if url else None
        self._memory = Outbox()
        self._waiting: deque[Due] = deque()
        self._bell = _Bell(min(_TICK_SECONDS, settings.retry_seconds))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="alerts", daemon=True)
        self._begun = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        # Whoever claims may be given up for dead only after the attempt and the writing down of how it went.
        self._lease_seconds = 2 * settings.timeout_seconds + 1

    def record(self, record: ExchangeRecord) -> None:
        """Take one exchange. Never blocks, never raises."""
        with self._watching:
            due = self._watch.on_exchange(record)
        if due:
            self._take(due)

    def start(self) -> None:
        """Begin to deliver, what was left by processes that died included."""
        if self._stored is None:
            log.warning("alerts_in_memory_only", reason="audit is not set")
        self._thread.start()
        self._begun.wait()

    def close(self) -> None:
        """Write down what is due; what is only in memory gets one last try."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(self._bell.stop)
            self._thread.join(3 * _LAST_WORDS_SECONDS)

    def _take(self, due: list[Due]) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            log.error("alerts_lost", count=len(due), alarm=True)
            return
        self._waiting.extend(due)
        if (loop := self._loop) is not None:
            loop.call_soon_threadsafe(self._bell.ring)

    async def _run(self) -> None:
        """Everything that the thread does, until the bell is stopped."""
        self._loop = asyncio.get_running_loop()
        self._begun.set()
        async with httpx.AsyncClient() as client:  # each attempt has its own time
            receivers = self._settings.receivers.items()
            works = [self._write(), self._look(), *(self._serve(client, name, receiver) for name, receiver in receivers)]
            tasks = [asyncio.create_task(work) for work in works]
            for task in tasks:
                task.add_done_callback(_ended)
            await self._bell.silence()
            _, late = await asyncio.wait(tasks, timeout=_LAST_WORDS_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            await self._flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_SECONDS):
                    await asyncio.gather(*(self._round(client, name, receiver, self._memory) for name, receiver in receivers))
        left = sum(self._memory.pending().values())
        if left:
            log.error("alerts_lost", count=left, alarm=True)
        for outbox in self._outboxes():
            outbox.close()

    async def _write(self) -> None:
        """Put what is due into an outbox, as soon as it is."""
        async for _ in self._bell.rings():
            await self._flush()

    async def _flush(self) -> None:
        while batch := list(itertools.islice(self._waiting, _BATCH)):
            await asyncio.to_thread(self._keep, batch)
            for _ in batch:
                self._waiting.popleft()
            self._bell.ring()

    def _keep(self, batch: list[Due]) -> None:
        now = self._clock()
        parted = [self._parted(due) for due in batch]
        if self._stored is not None:
            stored = [part for parts in parted for part in parts if part.alert.kind != "store_down"]
            try:
                self._stored.add(stored, now)
                parted = [[part for part in parts if part.alert.kind == "store_down"] for parts in parted]
            except (StoreError, ConfigError) as error:
                log.warning("alerts_kept_in_memory", count=len(batch), error=str(error))
        self._memory.add([part for parts in parted for part in parts], now)

    def _parted(self, due: Due) -> list[Due]:
        """The app's own id of the patient goes only to those that are to have it."""
        told = due.alert.escalation
        with_id = tuple(name for name in due.send if _wants_patient(self._settings.receivers[name]))
        if told is None or told.patient_id is None or len(with_id) == len(due.send):
            return [due]
        without = due.alert.model_copy(update={"escalation": told.model_copy(update={"patient_id": None})})
        others = Due(without, tuple(name for name in due.send if name not in with_id), due.repeat_seconds)
        return [others, Due(due.alert, with_id, due.repeat_seconds)] if with_id else [others]

    async def _look(self) -> None:
        """What the clock makes due; counts and cleaning."""
        counted = cleaned = 0.0
        async for _ in self._bell.rings():
            now = self._clock()
            newest = await asyncio.to_thread(self._newest) if self._watch.wants_newest(now) else None
            with self._watching:
                due = self._watch.on_time(now, store_works=self._store_works(), newest=newest)
            if due:
                self._take(due)
            if now - counted >= _COUNT_SECONDS:
                counted = now
                await asyncio.to_thread(self._count)
            if now - cleaned >= _CLEAN_SECONDS:
                cleaned = now
                await asyncio.to_thread(self._clean, now - KEEP_SECONDS)

    def _newest(self) -> float | None:
        try:
            return self._stored.newest_exchange() if self._stored is not None else None
        except (StoreError, ConfigError):
            return None

    def _count(self) -> None:
        found = dict.fromkeys(self._settings.receivers, 0)
        for outbox in self._outboxes():
            with contextlib.suppress(StoreError, ConfigError):
                for receiver, count in outbox.pending().items():
                    if receiver in found:  # one that is no longer in the settings is nobody's to serve
                        found[receiver] += count
        for receiver, count in found.items():
            self._meter.pending(receiver, count)

    def _clean(self, before: float) -> None:
        for outbox in self._outboxes():
            with contextlib.suppress(StoreError, ConfigError):
                outbox.forget(before)

    async def _serve(self, client: httpx.AsyncClient, name: str, receiver: Receiver) -> None:
        """Everything for one receiver, for as long as the process runs."""
        async for _ in self._bell.rings():
            busy = True
            while busy and not self._bell.stopped:
                busy = any([await self._round(client, name, receiver, outbox) for outbox in self._outboxes()])

    async def _round(self, client: httpx.AsyncClient, name: str, receiver: Receiver, outbox: Outbox) -> bool:
        """A few deliveries; whether there were any."""
        try:
            claimed = await asyncio.to_thread(outbox.claim, name, self._clock(), self._lease_seconds, _AT_ONCE)
        except (StoreError, ConfigError):
            return False  # the audit store says itself that it is away
        await asyncio.gather(*(self._attempt(client, receiver, outbox, delivery) for delivery in claimed))
        return bool(claimed)

    async def _attempt(self, client: httpx.AsyncClient, receiver: Receiver, outbox: Outbox, delivery: Delivery) -> None:
        alert = delivery.alert
        result = await deliver(client, receiver, alert, delivery.id, self._clock, self._settings.timeout_seconds)
        about = {"receiver": delivery.receiver, "rule": alert.rule, "key": alert.key, "attempt": delivery.attempts}
        try:
            await asyncio.to_thread(self._settle, outbox, delivery, result, about)
        except (StoreError, ConfigError) as error:
            # It stays claimed until the lease ends, then it is tried again: twice is better than never.
            log.warning("alert_not_settled", **about, error=str(error))

    def _settle(self, outbox: Outbox, delivery: Delivery, result: Result, about: dict[str, Any]) -> None:
        """Count it, say it, write it down."""
        now = self._clock()
        if isinstance(result, Sent):
            self._meter.delivered(delivery.receiver, "sent")
            log.info("alert_sent", **about)
            outbox.sent(delivery, now)
        elif result.final or now - delivery.made_at >= self._settings.give_up_seconds:
            self._meter.delivered(delivery.receiver, "given_up")
            log.error("alert_given_up", **about, error=result.error, alarm=True)
            outbox.given_up(delivery, now, result.error)
        else:
            self._meter.delivered(delivery.receiver, "failed")
            pause = max(self._pause(delivery.attempts), result.retry_after or 0.0)
            log.warning("alert_failed", **about, error=result.error, retry_seconds=round(pause, 1))
            outbox.failed(delivery, now + pause, result.error)

    def _pause(self, attempts: int) -> float:
        """Doubles with each attempt; spread, so that replicas and alerts do not come back all at once."""
        longest = min(self._settings.retry_seconds * 2.0 ** min(attempts - 1, 30), self._settings.retry_at_most_seconds)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  # no secret

    def _outboxes(self) -> list[Outbox]:
        return [self._memory] if self._stored is None else [self._stored, self._memory]


class _Bell:
    """Wakes every task that listens when it is rung, and in any case every few seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._events: list[asyncio.Event] = []
        self._silence = asyncio.Event()
        self.stopped = False

    def ring(self) -> None:
        for event in self._events:
            event.set()

    def stop(self) -> None:
        """No more rounds."""
        self.stopped = True
        self._silence.set()
        self.ring()

    async def silence(self) -> None:
        """Wait until it is stopped."""
        await self._silence.wait()

    async def rings(self) -> AsyncIterator[None]:
        """Once at once, then whenever there may be something to do, until it is stopped."""
        event = asyncio.Event()
        self._events.append(event)
        while not self.stopped:
            event.clear()
            yield
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await event.wait()


def _ended(task: asyncio.Task[None]) -> None:
    """A task that dies takes its receiver's alerts with it: that must not go unseen."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("alerts_stopped", error=type(error).__name__, alarm=True, exc_info=error)


def _wants_patient(receiver: Receiver) -> bool:
    return isinstance(receiver, FhirReceiver) and receiver.patient_system is not None
