"""The same question asked without a proxy: one conversation, and perhaps a reply, in; decision and evidence out.

The form of both is a stable contract (docs); `guardrail check --jsonl` and `POST /-/check` speak it.
"""

from collections.abc import Generator, Mapping
from typing import Any

from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Decision, Finding, Message, Role
from guardrail.engine.reply import ReplyGuard
from guardrail.errors import MalformedRequest
from guardrail.proxy.dialects.chat_completions import read_messages
from guardrail.proxy.relay import review_text

_FIELDS = frozenset({"id", "text", "messages", "response", "country", "language"})


def check(guard: Guard, item: Any) -> dict[str, Any]:
    """One object of the contract; raises MalformedRequest when it is not one."""
    steps = check_steps(guard, item)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            answer: dict[str, Any] = done.value
            return answer


def check_steps(guard: Guard, item: Any) -> Generator[None, None, dict[str, Any]]:
    """`check` as a generator, for a server that has others to serve."""
    conversation, response = read_item(item)
    decision: Decision = yield from guard.review_steps(conversation)
    return {
        "id": item.get("id"),
        **describe(decision),
        "reply": None if response is None else review_reply(guard, decision, conversation, response),
    }


def read_item(item: Any) -> tuple[Conversation, str | None]:
    """The conversation and the reply of one object."""
    if not isinstance(item, Mapping):
        raise MalformedRequest("is not an object")
    unknown = sorted(str(name) for name in item.keys() - _FIELDS)
    if unknown:
        raise MalformedRequest(f'unknown field "{unknown[0]}"; known are {", ".join(sorted(_FIELDS))}')
    for name in ("text", "response", "country", "language"):
        if item.get(name) is not None and not isinstance(item[name], str):
            raise MalformedRequest(f'"{name}" must be a string')
    if (item.get("text") is None) == (item.get("messages") is None):
        raise MalformedRequest('needs either "text" or "messages"')
    if item.get("text") is not None:
        messages: tuple[Message, ...] = (Message(Role.USER, item["text"]),)
    else:
        if not isinstance(item["messages"], list) or not item["messages"] or not all(isinstance(m, dict) for m in item["messages"]):
            raise MalformedRequest('"messages" must be a list of messages')
        messages = read_messages(item["messages"])
    country = item.get("country")
    return Conversation(messages, country.upper() if country else None, item.get("language")), item.get("response")


def describe(decision: Decision) -> dict[str, Any]:
    """`answer` is what the patient is told: in place of a reply (`action` answer), or before one (annotate)."""
    return {
        "urgency": decision.urgency.word,
        "destination": str(decision.destination),
        "topics": sorted(map(str, decision.topics)),
        "action": str(decision.action),
        "answer": decision.answer,
        "rules": [{"id": hit.rule, "title": hit.title} for hit in decision.hits],
        "findings": [describe_finding(finding) for finding in decision.findings],
    }


def describe_finding(finding: Finding) -> dict[str, Any]:
    assertion = finding.assertion
    out: dict[str, Any] = {
        "concept": finding.concept,
        "turn": finding.turn,
        "start": finding.start,
        "end": finding.end,
        "text": finding.text,
        "polarity": str(assertion.polarity),
        "time": str(assertion.time),
        "subject": str(assertion.subject),
        "cues": [{"kind": cue.kind, "text": cue.text, "start": cue.start, "end": cue.end} for cue in assertion.cues],
    }
    if finding.person:
        out["person"] = finding.person
    if finding.quantity is not None:
        out["quantity"] = {"kind": finding.quantity.kind, "value": finding.quantity.value, "unit": finding.quantity.unit}
    return out


def review_reply(guard: Guard, decision: Decision, conversation: Conversation, response: str) -> dict[str, Any]:
    reply_guard = ReplyGuard(guard.knowledge, decision, conversation=conversation)
    text = review_text(reply_guard, response)
    observer = ReplyGuard(guard.knowledge, decision, conversation=conversation, observe=True)
    review_text(observer, response)
    issues = dict.fromkeys(i.issue for report in (reply_guard.report, observer.report) for i in report.issues if not i.shadow)
    return {"action": reply_guard.report.action, "issues": list(issues), "text": text}
