"""What the pages show, as plain data ready for JSON: read from the store and the packs in force. No HTML here.

Each function is one page. They block on the store, so the pages call them in a thread. Figures come from what the store counts as it
writes; latencies from the newest entries only, and the page says from how many.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from guardrail.audit.reader import AuditReader
from guardrail.audit.record import Outcome
from guardrail.dashboard.highlight import group, highlight, title_of
from guardrail.engine.knowledge import Knowledge
from guardrail.engine.model import Destination, Maturity, Urgency

SPANS: Final[Mapping[str, tuple[int, int]]] = {"1h": (3600, 300), "24h": (86_400, 3600), "7d": (7 * 86_400, 6 * 3600)}
"""Name -> seconds shown, seconds of a bar."""
PAGE: Final = 50
_RECENT: Final = 500
_FIRST: Final = 5
"""So many of what waits for review are on the overview."""
_RULE_DAYS: Final = 30
VERDICTS: Final = ("right", "false_alarm", "missed")
ESCALATED: Final = int(Urgency.URGENT)
_UPSTREAM: Final = frozenset({Outcome.UPSTREAM_LOST, Outcome.UPSTREAM_REFUSED, Outcome.UPSTREAM_UNREACHABLE})


@dataclass(frozen=True, slots=True)
class Filter:
    """What the list is narrowed to; `cursor` is where the page before ended."""

    urgency: int = 0
    destination: str | None = None
    rule: str | None = None
    outcome: str | None = None
    after: float | None = None
    before: float | None = None
    id: str | None = None
    cursor: tuple[float, str] | None = None

    @classmethod
    def read(cls, query: Mapping[str, str]) -> "Filter":
        """From a page's address; what cannot be read is left out."""
        words = {u.word: int(u) for u in Urgency}
        return cls(
            urgency=words.get(query.get("urgency", ""), 0),
            destination=_one_of(query.get("destination"), Destination),
            rule=query.get("rule", "").strip() or None,
            outcome=_one_of(query.get("outcome"), Outcome),
            after=read_time(query.get("after", "")),
            before=read_time(query.get("before", "")),
            id=query.get("id", "").strip() or None,
            cursor=_read_cursor(query.get("cursor", "")),
        )


