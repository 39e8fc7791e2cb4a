"""Judges labelled items: asks the guard what it would decide, and names every way in which that differs from the label.

A mistake has a name: `..._missed` when the guard did too little, `..._raised` when it did too much. Nothing is weighed
here; see `measures`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter

from guardrail.engine.guard import Guard
from guardrail.engine.model import Decision, Finding, Topic, Urgency
from guardrail.engine.reply import Edit, ReplyGuard, ReplyReport
from guardrail.stress.labelled import DISCLAIMER, Labelled

_CHANGED = frozenset({"replace", "cut"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the guard made of one item. `mistakes` is empty when it agrees with the labels."""

    item: Labelled
    decision: Decision
    mistakes: tuple[str, ...]
    seconds: float
    report: ReplyReport | None = None
    shown: str = ""
    """Of a reply: what the patient would read."""

    @property
    def misses(self) -> tuple[str, ...]:
        return tuple(m for m in self.mistakes if is_miss(m))

    @property
    def alarms(self) -> tuple[str, ...]:
        return tuple(m for m in self.mistakes if not is_miss(m))


def is_miss(mistake: str) -> bool:
    return mistake.endswith("_missed")


def judge_all(guard: Guard, items: Iterable[Labelled]) -> Iterator[Outcome]:
    """One outcome for each item, in order."""
    for item in items:
        yield judge(guard, item)


def judge(guard: Guard, item: Labelled) -> Outcome:
    started = perf_counter()
    decision = guard.review(item.conversation)
    seconds = perf_counter() - started
    match item.kind:
        case "message":
            return Outcome(item, decision, tuple(_message_mistakes(item, decision)), seconds)
        case "mention":
            return Outcome(item, decision, tuple(_mention_mistakes(item, decision)), seconds)
        case "reply":
            report, shown = _read_reply(ReplyGuard(guard.knowledge, decision, conversation=item.conversation), item.response)
            return Outcome(item, decision, tuple(_reply_mistakes(item, report)), seconds, report, shown)


def _message_mistakes(item: Labelled, decision: Decision) -> Iterator[str]:
    urgency = decision.urgency
    if item.triage is Urgency.EMERGENCY:
        if urgency < Urgency.EMERGENCY:
            yield "emergency_missed"
    elif item.triage is Urgency.URGENT:
        if urgency < Urgency.URGENT:
            yield "urgent_missed"
    elif item.triage is not None:
        if urgency is Urgency.EMERGENCY:
            yield "emergency_raised"
        if urgency >= Urgency.URGENT:
            yield "urgent_raised"
    for topic, label in ((Topic.MEDICATION, item.medication), (Topic.CRISIS, item.crisis)):
        if label is not None and label is not (topic in decision.topics):
            yield f"{topic}_{'missed' if label else 'raised'}"


def counting_over(item: Labelled, decision: Decision) -> list[Finding]:
    """Findings that count and overlap the labelled mention. What the second reader says is about sentences, not about words."""
    start, end = item.span
    return [f for f in decision.findings if f.assertion.counts and f.start < end and start < f.end and not f.concept.startswith("scored_")]


def _mention_mistakes(item: Labelled, decision: Decision) -> Iterator[str]:
    found = bool(counting_over(item, decision))
    if found is not item.counts:
        yield "mention_missed" if item.counts else "mention_raised"


def found_issues(report: ReplyReport) -> frozenset[str]:
    """The names of what was found in a reply, in the words of the labels."""
    issues = {str(i.issue) for i in report.issues if not i.shadow}
    return frozenset(issues | {DISCLAIMER} if report.disclaimer_present else issues)


def is_altered(report: ReplyReport) -> bool:
    """Whether the patient reads other words than the model's, additions aside."""
    return report.action in _CHANGED


def _reply_mistakes(item: Labelled, report: ReplyReport) -> Iterator[str]:
    found = found_issues(report)
    for issue in sorted(item.issues - found):
        yield f"{issue}_missed"
    for issue in sorted(found - item.issues):
        yield f"{issue}_raised"
    if not item.issues - {DISCLAIMER} and is_altered(report):
        yield "clean_reply_altered"


def _read_reply(reply_guard: ReplyGuard, response: str) -> tuple[ReplyReport, str]:
    """What is found in a reply, and what the patient would read of it."""
    before = reply_guard.preface()
    reviews = (reply_guard.feed(response), reply_guard.finish())
    text = _edited(response[: reviews[-1].released], [e for r in reviews for e in r.edits])
    return reply_guard.report, before + text + reply_guard.ending()


def _edited(text: str, edits: list[Edit]) -> str:
    for edit in sorted(edits, key=lambda e: e.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text
