"""What the dashboard counts and searches by, kept beside the entries and in the same transaction: nothing is counted twice.

All of it can be made again from the entries, and none of it is covered by their hashes: `audit verify` reads the entries, and compares
with them what is shown of reviews.
Tallies are kept per writer, so that replicas never wait for each other's row.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson

from guardrail.audit.row import Row

BUCKET_SECONDS = 300  # the narrowest bar of the overview
DAY_SECONDS = 86_400
ESCALATED = 2
"""The urgency from which on an exchange waits for a review."""
_FAULTS = frozenset({"cut", "guard_failed"})

Statements = list[tuple[str, list[Sequence[Any]]]]
_TALLY = """INSERT INTO tallies (bucket, writer, urgency, destination, outcome, count) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (bucket, writer, urgency, destination, outcome) DO UPDATE SET count = tallies.count + excluded.count"""
_RULE_TALLY = """INSERT INTO rule_tallies (day, writer, rule, shadow, count) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (day, writer, rule, shadow) DO UPDATE SET count = rule_tallies.count + excluded.count"""
_HIT = "INSERT INTO hits (rule, at, id, urgency, destination, outcome) VALUES (?, ?, ?, ?, ?, ?)"
_WAITING = "INSERT INTO waiting (id, urgency, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_DONE = "DELETE FROM waiting WHERE id = ?"
REVIEW_COLUMNS = "id, at, state, verdict, comment, reviewer, rule"
_REVIEW = f"INSERT INTO reviews ({REVIEW_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  # our own names
Review = tuple[str, float, str, str | None, str | None, str, str | None]
"""A row of the table of reviews; its columns are REVIEW_COLUMNS."""


def rollups(rows: Sequence[Row], resolved: Collection[str] = ()) -> Statements:
    """The statements that count these new rows; `resolved` are ids that need no review any more."""
    tallies: Counter[tuple[Any, ...]] = Counter()
    rule_tallies: Counter[tuple[Any, ...]] = Counter()
    hits: list[Sequence[Any]] = []
    waiting: list[Sequence[Any]] = []
    reviews: list[Review] = []
    for row in rows:
        if row.kind == "review" and row.body is not None:
            reviews.append(review_of(orjson.loads(row.body)))
        if row.kind != "exchange" or row.body is None:
            continue
        tallies[int(row.at // BUCKET_SECONDS) * BUCKET_SECONDS, row.writer, row.urgency, row.destination, row.outcome] += 1
        if (row.urgency >= ESCALATED or row.outcome in _FAULTS) and row.id not in resolved:
            waiting.append((row.id, row.urgency, row.at))
        decision = orjson.loads(row.body)["decision"] or {"rules": (), "shadow": ()}
        held, shadow = ({hit["id"] for hit in decision[name]} for name in ("rules", "shadow"))
        for rule in sorted(held | shadow):
            hits.append((rule, row.at, row.id, row.urgency, row.destination, row.outcome))
        day = int(row.at // DAY_SECONDS) * DAY_SECONDS
        rule_tallies.update((day, row.writer, rule, 0) for rule in held)
        rule_tallies.update((day, row.writer, rule, 1) for rule in shadow)
    counted: list[tuple[str, list[Sequence[Any]]]] = [
        (_TALLY, [(*key, count) for key, count in tallies.items()]),
        (_RULE_TALLY, [(*key, count) for key, count in rule_tallies.items()]),
        (_HIT, hits),
        (_WAITING, waiting),
    ]
    return [*((sql, values) for sql, values in counted if values), *show_reviews(reviews)]


def show_reviews(reviews: Sequence[Review]) -> Statements:
    """The statements that show these reviews, and take what they resolve out of the queue."""
    resolved: list[Sequence[Any]] = [(id,) for id, _, state, *_ in reviews if state == "resolved"]
    shown: Statements = [(_REVIEW, list(reviews)), (_DONE, resolved)]
    return [(sql, values) for sql, values in shown if values]


def review_of(entry: Mapping[str, Any]) -> Review:
    """What is shown of the entry of a review."""
    return entry["exchange"], entry["at"], entry["state"], entry["verdict"], entry["comment"], entry["by"], entry["rule"]
