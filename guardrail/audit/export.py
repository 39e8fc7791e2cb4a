"""The record as lines of JSON, to keep or to verify elsewhere: every row as it was hashed, with its place in its chain.

Encrypted words go along as they are, unless they are opened (`keys`): then they stand beside the entry, which stays as it was hashed.
"""

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from guardrail.audit.chain import columns
from guardrail.audit.entry import canonical, with_words
from guardrail.audit.keys import TextKeys
from guardrail.audit.row import Row, as_bytes
from guardrail.errors import ConfigError


def write_line(row: Row, keys: TextKeys | None = None) -> bytes:
    """One row. Of an erased one only its place and hash are left."""
    line: dict[str, Any] = {"writer": row.writer, "seq": row.seq, "id": row.id, "at": row.at, "kind": row.kind}
    line |= {"before": row.before, "hash": row.hash}
    line["entry"] = entry = None if row.body is None else _read(row.body)
    if row.words is not None and row.words_key is not None:
        opened = with_words(entry, (row.words_key, bytes(row.words)), keys) if keys and entry else None
        if opened is not None:
            line["opened"] = {name: opened[name] for name in ("texts", "decision", "reply")}
        line["words"] = {"key": row.words_key, "data": base64.b64encode(bytes(row.words)).decode()}
    return orjson.dumps(line, option=orjson.OPT_SORT_KEYS) + b"\n"


def read_lines(path: Path) -> Iterator[Row]:
    """The rows of an export. Raises ConfigError with the line where it is none."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield _read_line(orjson.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise ConfigError(f"{path}:{number}: is not a line of guardrail audit export: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def seals_among(rows: Iterable[Row]) -> Iterator[Row]:
    """Every seal and every record of an erasure."""
    return (row for row in rows if row.kind in ("seal", "erasure"))


def _read(body: Any) -> Any:
    """The entry, in which what is not canonical stays visible: its hash does not fit."""
    try:
        return orjson.loads(as_bytes(body))
    except ValueError:
        return {"unreadable": as_bytes(body).hex()}


def _columns(entry: Any) -> tuple[int, str, str, str, str | None]:
    """What is not exported beside the entry, because the entry says it: urgency, destination, action, outcome, tenant."""
    try:
        return columns(entry)[3:]
    except (KeyError, TypeError, AttributeError):
        return 0, "", "", "", None


def _read_line(line: dict[str, Any]) -> Row:
    entry = line["entry"]
    words = line.get("words")
    data, key = (base64.b64decode(words["data"]), words["key"]) if words else (None, None)
    place = (str(line["writer"]), int(line["seq"]), line["id"], line["at"], line["kind"])
    body = None if entry is None else canonical(entry)
    exchange = entry.get("exchange") if isinstance(entry, dict) else None
    return Row(*place, *_columns(entry), body, line["before"], line["hash"], exchange, data, key)
