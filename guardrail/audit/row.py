"""One row of the table of entries, as it goes to the store, lies in the spool and comes back."""

import base64
from typing import Any, NamedTuple

import orjson


class Row(NamedTuple):
    """`body` is the entry's canonical JSON, None once erased; the other columns repeat what it says, to search by.

    `words` are the patient's words where they are kept encrypted, under the key named `words_key`; they are not in the body.
    """

    writer: str
    seq: int
    id: str
    at: float
    kind: str
    urgency: int
    destination: str
    action: str
    outcome: str
    tenant: str | None
    body: bytes | None
    before: str
    hash: str
    exchange: str | None = None
    words: bytes | None = None
    words_key: str | None = None


COLUMNS = "writer, seq, id, at, kind, urgency, destination, action, outcome, tenant, body, before_hash, hash, exchange, words, words_key"
_BODY, _WORDS = Row._fields.index("body"), Row._fields.index("words")


def as_bytes(body: Any) -> bytes:
    """A body as it is hashed. SQLite keeps whatever type an edit wrote."""
    return body if isinstance(body, bytes) else bytes(body) if isinstance(body, memoryview) else str(body).encode()


def to_line(row: Row) -> bytes:
    """A row as a line of a spool."""
    values: list[Any] = list(row)
    values[_BODY] = (row.body or b"").decode()
    values[_WORDS] = base64.b64encode(row.words).decode() if row.words is not None else None
    return orjson.dumps(values) + b"\n"


def from_line(line: bytes) -> Row | None:
    """The row of a line, or None: a process killed in mid-write leaves a torn last line."""
    try:
        values = orjson.loads(line)
        values[_BODY] = values[_BODY].encode()
        row = Row(*values)
    except (ValueError, TypeError, AttributeError, IndexError):
        return None
    return row._replace(words=base64.b64decode(row.words)) if row.words is not None else row