def overview(reader: AuditReader, knowledge: Knowledge, parts: Mapping[str, bool | None], span: str, now: float) -> dict[str, Any]:
    """Escalations over time by destination, rates, latency, packs, what works."""
    seconds, step = SPANS[span]
    first = (now - seconds) // step * step + step
    counts = reader.counts(first, step)
    bars = [Counter[str]() for _ in range(seconds // step)]
    outcomes: Counter[str] = Counter()
    destinations: Counter[str] = Counter()
    urgencies: Counter[int] = Counter()
    for at, urgency, destination, outcome, count in counts:
        outcomes[outcome] += count
        urgencies[urgency] += count
        if urgency >= ESCALATED:
            destinations[destination] += count
            bars[min(int((at - first) // step), len(bars) - 1)][destination] += count
    order = [str(d) for d in Destination if destinations[str(d)]]
    total = outcomes.total()
    recent = reader.list_entries(limit=_RECENT)
    latest = [e for e in recent if e["decision"] and Urgency[e["decision"]["urgency"].upper()] >= Urgency.URGENT][:6]
    return {
        "span": span,
        "spans": list(SPANS),
        "from": _time(first),
        "to": _time(now),
        "exchanges": total,
        "escalations": sum(destinations.values()),
        "emergencies": urgencies[int(Urgency.EMERGENCY)],
        "waiting": reader.unresolved_count(),
        "waiting_first": _rows(reader, reader.unresolved(limit=_FIRST)),
        "last_exchange": _time(recent[0]["at"]) if recent else None,
        "rates": {
            "escalated": _share(sum(destinations.values()), total),
            "cut": _share(outcomes[Outcome.CUT], total),
            "guard_failed": _share(outcomes[Outcome.GUARD_FAILED], total),
            "upstream_failed": _share(sum(outcomes[o] for o in _UPSTREAM), total),
        },
        "destinations": {d: destinations[d] for d in order},
        "outcomes": dict(outcomes.most_common()),
        "bars": [{"at": _time(first + i * step), "counts": {d: bar[d] for d in order if bar[d]}} for i, bar in enumerate(bars)],
        "latency": {
            "exchanges": len(recent),
            "guard_ms": _percentiles([e["guard_ms"] for e in recent if e["decision"]]),
            "upstream_ms": _percentiles([e["upstream_ms"] for e in recent if e["upstream_ms"]]),
            "total_ms": _percentiles([e["total_ms"] for e in recent]),
        },
        "parts": dict(parts),
        "packs": {
            "revision": knowledge.revision,
            "packs": len(knowledge.packs),
            "rules": len(knowledge.rules),
            "reviewed": sum(p.reviewed is not None for p in knowledge.packs),
        },
        "latest": _rows(reader, latest),
    }


def exchanges(reader: AuditReader, wanted: Filter) -> dict[str, Any]:
    """A page of the list, newest first, and the cursor of the next."""
    if wanted.id:
        entry = reader.entry(wanted.id)
        return {"exchanges": _rows(reader, [entry] if entry else []), "next": None}
    found = _search(reader, wanted, PAGE + 1)
    more = len(found) > PAGE
    found = found[:PAGE]
    return {"exchanges": _rows(reader, found), "next": f"{found[-1]['at']!r}~{found[-1]['id']}" if more else None}


def entry_with_words(reader: AuditReader, id: str) -> dict[str, Any] | None:
    """The entry for somebody who may read what the patient wrote."""
    return reader.entry(id, words=True)


def exchange(reader: AuditReader, id: str, knowledge: Knowledge, may_read: bool = True) -> dict[str, Any] | None:
    """Everything that is kept of one exchange, its texts with the evidence marked, what reviewers said and who looked.

    Words that are kept encrypted are shown to who `may_read` them.
    """
    entry = reader.entry(id, words=may_read)
    if entry is None:
        return None
    decision = entry["decision"] or {"rules": [], "shadow": [], "findings": []}
    evidence = [f for hit in decision["rules"] for f in hit["evidence"]]
    texts = highlight(entry["texts"] or (), evidence, decision["findings"], entry.get("turns"))
    return {
        "exchange": entry,
        "time": _time(entry["at"]),
        "texts": [[{"text": s.text, "kind": s.kind, "title": s.title} for s in segments] for segments in texts],
        "findings": group(decision["findings"], knowledge.concepts),
        "concepts": {f["concept"]: title_of(f["concept"], knowledge.concepts) for f in evidence},
        "same_packs": bool(entry["decision"]) and entry["decision"]["revision"] == knowledge.revision,
        "reviews": [{**r, "time": _time(r["at"])} for r in reader.reviews(id)],
        "accesses": [{**a, "time": _time(a["at"])} for a in reader.accesses(id)],
    }


def rules(reader: AuditReader, knowledge: Knowledge) -> dict[str, Any]:
    """How often each rule held in the last days, and what reviewers said of the exchanges that it decided."""
    counts = reader.rule_counts(now() - _RULE_DAYS * 86_400)
    verdicts = reader.verdicts()
    hits = {rule: live + shadow for rule, (live, shadow) in counts.items()}
    rows = [
        {
            "id": named.id,
            "title": named.rule.title,
            "pack": named.pack,
            "maturity": str(named.rule.maturity),
            "hits": hits.get(named.id, 0),
            "verdicts": {v: verdicts.get(named.id, {}).get(v, 0) for v in VERDICTS},
        }
        for named in knowledge.rules
        if named.rule.maturity is not Maturity.RETIRED
    ]
    rows.sort(key=lambda row: (-hits.get(str(row["id"]), 0), str(row["pack"]), str(row["id"])))
    return {"days": _RULE_DAYS, "rules": rows}


def packs(knowledge: Knowledge, workers: Mapping[str, int], problems: Sequence[str]) -> dict[str, Any]:
    """The packs in force, by how many workers, whether a clinician has reviewed them, and why newer ones are not in force."""
    return {
        "revision": knowledge.revision,
        "workers": dict(workers),
        "problems": list(problems),
        "reviewed": sum(p.reviewed is not None for p in knowledge.packs),
        "packs": [
            {"name": p.name, "title": p.title, "version": p.version, "reviewed": p.reviewed, "rules": p.rules} for p in knowledge.packs
        ],
        "overrides": [asdict(o) for o in knowledge.overrides],
    }


def queue(reader: AuditReader) -> dict[str, Any]:
    """What waits for a verdict: most urgent first, then newest."""
    waiting = reader.unresolved(limit=PAGE + 1)
    return {"exchanges": _rows(reader, waiting[:PAGE]), "more": len(waiting) > PAGE}


def _search(reader: AuditReader, wanted: Filter, limit: int) -> list[dict[str, Any]]:
    return reader.list_entries(
        urgency_at_least=wanted.urgency,
        destination=wanted.destination,
        outcome=wanted.outcome,
        rule=wanted.rule,
        before=wanted.before,
        after=wanted.after,
        cursor=wanted.cursor,
        limit=limit,
    )


def _rows(reader: AuditReader, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    reviews = reader.last_reviews([e["id"] for e in entries])
    return [_row(e, reviews.get(e["id"])) for e in entries]


def _row(entry: Mapping[str, Any], review: Mapping[str, Any] | None) -> dict[str, Any]:
    decision = entry["decision"]
    issues = [i["issue"] for channel in entry["reply"] for i in channel.get("issues", ()) if not i.get("shadow")]
    return {
        "id": entry["id"],
        "time": _time(entry["at"]),
        "urgency": decision["urgency"] if decision else None,
        "destination": decision["destination"] if decision else None,
        "action": decision["action"] if decision else None,
        "rules": [{"id": h["id"], "title": h["title"]} for h in decision["rules"]] if decision else [],
        "issues": list(dict.fromkeys(issues)),
        "outcome": entry["outcome"],
        "dialect": entry["dialect"],
        "total_ms": entry["total_ms"],
        "state": review["state"] if review else "new",
        "verdict": review["verdict"] if review else None,
        "reviewer": review["reviewer"] if review else None,
    }


def _percentiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    values.sort()
    return {f"p{p}": round(values[min(len(values) - 1, len(values) * p // 100)], 2) for p in (50, 95, 99)}


def ago(time_text: str, at: float) -> str:
    """How long before `at` a time was, as people say it."""
    seconds = max(0, int(at - (read_time(time_text) or at)))
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def read_time(text: str) -> float | None:
    """Seconds since the epoch of a time in UTC as a form sends it, or None."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def _read_cursor(text: str) -> tuple[float, str] | None:
    at, _, id = text.partition("~")
    try:
        return (float(at), id) if id else None
    except ValueError:
        return None


def _one_of(value: str | None, choices: type[Destination] | type[Outcome]) -> str | None:
    return value if value in set(choices) else None


def now() -> float:
    return time.time()
