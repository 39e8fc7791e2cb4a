"""Does the record still say what was written? Recomputes every chain and lists what does not fit.

Finds edits, deletions and insertions inside a chain. What it cannot see on its own is the loss of a chain's newest entries,
or of a whole chain: compare the heads it prints with heads kept elsewhere (`audit verify --heads FILE`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from guardrail.audit.entry import START, link
from guardrail.audit.store import Row


@dataclass(slots=True)
class Verification:
    """`heads` is the last (seq, hash) of each writer; `problems` is empty when everything fits."""

    entries: int = 0
    erased: int = 0
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def verify(rows: Iterable[Row], kept_heads: Mapping[str, tuple[int, str]] | None = None) -> Verification:
    """Check rows that come writer by writer, in order; and that heads kept earlier are still there."""
    found = Verification()
    kept = {writer: dict([head]) for writer, head in (kept_heads or {}).items()}
    for writer, seq, exchange, *_, body, before, digest in rows:
        last_seq, last_hash = found.heads.get(writer, (0, START))
        found.entries += 1
        if seq != last_seq + 1:
            found.problems.append(f"writer {writer}: entries {last_seq + 1} to {seq - 1} are missing")
        elif before != last_hash:
            found.problems.append(f"writer {writer}, entry {seq} ({exchange}): does not follow the entry before it")
        if body is None:
            found.erased += 1
        elif link(str(before), _as_bytes(body)) != digest:
            found.problems.append(f"writer {writer}, entry {seq} ({exchange}): was changed")
        known = kept.get(writer, {}).get(seq)
        if known is not None and known != digest:
            found.problems.append(f"writer {writer}, entry {seq}: is not the one that was there")
        found.heads[writer] = (seq, str(digest))
    for writer, (seq, _) in (kept_heads or {}).items():
        if found.heads.get(writer, (0, ""))[0] < seq:
            found.problems.append(f"writer {writer}: ends at {found.heads.get(writer, (0, ''))[0]}, but reached {seq} before")
    return found


def _as_bytes(body: Any) -> bytes:
    """A body as it is hashed. SQLite keeps whatever type an edit wrote."""
    return body if isinstance(body, bytes) else bytes(body) if isinstance(body, memoryview) else str(body).encode()
