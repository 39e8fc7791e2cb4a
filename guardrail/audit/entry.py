"""One exchange as it is kept: plain data, in one spelling, chained by hash to the one before.

`entry_of` decides what of a patient's words is kept: nothing (`absent`), what redaction leaves (`redacted`, the default) or
everything (`plain`, for stores that are themselves protected). The hash covers the entry's canonical JSON and the hash of
the entry before it by the same writer, so that an edit, a removal or an insertion shows.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Any, Literal

import orjson

from guardrail.audit.record import ExchangeRecord
from guardrail.audit.redaction import redact
from guardrail.engine.model import Decision, Finding, RuleHit

TextPolicy = Literal["absent", "redacted", "plain"]
START = "0" * 64
"""What stands before the first entry of a writer."""

_KEEP: dict[TextPolicy, Callable[[str], str | None]] = {"absent": lambda text: None, "redacted": redact, "plain": lambda text: text}


def pseudonym(key: bytes, value: str | None) -> str | None:
    """A patient's or tenant's id as a keyed hash: the same person stays the same, and cannot be looked up without the key."""
    return None if value is None else hmac.new(key, value.encode(), hashlib.sha256).hexdigest()[:24]


def entry_of(record: ExchangeRecord, text: TextPolicy, key: bytes) -> dict[str, Any]:
    """The entry of an exchange."""
    keep = _KEEP[text]
    decision = record.decision
    return {
        "kind": "exchange",
        "id": record.id,
        "at": round(record.at, 3),
        "dialect": record.dialect,
        "model": record.model,
        "stream": record.stream,
        "status": record.status,
        "outcome": str(record.outcome),
        "tenant": record.tenant,
        "patient": pseudonym(key, record.patient),
        "decision": None if decision is None else _decision(decision, keep),
        "texts": [keep(t) for t in record.texts] if text != "absent" else None,
        "reply": [_reply(r, keep) for r in record.reply],
        "not_evaluated": list(record.not_evaluated),
        "error": record.error,
        "guard_ms": round(record.guard_ms, 3),
        "upstream_ms": round(record.upstream_ms, 3),
        "total_ms": round(record.total_ms, 3),
    }


def _decision(decision: Decision, keep: Callable[[str], str | None]) -> dict[str, Any]:
    return {
        "urgency": decision.urgency.word,
        "destination": str(decision.destination),
        "topics": sorted(decision.topics),
        "action": str(decision.action),
        "reminder": decision.reminder,
        "rules": [_hit(h, keep) for h in decision.hits],
        "shadow": [_hit(h, keep) for h in decision.shadow_hits],
        "findings": [_finding(f, keep) for f in decision.findings],
        "revision": decision.revision,
        "language": decision.language,
        "country": decision.country,
    }


def _hit(hit: RuleHit, keep: Callable[[str], str | None]) -> dict[str, Any]:
    return {
        "id": hit.rule,
        "title": hit.title,
        "pack": hit.pack,
        "urgency": hit.disposition.urgency.word,
        "destination": str(hit.disposition.destination),
        "evidence": [_finding(f, keep) for f in hit.evidence],
        "sources": list(hit.sources),
    }


def _finding(finding: Finding, keep: Callable[[str], str | None]) -> dict[str, Any]:
    assertion = finding.assertion
    return {
        "concept": finding.concept,
        "turn": finding.turn,
        "start": finding.start,
        "end": finding.end,
        "text": keep(finding.text),
        "polarity": str(assertion.polarity),
        "time": str(assertion.time),
        "subject": str(assertion.subject),
        "cues": [{"kind": c.kind, "text": keep(c.text), "start": c.start, "end": c.end} for c in assertion.cues],
    }


def _reply(channel: dict[str, Any], keep: Callable[[str], str | None]) -> dict[str, Any]:
    issues = [{**issue, "text": keep(str(issue["text"]))} if "text" in issue else issue for issue in channel.get("issues", ())]
    return {**channel, "issues": issues}


def canonical(entry: dict[str, Any]) -> bytes:
    """The one spelling of an entry that is hashed and kept."""
    return orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)


def link(before: str, body: bytes) -> str:
    """The hash of an entry that follows `before`."""
    return hashlib.sha256(before.encode() + body).hexdigest()
