"""Lists and figures from indexes and rollups say the same as the entries themselves, on both databases."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from guardrail.audit.chain import Chain
from guardrail.audit.reader import AuditReader
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.audit.store import AuditStore
from guardrail.engine.model import Urgency
from tests.audit.records import exchange

URGENCIES = list(Urgency)
OUTCOMES = [Outcome.ANSWERED, Outcome.FORWARDED, Outcome.CUT]


def record(number: int) -> ExchangeRecord:
    """Three of each time, so that pages end between exchanges of one time."""
    made = exchange(number, URGENCIES[number % 4])
    return replace(made, at=float(number // 3 * 100), outcome=OUTCOMES[number % 3])


@pytest.fixture
def reader(url: str) -> Iterator[AuditReader]:
    store = AuditStore(url)
    for number in range(60):
        store.record(record(number))
    store.record_access("nurse", "opened", "id000001")
    store.close()
    reader = AuditReader(url)
    yield reader
    reader.close()


FILTERS: list[dict[str, Any]] = [
    {},
    {"urgency_at_least": 2},
    {"destination": "ambulance"},
    {"outcome": "cut"},
    {"outcome": "cut", "urgency_at_least": 3},
    {"destination": "none", "outcome": "forwarded", "after": 500.0},
    {"before": 1_000.0, "after": 300.0},
    {"rule": "acs"},
    {"rule": "acs", "urgency_at_least": 3, "outcome": "answered"},
    {"rule": "stroke"},
]


def fits(r: ExchangeRecord, wanted: dict[str, Any]) -> bool:
    assert r.decision is not None
    return (
        r.decision.urgency >= wanted.get("urgency_at_least", 0)
        and wanted.get("destination") in (None, str(r.decision.destination))
        and wanted.get("outcome") in (None, str(r.outcome))
        and wanted.get("rule") in (None, "acs")
        and wanted.get("after", -1.0) < r.at < wanted.get("before", 1e12)
    )


@pytest.mark.parametrize("wanted", FILTERS, ids=[" ".join(f) or "all" for f in FILTERS])
def test_pages_hold_every_fitting_exchange_once_newest_first(reader: AuditReader, wanted: dict[str, Any]) -> None:
    expected = [r.id for r in sorted(map(record, range(60)), key=lambda r: (r.at, r.id), reverse=True) if fits(r, wanted)]

    found: list[str] = []
    cursor = None
    while page := reader.list_entries(**wanted, cursor=cursor, limit=7):
        found += [entry["id"] for entry in page]
        cursor = (page[-1]["at"], page[-1]["id"])

    assert found == expected


def test_figures_add_up(reader: AuditReader) -> None:
    counted: Counter[tuple[float, int, str]] = Counter()
    for at, urgency, _, outcome, count in reader.counts(0.0, 600):
        counted[at, urgency, outcome] += count

    expected = Counter((r.at // 600 * 600, int(URGENCIES[n % 4]), str(r.outcome)) for n, r in enumerate(map(record, range(60))))
    assert counted == expected
    assert reader.rule_counts(0.0) == {"acs": (60, 0)}


def test_the_queue_holds_what_needs_a_verdict_until_it_has_one(reader: AuditReader) -> None:
    waiting = [r for n, r in enumerate(map(record, range(60))) if URGENCIES[n % 4] >= Urgency.URGENT or r.outcome is Outcome.CUT]
    first = reader.unresolved(limit=1)[0]["id"]

    assert reader.unresolved_count() == len(waiting)
    reader.review(first, "acknowledged", None, None, "nurse")
    assert reader.unresolved_count() == len(waiting)
    reader.review(first, "resolved", "false_alarm", None, "nurse")
    reader.review(first, "resolved", "right", "after all", "nurse")

    assert reader.unresolved_count() == len(waiting) - 1
    assert reader.unresolved(limit=1)[0]["id"] != first
    assert reader.verdicts() == {"acs": {"right": 1}}


def test_what_was_erased_is_in_no_list_and_no_queue(reader: AuditReader) -> None:
    reader.purge(Chain(), "admin", before=1_000.0)

    assert {r["at"] for r in reader.list_entries(limit=100)} == {float(at) for at in range(1_000, 2_000, 100)}
    assert {r["at"] for r in reader.list_entries(rule="acs", limit=100)} == {float(at) for at in range(1_000, 2_000, 100)}
    assert all(e["at"] >= 1_000.0 for e in reader.unresolved(limit=100))


def test_who_looked_is_told_by_exchange(reader: AuditReader) -> None:
    assert [(a["by"], a["action"]) for a in reader.accesses("id000001")] == [("nurse", "opened")]
    assert reader.accesses("id000002") == []
