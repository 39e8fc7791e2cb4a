"""Does the record still say what was written? Recomputes every chain and lists what does not fit.

From the chains alone: edits, deletions, insertions and another order within a chain. From the seals, with the public key: chains
that were made up or made over, and ends that were cut off although a seal, their own or a neighbour's, had reached further.
What comes after the last seal can be cut off unseen: it is counted, and `audit verify --heads FILE` finds it too.

Reviews are entries, too; what a store shows of them is compared. Not covered: what the dashboard counts, which is derived.
"""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from guardrail.audit.chain import Heads, columns, seal_message
from guardrail.audit.entry import START, link
from guardrail.audit.keys import PublicKey
from guardrail.audit.rollups import Review, review_of
from guardrail.audit.row import Row, as_bytes

Claims = dict[str, dict[int, list[tuple[str, str]]]]
"""Writer -> number -> the hashes that stood there, and who says so."""


@dataclass(slots=True)
class Verification:
    """`heads` is the last (seq, hash) of each writer; `problems` is empty when everything fits.

    `reviews` counts steps of reviews, `taken_over` those from before they were entries, which nobody sealed. `seals`
    counts seals, `sealed` says how far each writer's own good seals reach, `open` names writers without a final one.
    """

    entries: int = 0
    erased: int = 0
    reviews: int = 0
    taken_over: int = 0
    seals: int = 0
    unsealed: int = 0
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    sealed: dict[str, int] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


def verify(
    rows: Iterable[Row],
    *,
    seals: Iterable[Row] = (),
    keys: Sequence[PublicKey] = (),
    kept_heads: Heads | None = None,
    shown_reviews: Iterable[Review] | None = None,
) -> Verification:
    """Check rows that come writer by writer, in order; that seals hold; and that heads kept earlier are still there.

    `shown_reviews` is what a store shows of reviews; an export has no such table.

    `seals` are the seals and records of erasure among the rows, as `AuditReader.seals` gives them. Without keys their signatures are
    not checked, and what only a signature could tell is not said.
    """
    found = Verification()
    witness = _Witness(seals, {key.name: key for key in keys}, found)
    claims = witness.claims
    for writer, head in (kept_heads or {}).items():
        claims.setdefault(writer, {}).setdefault(head[0], []).append((head[1], "the heads kept before"))
    first_at: dict[str, float] = {}
    reviews: Counter[Review] = Counter()
    erased: set[str] = set()
    for row in rows:
        place = f"writer {row.writer}, entry {row.seq}"
        last_seq, last_hash = found.heads.get(row.writer, (0, START))
        found.entries += 1
        if row.seq != last_seq + 1:
            found.problems.append(f"writer {row.writer}: entries {last_seq + 1} to {row.seq - 1} are missing")
        elif row.before != last_hash:
            found.problems.append(f"{place} ({row.id}): does not follow the entry before it")
        if row.body is None:
            found.erased += 1
            erased.add(row.id)
            if not witness.has_erased(row.writer, row.seq):
                found.problems.append(f"{place} ({row.id}): was erased, and no record says so")
        else:
            entry = _read(row.body) if row.kind == "review" else {}
            if row.kind == "review":
                with suppress(KeyError, TypeError):  # a forged one is found by its hash
                    reviews[review_of(entry)] += 1
                found.taken_over += bool(entry.get("taken_over"))
            # A command that had no key may note that it exported; a store that was brought up to date, who had reviewed.
            if row.kind != "access" and not entry.get("taken_over"):
                first_at.setdefault(row.writer, row.at)
            if complaint := _complaint(row, as_bytes(row.body)):
                found.problems.append(f"{place} ({row.id}): {complaint}")
        for digest, who in claims.get(row.writer, {}).pop(row.seq, ()):
            if digest != row.hash:
                found.problems.append(f"{place}: is not the one that was there, say {who}")
        found.heads[row.writer] = (row.seq, str(row.hash))
    found.reviews = reviews.total()
    _check_ends(found, witness, first_at, signed=bool(keys))
    if shown_reviews is not None:
        _check_reviews(found, reviews, Counter(shown_reviews), erased)
    return found


