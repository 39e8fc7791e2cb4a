"""Keeps what happened: takes exchanges from the request path, chains them, and brings them to the store.

`AuditStore.note` keeps what was decided, without any words, in the journal, before its answer is complete: from then on it survives a kill
of the process. `AuditStore.record` puts the whole record in a bounded queue and returns: nothing here ever blocks or raises into an
exchange. Two threads do the rest. The first makes entries of what is queued and appends them to the spool, where the words survive
a kill, too. The second ships the spool to the store in batches, each in one transaction, and tries again while the store is away;
`healthy` says so meanwhile. It also brings in the spools and journals of processes that died. The table `chains` says how much of
each writer's chain the store has, so that what is shipped twice is kept once.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from guardrail.audit.chain import Chain, insert_statements, log_seals, newest_heads
from guardrail.audit.database import Database, open_database
from guardrail.audit.entry import TextPolicy, access_entry, kept_entry, noted_entry
from guardrail.audit.journal import Journal, LeftJournal, journal_path, left_journals
from guardrail.audit.keys import SigningKey, TextKeys
from guardrail.audit.record import ExchangeRecord
from guardrail.audit.row import Row, from_line, to_line
from guardrail.audit.spool import Orphan, Spool, orphans
from guardrail.errors import ConfigError, StoreError

QUEUE_LENGTH = 20_000  # about 20 s of a busy worker
BATCH = 500
LOOK_SECONDS = 0.01
"""The queue is looked at so often. To be woken by each record would be to take the processor from the exchange that follows it."""
SHIP_SECONDS = 0.25  # what waits so long for company costs one commit together; in the spool it is safe meanwhile
RETRY_SECONDS = 1.0
SEAL_SECONDS = 60.0
"""How much at most of a chain's end can be cut off unseen by whoever can write to the store and reach no other seal."""

_Item = ExchangeRecord | dict[str, Any]
"""What is queued: an exchange, or an entry that is made already."""

log = structlog.get_logger("guardrail")


