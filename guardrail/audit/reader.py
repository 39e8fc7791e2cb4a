"""Reads a store, keeps verdicts, erases. For the dashboard and the `audit` commands.

Pages are answered from indexes and from what is counted beside the entries (`rollups.py`), so that they take as long with a
million records as with a thousand. Where words are encrypted they are given only to who asks `with_words`, and holds the keys.
"""

import heapq
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import orjson

from guardrail.audit.chain import Chain, insert_statements, log_seals, newest_heads, ranges
from guardrail.audit.database import open_database
from guardrail.audit.entry import review_entry, with_words
from guardrail.audit.keys import SigningKey, TextKeys
from guardrail.audit.rollups import REVIEW_COLUMNS, Review
from guardrail.audit.row import COLUMNS, Row, as_bytes
from guardrail.engine.model import Urgency
from guardrail.errors import StoreError

PAGE = 1000
_REVIEW = ("at", "state", "verdict", "comment", "reviewer")


class AuditReader:
    """One connection, shared by threads. Everything raises StoreError where the store is away."""

    def __init__(self, url: str, keys: TextKeys | None = None, signing: SigningKey | None = None) -> None:
        self._keys = keys
        self._signing = signing
        self._chain: Chain | None = None
        """That of the reviews kept here; begun with the first."""
        self._database = open_database(url)
        self._lock = threading.RLock()

    def close(self) -> None:
        """Seal what was kept here for good; where the store is away its last seal has to do."""
        with self._lock:
            if self._chain is not None and (seal := self._chain.seal({}, final=True)):
                with suppress(StoreError):
                    self._database.write(insert_statements(seal))
                    log_seals(seal)
            self._chain = None
            self._database.close()

    # Exchanges

    def list_entries(
        self,
        *,
        urgency_at_least: int = 0,
        destination: str | None = None,
        outcome: str | None = None,
        rule: str | None = None,
        before: float | None = None,
        after: float | None = None,
        cursor: tuple[float, str] | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Newest first. `before` and `after` are times (seconds since the epoch); `rule` is a rule's id, in shadow or not.

        `cursor` is the (at, id) of the last entry of the page before.
        """
        where, values = list[str](), list[Any]()
        for clause, value in (
            ("rule = ?", rule),
            ("destination = ?", destination),
            ("outcome = ?", outcome),
            ("at < ?", before),
            ("at > ?", after),
        ):
            if value is not None:
                where.append(clause)
                values.append(value)
        if cursor is not None:
            # The first bound is what an index can use.
            where.append("at <= ? AND (at < ? OR id < ?)")
            values += [cursor[0], *cursor]
        found: list[tuple[float, str]] = []
        for table, further, given in _ways(rule is not None, bool(urgency_at_least or destination or outcome), urgency_at_least):
            conditions = " AND ".join([*where, *further])
            sql = f"SELECT at, id FROM {table} WHERE {conditions} ORDER BY at DESC, id DESC LIMIT ?"  # noqa: S608  # our own names
            found += [(at, id) for at, id in self._query(sql, [*values, *given, limit])]
        newest = heapq.nlargest(limit, found)
        bodies = self._bodies([id for _, id in newest])
        return [bodies[id] for _, id in newest if id in bodies]

    def entry(self, exchange: str, *, words: bool = False) -> dict[str, Any] | None:
        """One exchange, or None.

        Where its words are encrypted, `encrypted` says so: `"hidden"` without `words`, `"lost"` where the keys here do not open
        them, and with the words in their places `"open"`.
        """
        sql = "SELECT body, words_key, words FROM entries WHERE id = ? AND kind = 'exchange' AND body IS NOT NULL"
        rows = self._query(sql, [exchange])
        if not rows:
            return None
        body, name, data = rows[0]
        entry: dict[str, Any] = orjson.loads(as_bytes(body))
        if "words" not in entry:
            return entry
        if not words:
            return {**entry, "encrypted": "hidden"}
        opened = with_words(entry, (name, bytes(data)), self._keys) if self._keys is not None and data is not None else None
        return {**entry, "encrypted": "lost"} if opened is None else {**opened, "encrypted": "open"}

    def _bodies(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The entries of these ids."""
        found: dict[str, dict[str, Any]] = {}
        for first in range(0, len(ids), 500):
            some = ids[first : first + 500]
            marks = ", ".join("?" * len(some))
            sql = f"SELECT id, body FROM entries WHERE id IN ({marks}) AND kind = 'exchange' AND body IS NOT NULL"  # noqa: S608  # only marks
            found |= {id: orjson.loads(as_bytes(body)) for id, body in self._query(sql, some)}
        return found

    # Figures

    def counts(self, since: float, step: int) -> list[tuple[float, int, str, str, int]]:
        """(begin of a step, urgency, destination, outcome, how many) of the exchanges since a time.

        `since` and `step` are multiples of rollups.BUCKET_SECONDS.
        """
        sql = """SELECT (bucket - ?) / ? AS step, urgency, destination, outcome, SUM(count) FROM tallies
            WHERE bucket >= ? GROUP BY 1, urgency, destination, outcome ORDER BY 1"""
        rows = self._query(sql, [int(since), step, int(since)])
        return [(since + int(n) * step, int(u), str(d), str(o), int(count)) for n, u, d, o, count in rows]

    def rule_counts(self, since: float) -> dict[str, tuple[int, int]]:
        """How often each rule held since the day of a time: live, and in shadow."""
        found: dict[str, tuple[int, int]] = {}
        sql = "SELECT rule, shadow, SUM(count) FROM rule_tallies WHERE day >= ? GROUP BY rule, shadow"
        for rule, shadow, count in self._query(sql, [int(since // 86_400) * 86_400]):
            live, dark = found.get(rule, (0, 0))
            found[rule] = (live, dark + int(count)) if shadow else (live + int(count), dark)
        return found

    # Reviews

    def reviews(self, exchange: str) -> list[dict[str, Any]]:
        """What reviewers said of an exchange, oldest first."""
        sql = "SELECT at, state, verdict, comment, reviewer FROM reviews WHERE id = ? ORDER BY at"
        return [dict(zip(_REVIEW, r, strict=True)) for r in self._query(sql, [exchange])]

    def review(self, exchange: str, state: str, verdict: str | None, comment: str | None, reviewer: str) -> None:
        """Keep one step of a review: acknowledged, or resolved with a verdict. The verdict is on the first rule of the decision.

        It is an entry of this reader's own chain, sealed at once where it can sign.
        """
        decision = (self.entry(exchange) or {}).get("decision") or {}
        rule = decision["rules"][0]["id"] if decision.get("rules") else None
        with self._lock:
            # Taken while it is written to: what fails in the middle leaves a chain that nobody goes on with.
            chain, self._chain = self._chain or Chain(self._signing), None
            with self._database.transaction():
                entry = review_entry(exchange, state, verdict, comment, reviewer, rule=rule, at=time.time())
                rows = [chain.add(entry), *chain.seal(newest_heads(self._database))]
                self._database.write(insert_statements(rows))
            self._chain = chain
        log_seals(rows)

    def shown_reviews(self) -> Iterator[Review]:
        """Every row of the table of reviews, for `audit verify`."""
        yield from self._query(f"SELECT {REVIEW_COLUMNS} FROM reviews")  # noqa: S608  # our own names

    def verdicts(self) -> dict[str, dict[str, int]]:
        """Of each rule, how often the last verdict on one of its exchanges was which."""
        sql = """SELECT rule, verdict, COUNT(*) FROM reviews AS r WHERE state = 'resolved' AND rule IS NOT NULL AND NOT EXISTS
            (SELECT 1 FROM reviews AS later WHERE later.id = r.id AND later.state = 'resolved' AND later.at > r.at)
            GROUP BY rule, verdict"""
        found: dict[str, dict[str, int]] = {}
        for rule, verdict, count in self._query(sql):
            found.setdefault(rule, {})[verdict] = int(count)
        return found

    def unresolved(self, limit: int = 50) -> list[dict[str, Any]]:
        """Exchanges that wait for a verdict: escalations, replies that were cut, failures of the guard. Most urgent first, then newest."""
        rows = self._query("SELECT id FROM waiting ORDER BY urgency DESC, at DESC, id DESC LIMIT ?", [limit])
        bodies = self._bodies([id for (id,) in rows])
        return [bodies[id] for (id,) in rows if id in bodies]

    def unresolved_count(self) -> int:
        return int(self._query("SELECT COUNT(*) FROM waiting")[0][0])

    def last_reviews(self, exchanges: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The newest review of each of these exchanges that has one."""
        found: dict[str, dict[str, Any]] = {}
        for first in range(0, len(exchanges), 500):
            ids = exchanges[first : first + 500]
            sql = f"SELECT id, at, state, verdict, comment, reviewer FROM reviews WHERE id IN ({', '.join('?' * len(ids))}) ORDER BY at"  # noqa: S608  # only marks
            for exchange, *rest in self._query(sql, ids):
                found[exchange] = dict(zip(_REVIEW, rest, strict=True))
        return found

    # Who looked

    def accesses(self, exchange: str) -> list[dict[str, Any]]:
        """Who opened or exported an exchange, oldest first; exports of everything are not among them."""
        sql = "SELECT body FROM entries WHERE exchange = ? AND kind = 'access' ORDER BY at"
        found = [orjson.loads(as_bytes(body)) for (body,) in self._query(sql, [exchange])]
        return [{name: access[name] for name in ("at", "by", "action")} for access in found]

    def keep(self, chain: Chain, entry: dict[str, Any]) -> None:
        """Add an entry of a command's own chain, sealed where it can sign."""
        with self._lock, self._database.transaction():
            self._database.write(insert_statements([chain.add(entry), *chain.seal({}, final=True)]))

    # Everything

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Reads within see the store as it was at the first of them."""
        with self._lock, self._database.snapshot():
            yield

    def chains(self) -> Iterator[Row]:
        """Every row, writer by writer, in order."""
        writer, seq = "", 0
        sql = f"SELECT {COLUMNS} FROM entries WHERE (writer, seq) > (?, ?) ORDER BY writer, seq LIMIT ?"  # noqa: S608  # our own names
        while rows := [Row(*values) for values in self._query(sql, [writer, seq, PAGE])]:
            yield from rows
            writer, seq = rows[-1].writer, rows[-1].seq

    def seals(self) -> Iterator[Row]:
        """Every seal and every record of an erasure."""
        sql = f"SELECT {COLUMNS} FROM entries WHERE kind IN ('seal', 'erasure') ORDER BY writer, seq"  # noqa: S608  # our own names
        yield from (Row(*values) for values in self._query(sql))

    def is_sealed(self) -> bool:
        """Whether anybody has sealed here."""
        return bool(self._query("SELECT 1 FROM entries WHERE kind = 'seal' LIMIT 1"))

    # Erasure and new keys

    def purge(self, chain: Chain, by: str, *, before: float | None = None, exchange: str | None = None, patient: str | None = None) -> int:
        """Erase the content of exchanges: those older than a time, one, or those of a patient (by pseudonym). How many were erased.

        Their hashes stay, so that the chain still holds, and an entry of `chain` says what was erased, when and by whom.
        """
        at = time.time()
        with self._lock, self._database.transaction():
            exchanges = self._places(before, exchange, patient)
            if not exchanges:
                return 0
            ids = [(id,) for _, _, id in exchanges]
            places = sorted([*((writer, seq) for writer, seq, _ in exchanges), *self._reviews_of([id for _, _, id in exchanges])])
            erased = ranges(places)
            entry = {"kind": "erasure", "id": f"erasure-{chain.writer}-{chain.seq + 1}", "at": round(at, 3), "by": by, "ranges": erased}
            blank = """UPDATE entries SET body = NULL, words = NULL, words_key = NULL, tenant = NULL, kind = 'erased'
                WHERE writer = ? AND seq = ?"""
            self._database.write(
                [
                    *((f"DELETE FROM {table} WHERE id = ?", ids) for table in ("reviews", "hits", "waiting")),  # noqa: S608  # our own names
                    (blank, places),
                    *insert_statements([chain.add(entry), *chain.seal({}, final=True)]),
                ]
            )
        return len(exchanges)

    def _reviews_of(self, exchanges: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Where the reviews of these stand: comments may say what the patient wrote."""
        for first in range(0, len(exchanges), 500):
            some = exchanges[first : first + 500]
            marks = ", ".join("?" * len(some))
            sql = f"SELECT writer, seq FROM entries WHERE exchange IN ({marks}) AND kind = 'review'"  # noqa: S608  # only marks
            yield from ((str(writer), int(seq)) for writer, seq in self._query(sql, some))

    def _places(self, before: float | None, exchange: str | None, patient: str | None) -> list[tuple[str, int, str]]:
        """writer, seq and id of the exchanges to erase, in order."""
        sql = "SELECT writer, seq, id FROM entries WHERE kind = 'exchange'"
        if exchange is not None:
            rows = self._query(f"{sql} AND id = ?", [exchange])
        elif before is not None:
            rows = self._query(f"{sql} AND at < ?", [before])
        else:
            # The pseudonym stands in the body only: erasing a patient is rare, and reads everything.
            exchanges = (row for row in self.chains() if row.kind == "exchange" and row.body is not None)
            rows = [(row.writer, row.seq, row.id) for row in exchanges if orjson.loads(as_bytes(row.body)).get("patient") == patient]
        return sorted((str(writer), int(seq), str(id)) for writer, seq, id in rows)

    def rotate(self, keys: TextKeys) -> tuple[int, int]:
        """Encrypt words anew that are not under the current key: how many were, and how many could not be opened."""
        done = lost = 0
        last = ("", 0)
        sql = """SELECT writer, seq, id, words_key, words FROM entries
            WHERE words_key IS NOT NULL AND words_key <> ? AND (writer, seq) > (?, ?) ORDER BY writer, seq LIMIT ?"""
        while rows := self._query(sql, [keys.current, *last, PAGE]):
            fresh: list[tuple[Any, ...]] = []
            for writer, seq, id, name, data in rows:
                opened = keys.decrypt(name, bytes(data), id)
                if opened is None:
                    lost += 1
                    continue
                new_name, new_data = keys.encrypt(opened, id)
                # Not where it was erased meanwhile.
                fresh.append((new_name, new_data, writer, seq, name))
            with self._lock:
                self._database.write(
                    [("UPDATE entries SET words_key = ?, words = ? WHERE writer = ? AND seq = ? AND words_key = ?", fresh)]
                )
            done += len(fresh)
            last = (rows[-1][0], rows[-1][1])
        return done, lost

    def _query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(sql, values)


def _ways(by_rule: bool, narrowed: bool, urgency_at_least: int) -> Iterator[tuple[str, list[str], list[int]]]:
    """The queries that make up a list: table, further conditions and their values. Each takes an index in its order, sorting nothing."""
    if by_rule:
        yield "hits", ["urgency >= ?"], [urgency_at_least]
    elif not narrowed:
        yield "entries", ["kind = 'exchange'"], []
    else:
        for urgency in range(urgency_at_least, max(Urgency) + 1):
            yield "entries", ["kind = 'exchange'", "urgency = ?"], [int(urgency)]
