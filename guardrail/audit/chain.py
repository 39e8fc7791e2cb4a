"""A writer's chain: each entry follows the one before by its hash, and seals, signed, say now and then how far it reached.

A seal is itself an entry of the chain. It signs the hash before it, and so all that came before, and it names the heads of the
other chains that its writer saw in the store: a chain that is cut short or removed later is missed by its neighbours. The last
seal of a writer that stopped in good order is marked `final`.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import structlog

from guardrail.audit.entry import START, Words, canonical, link
from guardrail.audit.keys import SigningKey
from guardrail.audit.rollups import Statements, rollups
from guardrail.audit.row import COLUMNS, Row
from guardrail.engine.model import Urgency

if TYPE_CHECKING:
    from guardrail.audit.database import Database

_NEIGHBOURS = 100
Heads = Mapping[str, tuple[int, str]]
"""Writer -> the number and the hash of its last entry."""

_INSERT = f"INSERT INTO entries ({COLUMNS}) VALUES ({', '.join('?' * len(Row._fields))})"  # noqa: S608  # our own names
_HEAD = """INSERT INTO chains (writer, seq, hash, at) VALUES (?, ?, ?, ?)
    ON CONFLICT (writer) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, at = excluded.at"""


log = structlog.get_logger("guardrail")


class Chain:
    """Makes the rows of one writer. Not for several threads at once."""

    def __init__(self, signing: SigningKey | None = None, writer: str | None = None, clock: Callable[[], float] = time.time) -> None:
        self.writer = writer or uuid.uuid4().hex
        self.seq = 0
        self.sealed = 0
        """How far the last seal reaches, itself included."""
        self._before = START
        self._signing = signing
        self._clock = clock

    def add(self, entry: Mapping[str, Any], words: Words | None = None) -> Row:
        """The next row: an entry, and its words where they are encrypted, with their key's name."""
        body = canonical(entry)
        before, self._before = self._before, link(self._before, body)
        self.seq += 1
        return Row(self.writer, self.seq, *columns(entry), body, before, self._before, entry.get("exchange"), *_swap(words))

    def seal(self, heads: Heads, *, final: bool = False) -> list[Row]:
        """The row of a seal; none without a key, or when nothing came since the last."""
        if self._signing is None or (self.seq == self.sealed and not (final and self.seq)):
            return []
        others = {writer: list(head) for writer, head in heads.items() if writer != self.writer}
        entry = {
            "kind": "seal",
            "id": uuid.uuid4().hex,
            "at": round(self._clock(), 3),
            "final": final,
            "heads": others,
            "key": self._signing.name,
        }
        signature = self._signing.sign(seal_message(self.writer, self.seq + 1, self._before, entry))
        row = self.add({**entry, "signature": signature.hex()})
        self.sealed = self.seq
        return [row]


def seal_message(writer: str, seq: int, before: str, entry: Mapping[str, Any]) -> bytes:
    """What a seal signs: its place, the hash before it, and itself without the signature."""
    unsigned = {name: value for name, value in entry.items() if name != "signature"}
    return b"guardrail seal\n" + canonical([writer, seq, before, unsigned])


def columns(entry: Mapping[str, Any]) -> tuple[str, float, str, int, str, str, str, str | None]:
    """id, at, kind, urgency, destination, action, outcome and tenant of an entry, as the columns repeat them."""
    decision = entry.get("decision") or {"urgency": "none", "destination": "none", "action": entry.get("action") or "none"}
    urgency = int(Urgency[decision["urgency"].upper()])
    outcome = entry.get("outcome") or entry["kind"]
    return entry["id"], entry["at"], entry["kind"], urgency, decision["destination"], decision["action"], outcome, entry.get("tenant")


def insert_statements(rows: Sequence[Row]) -> Statements:
    """What brings new rows into the store: the entries, what is counted of them, and the heads of their chains."""
    last = {row.writer: row for row in rows}  # they come in order
    heads: list[Sequence[Any]] = [(row.writer, row.seq, row.hash, row.at) for row in last.values()]
    return [(_INSERT, list(rows)), *rollups(rows), (_HEAD, heads)]


def log_seals(rows: Iterable[Row]) -> None:
    """Every seal leaves its hash in the log, which whoever can write to the store may not reach."""
    for row in rows:
        if row.kind == "seal":
            log.info("audit_sealed", writer=row.writer, seq=row.seq, hash=row.hash)


def newest_heads(database: "Database") -> dict[str, tuple[int, str]]:
    """The heads of the chains that moved last, as a seal names them."""
    rows = database.execute("SELECT writer, seq, hash FROM chains ORDER BY at DESC LIMIT ?", [_NEIGHBOURS])
    return {writer: (seq, digest) for writer, seq, digest in rows}


def ranges(places: Iterable[tuple[str, int]]) -> dict[str, list[list[int]]]:
    """Places (writer, seq) that come in order as first and last of each run: `{"w": [[1, 500], [502, 502]]}`."""
    found: dict[str, list[list[int]]] = {}
    for writer, of_writer in groupby(places, key=lambda place: place[0]):
        runs = found.setdefault(writer, [])
        for _, seq in of_writer:
            if runs and runs[-1][1] == seq - 1:
                runs[-1][1] = seq
            else:
                runs.append([seq, seq])
    return found


def _swap(words: Words | None) -> tuple[bytes | None, str | None]:
    return (None, None) if words is None else (words[1], words[0])