class _Witness:
    """What the seals say: claims about heads, erasures that were recorded, and since when there are seals."""

    def __init__(self, seals: Iterable[Row], keys: Mapping[str, PublicKey], found: Verification) -> None:
        self.claims: Claims = {}
        self.final: dict[str, int] = {}
        """Where writers closed their chains."""
        self._times: list[float] = []
        self._erased: dict[str, set[tuple[int, int]]] = {}
        erasures: list[tuple[Row, dict[str, Any]]] = []
        for row in seals:
            entry = _read(row.body)
            if row.kind == "erasure":
                erasures.append((row, entry))
            elif not keys or _is_signed(row, entry, keys):
                self._take(row, entry, found)
            else:
                problem = "carries no good signature" if entry.get("key") in keys else "was made with a key that was not given"
                found.problems.append(f"writer {row.writer}, entry {row.seq}: this seal {problem}")
        self.since = min(self._times, default=None)
        """The first seal's time."""
        for row, entry in erasures:
            before_seals = self.since is None or row.at < self.since
            if not keys or before_seals or row.seq <= found.sealed.get(row.writer, 0):
                for writer, runs in entry.get("ranges", {}).items():
                    self._erased.setdefault(writer, set()).update((first, last) for first, last in runs)
            else:
                found.problems.append(f"writer {row.writer}, entry {row.seq}: this record of an erasure is not sealed")

    def has_erased(self, writer: str, seq: int) -> bool:
        return any(first <= seq <= last for first, last in self._erased.get(writer, ()))

    def _take(self, row: Row, entry: dict[str, Any], found: Verification) -> None:
        found.seals += 1
        found.sealed[row.writer] = row.seq
        self._times.append(row.at)
        if entry.get("final"):
            found.open.discard(row.writer)
            self.final[row.writer] = row.seq
        else:
            found.open.add(row.writer)
        says = f"the seals of writer {row.writer}"
        own = {row.writer: (row.seq, row.hash)}
        for writer, (seq, digest) in {**entry.get("heads", {}), **own}.items():
            self.claims.setdefault(writer, {}).setdefault(seq, []).append((digest, says))


def _check_ends(found: Verification, witness: "_Witness", first_at: Mapping[str, float], *, signed: bool) -> None:
    """What is left of the claims was not met. `signed` where keys were given, so that seals can be told from forged ones."""
    for writer, left in sorted(witness.claims.items()):
        ends = found.heads.get(writer, (0, ""))[0]
        reached = max(left, default=0)
        if reached > ends:
            found.problems.append(f"writer {writer}: ends at {ends}, but reached {reached} before, say {left[reached][0][1]}")
    for writer, (seq, _) in sorted(found.heads.items()):
        found.unsealed += seq - found.sealed.get(writer, 0)
        if seq > witness.final.get(writer, seq):
            found.problems.append(f"writer {writer}: goes on to {seq} behind its closing seal, entry {witness.final[writer]}")
        if signed and witness.since is not None and writer not in found.sealed and first_at.get(writer, 0.0) >= witness.since:
            found.problems.append(f"writer {writer}: has no seal, though others had begun to seal")


def _check_reviews(found: Verification, written: Counter[Review], shown: Counter[Review], erased: Container[str]) -> None:
    """What is shown of reviews is what was written. Those of erased exchanges may have gone with them."""
    for left, what in ((shown - written, "is shown, and was not written so"), (written - shown, "was written, and is not shown")):
        found.problems += [
            f"exchange {exchange}: {verdict or state} by {reviewer} {what}"
            for exchange, _, state, verdict, _, reviewer, _ in left.elements()
            if exchange not in erased
        ]


def _complaint(row: Row, body: bytes) -> str | None:
    """What is wrong with one row in itself."""
    if link(str(row.before), body) != row.hash:
        return "was changed"
    entry = _read(row.body)
    try:
        written = columns(entry)
    except (KeyError, TypeError, AttributeError):
        return "is no entry"
    said = (row.id, row.at, row.kind, row.urgency, row.destination, row.action, row.outcome, row.tenant)
    if written != said or entry.get("exchange") != row.exchange:
        return "is shown otherwise than it was written (its columns were changed)"
    if "words" in entry and row.words is None:
        return "lost its words"
    return None


def _is_signed(row: Row, entry: dict[str, Any], keys: Mapping[str, PublicKey]) -> bool:
    try:
        signature = bytes.fromhex(entry["signature"])
        key = keys[entry["key"]]
    except (KeyError, ValueError, TypeError):
        return False
    return key.fits(signature, seal_message(row.writer, row.seq, row.before, entry))


def _read(body: Any) -> dict[str, Any]:
    try:
        entry = orjson.loads(as_bytes(body))
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
