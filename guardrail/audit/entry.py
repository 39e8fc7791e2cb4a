"""One exchange as it is kept: plain data, in one spelling, chained by hash to the one before.

`entry_of` makes the entry; `kept_entry` decides what of a patient's words is in it: nothing (`absent`), what redaction leaves
(`redacted`, the default), or everything, beside it and encrypted (`encrypted`).
The hash covers the entry's canonical JSON and the hash of the entry before it by the same writer, so that an edit, a removal or an
insertion shows. Encrypted words stand beside the entry, which holds their hash: so they can be encrypted anew under another key, or
erased, and the chain still holds. The hash is salted within what is encrypted: it tells nothing about short texts.
"""

import hashlib
import hmac
import os
import uuid
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, assert_never

import orjson

from guardrail.audit.keys import TextKeys
from guardrail.audit.record import ExchangeRecord
from guardrail.audit.redaction import find, redact
from guardrail.engine.model import Decision, Finding, RuleHit
from guardrail.errors import ConfigError

TextPolicy = Literal["absent", "redacted", "encrypted"]
Keep = Callable[[str], str | None]
Words = tuple[str, bytes]
"""The name of a text key, and what was encrypted with it."""
_WORDY = ("texts", "decision", "reply")
START = "0" * 64
"""What stands before the first entry of a writer."""


def pseudonym(key: bytes, value: str | None) -> str | None:
    """A patient's or tenant's id as a keyed hash: the same person stays the same, and cannot be looked up without the key."""
    return None if value is None else hmac.new(key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:24]


def entry_of(
    record: ExchangeRecord, key: bytes, keep: Keep = lambda text: text, keep_reply: Keep | None = None, *, found: bool = True
) -> dict[str, Any]:
    """The entry of an exchange; `keep` says what becomes of each stretch of the patient's words, `keep_reply` of the reply's.

    Without `found` the rules that held are told, and not what was found in the texts.
    """
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
        "decision": None if decision is None else _decision(decision, keep, found),
        "texts": [keep(t) for t in record.texts],
        "turns": list(record.turns),
        "reply": [_reply(r, keep_reply or keep) for r in record.reply],
        "not_evaluated": list(record.not_evaluated),
        "error": record.error,
        "guard_ms": round(record.guard_ms, 3),
        "upstream_ms": round(record.upstream_ms, 3),
        "total_ms": round(record.total_ms, 3),
    }


def bare_entry(record: ExchangeRecord, key: bytes) -> dict[str, Any]:
    """The entry of an exchange without any words, the patient's or the reply's."""
    return {**entry_of(record, key, _nothing), "texts": None}


def noted_entry(record: ExchangeRecord, key: bytes) -> dict[str, Any]:
    """What must be known of an exchange at once: who was sent where by which rules. An answer waits for it to be made."""
    return {**entry_of(record, key, _nothing, found=False), "texts": None}


def kept_entry(record: ExchangeRecord, policy: TextPolicy, key: bytes, keys: TextKeys | None) -> tuple[dict[str, Any], Words | None]:
    """The entry as the policy wants it kept, and its encrypted words, if any."""
    match policy:
        case "absent":
            return bare_entry(record, key), None
        case "redacted":
            # Findings are stretches of the texts: where those hold nothing, neither do these, and there are many of them.
            hide: Keep = cache(redact)
            return entry_of(record, key, hide if any(map(find, record.texts)) else _everything, hide), None
        case "encrypted":
            if keys is None:
                raise ConfigError("audit_text: encrypted needs audit_text_keys; guardrail audit text-key FILE makes one")
            whole = entry_of(record, key)
            words = zlib.compress(orjson.dumps([os.urandom(16).hex(), {name: whole[name] for name in _WORDY}]), 1)
            entry = {**bare_entry(record, key), "words": hashlib.sha256(words).hexdigest()}
            return entry, keys.encrypt(words, record.id)
        case _:
            assert_never(policy)


def access_entry(by: str, action: str, exchange: str | None, at: float) -> dict[str, Any]:
    """That somebody opened or exported an exchange, or all of them (None)."""
    return {"kind": "access", "id": uuid.uuid4().hex, "at": round(at, 3), "by": by, "action": action, "exchange": exchange}


def review_entry(
    exchange: str, state: str, verdict: str | None, comment: str | None, by: str, *, rule: str | None, at: float
) -> dict[str, Any]:
    """One step of a review: acknowledged, or resolved with a verdict, which is on `rule`."""
    entry = {"kind": "review", "id": uuid.uuid4().hex, "at": round(at, 3), "by": by, "exchange": exchange}
    return {**entry, "state": state, "verdict": verdict, "comment": comment, "rule": rule}


def with_words(entry: Mapping[str, Any], words: Words, keys: TextKeys) -> dict[str, Any] | None:
    """The entry with its words in their places; None where they cannot be decrypted or are not those of this entry."""
    found = keys.decrypt(*words, entry["id"])
    if found is None or hashlib.sha256(found).hexdigest() != entry.get("words"):
        return None
    _salt, parts = orjson.loads(zlib.decompress(found))
    return {**entry, **parts}


def _nothing(text: str) -> None:
    return None


def _everything(text: str) -> str:
    return text


def _decision(decision: Decision, keep: Keep, found: bool) -> dict[str, Any]:
    return {
        "urgency": decision.urgency.word,
        "destination": str(decision.destination),
        "topics": sorted(decision.topics),
        "action": str(decision.action),
        "reminder": decision.reminder,
        "rules": [_hit(h, keep, found) for h in decision.hits],
        "shadow": [_hit(h, keep, found) for h in decision.shadow_hits],
        "findings": [_finding(f, keep) for f in decision.findings] if found else [],
        "revision": decision.revision,
        "language": decision.language,
        "country": decision.country,
    }


def _hit(hit: RuleHit, keep: Keep, found: bool) -> dict[str, Any]:
    return {
        "id": hit.rule,
        "title": hit.title,
        "pack": hit.pack,
        "urgency": hit.disposition.urgency.word,
        "destination": str(hit.disposition.destination),
        "evidence": [_finding(f, keep) for f in hit.evidence] if found else [],
        "sources": list(hit.sources),
    }


def _finding(finding: Finding, keep: Keep) -> dict[str, Any]:
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


def _reply(channel: dict[str, Any], keep: Keep) -> dict[str, Any]:
    issues = [{**issue, "text": keep(str(issue["text"]))} if "text" in issue else issue for issue in channel.get("issues", ())]
    return {**channel, "issues": issues}


def canonical(value: Any) -> bytes:
    """The one spelling of an entry that is hashed and kept."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def link(before: str, body: bytes) -> str:
    """The hash of an entry that follows `before`."""
    return hashlib.sha256(before.encode() + body).hexdigest()