class AuditStore:
    """Keeps exchanges. Made once per process; its writer is a chain of its own, which begins with the first record.

    `spool` names the files that hold entries until the store has them; `key` makes pseudonyms of patients' ids; `signing` signs the
    seals, `keys` encrypt words. Raises ConfigError where the policy needs keys that are not there.
    """

    def __init__(
        self,
        url: str,
        text: TextPolicy = "redacted",
        key: bytes = b"",
        spool: Path | None = None,
        *,
        signing: SigningKey | None = None,
        keys: TextKeys | None = None,
        seal_seconds: float = SEAL_SECONDS,
    ) -> None:
        if text == "encrypted" and keys is None:
            raise ConfigError("audit_text: encrypted needs audit_text_keys; guardrail audit text-key FILE makes one")
        self._url = url
        self._text = text
        self._key = key
        self._keys = keys
        self._signing = signing
        self._seal_seconds = seal_seconds
        self._chain = Chain(signing)
        self._base = spool or _spool_beside(url)
        # One file a process, so that replicas on one machine do not write into each other's.
        self._spool = Spool(self._base.with_name(f"{self._base.name}-{self._chain.writer}"))
        self._journal = Journal(journal_path(self._base, self._chain.writer))
        self._queue: queue.Queue[_Item | threading.Event | None] = queue.Queue(QUEUE_LENGTH)
        self._heads: dict[str, tuple[int, str]] = {}
        self._waiting: queue.SimpleQueue[threading.Event] = queue.SimpleQueue()
        self._work, self._hurry, self._stopping = threading.Event(), threading.Event(), threading.Event()
        self._database: Database | None = None
        self.healthy = True
        self._chaining = threading.Thread(target=self._run_chain, name="audit-chain", daemon=True)
        self._shipping = threading.Thread(target=self._run_shipping, name="audit-shipping", daemon=True)
        self._chaining.start()
        self._shipping.start()

    def note(self, record: ExchangeRecord) -> None:
        """Keep what is known of an exchange, words apart, in case the process is killed before it is recorded. Never raises."""
        self._journal.note(noted_entry(record, self._key))

    def record(self, record: ExchangeRecord) -> None:
        """Queue one exchange. Never blocks, never raises."""
        self._put(record, record.id)

    def record_access(self, by: str, action: str, exchange: str | None) -> None:
        """Queue that somebody opened or exported an exchange. Never blocks, never raises."""
        self._put(access_entry(by, action, exchange, time.time()), exchange)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until what was recorded so far is in the store, or in the spool because the store refused it."""
        done = threading.Event()
        self._queue.put(done, timeout=timeout)
        return done.wait(timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Seal the chain, write what is queued and stop."""
        self._queue.put(None)
        self._chaining.join(timeout)
        self._shipping.join(timeout)

    def _put(self, item: _Item, exchange: str | None) -> None:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self.healthy = False
            log.error("audit_queue_full", exchange=exchange, alarm=True)

    # The first thread: queue to spool

    def _run_chain(self) -> None:
        next_seal = 0.0
        stop = False
        while not stop:
            time.sleep(LOOK_SECONDS)
            items, waiting, stop = self._take()
            rows = [row for item in items if (row := self._row(item)) is not None]
            if self._signing is not None and (time.monotonic() >= next_seal or stop):
                seal = self._chain.seal(self._heads, final=stop)
                if seal:
                    log_seals(seal)
                    next_seal = time.monotonic() + self._seal_seconds
                rows += seal
            if rows and not self._spool.append(b"".join(map(to_line, rows))):
                log.error("audit_lost", count=len(rows), alarm=True)
            self._journal.forget(item.id for item in items if isinstance(item, ExchangeRecord))
            for event in waiting:
                self._waiting.put(event)
                self._hurry.set()
            if rows or waiting:
                self._work.set()
        self._journal.close()
        self._stopping.set()
        self._work.set()
        self._hurry.set()

    def _take(self) -> tuple[list[_Item], list[threading.Event], bool]:
        """What is queued, up to a batch: records, those who wait for them, and whether to stop."""
        items: list[_Item] = []
        waiting: list[threading.Event] = []
        try:
            while (item := self._queue.get_nowait()) is not None:
                if isinstance(item, threading.Event):
                    waiting.append(item)
                else:
                    items.append(item)
                if len(items) >= BATCH:
                    break
        except queue.Empty:
            return items, waiting, False
        return items, waiting, item is None

    def _row(self, item: _Item) -> Row | None:
        try:
            if isinstance(item, dict):
                return self._chain.add(item)
            return self._chain.add(*kept_entry(item, self._text, self._key, self._keys))
        except (TypeError, ValueError) as error:  # text that is no text, such as half a surrogate pair; all others go on
            log.error("audit_lost", exchange=item["id"] if isinstance(item, dict) else item.id, error=type(error).__name__, alarm=True)
            return None

    # The second thread: spool to store

    def _run_shipping(self) -> None:
        next_adoption = next_heads = 0.0
        self._work.set()  # look at once whether the store is there
        while True:
            self._work.wait(RETRY_SECONDS)
            self._work.clear()
            stop = self._stopping.is_set()
            self._hurry.wait(SHIP_SECONDS)
            self._hurry.clear()
            waiting = self._take_waiting()
            try:
                self._ship(self._spool)
                if time.monotonic() >= next_adoption or stop:
                    self._adopt()
                    next_adoption = time.monotonic() + RETRY_SECONDS
                if self._signing is not None and time.monotonic() >= next_heads:
                    self._heads = self._read_heads()
                    next_heads = time.monotonic() + self._seal_seconds / 2
                self._recovered()
            except (StoreError, ConfigError, OSError) as error:
                self._away(error)
            for event in waiting:
                event.set()
            if stop:
                break
        if self._database is not None:
            self._database.close()
        self._spool.close()

    def _take_waiting(self) -> list[threading.Event]:
        waiting = []
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.append(self._waiting.get_nowait())
        return waiting

    def _ship(self, spool: Spool | Orphan) -> None:
        """Everything that waits there, batch by batch."""
        while lines := spool.next():
            read = [row for row in map(from_line, lines) if row is not None]
            for first in range(0, len(read), BATCH):
                self._insert(read[first : first + BATCH])
            spool.shipped(sum(map(len, lines)))

    def _adopt(self) -> None:
        """See whether the store is there, so that readiness tells the truth without traffic, and bring in what dead processes left."""
        with self._connected() as database:
            database.execute("SELECT 1")
        for orphan in orphans(self._base):
            self._ship(orphan)
            orphan.remove()
        for journal in left_journals(self._base):
            self._recover(journal)
            journal.remove()

    def _recover(self, journal: LeftJournal) -> None:
        """Enter what a process that was killed had answered and not yet recorded, in a chain of its own."""
        noted = {entry["id"]: entry for entry in journal.entries()}
        if not noted:
            return
        with self._connected() as database, database.transaction():
            sql = f"SELECT id FROM entries WHERE id IN ({', '.join('?' * len(noted))})"  # noqa: S608  # only marks
            known = {id for (id,) in database.execute(sql, list(noted))}
            chain = Chain(self._signing)
            rows = [chain.add({**entry, "recovered": True}) for id, entry in noted.items() if id not in known]
            if rows:
                seal = chain.seal(newest_heads(database), final=True)
                database.write(insert_statements([*rows, *seal]))
                log_seals(seal)
        log.warning("audit_recovered", count=len(rows))

    def _insert(self, rows: Sequence[Row]) -> None:
        with self._connected() as database, database.transaction():
            if fresh := self._new(database, rows):
                database.write(insert_statements(fresh))

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Database]:
        """The store, opened if need be, and let go when it fails."""
        if self._database is None:
            self._database = open_database(self._url)
        try:
            yield self._database
        except StoreError:
            self._database.close()
            self._database = None
            raise

    def _new(self, database: Database, rows: Sequence[Row]) -> list[Row]:
        """Those that the store does not have yet. A process that was killed between shipping and noting it ships again."""
        writers = list({row.writer for row in rows})
        sql = f"SELECT writer, seq FROM chains WHERE writer IN ({', '.join('?' * len(writers))})"  # noqa: S608  # only marks
        reached = dict[str, int](database.execute(sql, writers))
        return [row for row in rows if row.seq > reached.get(row.writer, 0)]

    def _read_heads(self) -> dict[str, tuple[int, str]]:
        with self._connected() as database:
            return newest_heads(database)

    def _away(self, error: Exception) -> None:
        if self.healthy:
            log.error("audit_store_away", error=str(error), alarm=True)
        self.healthy = False

    def _recovered(self) -> None:
        if not self.healthy:
            log.info("audit_store_back")
        self.healthy = True


def _spool_beside(url: str) -> Path:
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///") + ".spool")
    return Path("guardrail-audit.spool")
