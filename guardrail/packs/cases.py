"""Runs the cases of the packs: every rule fires where it says and keeps quiet where it says."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Maturity, Message, Role
from guardrail.engine.reply import ReplyGuard
from guardrail.errors import Problem
from guardrail.packs.load import Case, Loaded

T = TypeVar("T", covariant=True)
Expectation = Literal["fires", "quiet", "known_miss", "known_alarm"]


class _Grouped(Protocol[T]):
    """Cases by what is expected of them."""

    @property
    def fires(self) -> tuple[T, ...]: ...
    @property
    def quiet(self) -> tuple[T, ...]: ...
    @property
    def known_miss(self) -> tuple[T, ...]: ...
    @property
    def known_alarm(self) -> tuple[T, ...]: ...


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case: what was expected of the rule, and whether it did so."""

    rule: str
    expectation: Expectation
    text: str
    fired: tuple[str, ...]
    held: bool
    place: Problem


def conversation_of(case: str | Case) -> Conversation:
    """The conversation a case describes; `turns` alternate, the patient first."""
    if isinstance(case, str):
        return Conversation((Message(Role.USER, case),))
    if case.turns:
        return Conversation(tuple(Message(Role.ASSISTANT if i % 2 else Role.USER, t) for i, t in enumerate(case.turns)))
    return Conversation((Message(Role.USER, case.text or ""),))


def run_cases(loaded: Loaded, guard: Guard) -> Iterator[CaseResult]:
    """Run every case of every rule that runs."""
    running = {n.id for n in loaded.knowledge.rules if n.rule.maturity in (Maturity.SHADOW, Maturity.LIVE)}
    for rule_cases in loaded.cases:
        for expectation, cases in _groups(rule_cases.cases) if rule_cases.rule in running else ():
            for i, case in enumerate(cases):
                decision = guard.review(conversation_of(case))
                fired = tuple(h.rule for h in (*decision.hits, *decision.shadow_hits))
                wanted = expectation in ("fires", "known_alarm")
                text = case if isinstance(case, str) else case.text or " / ".join(case.turns)
                place = rule_cases.source.problem((expectation, i), f"{rule_cases.rule} {'did not fire' if wanted else 'fired'}: {text!r}")
                yield CaseResult(rule_cases.rule, expectation, text, fired, (rule_cases.rule in fired) is wanted, place)


def run_reply_cases(loaded: Loaded, guard: Guard) -> Iterator[CaseResult]:
    """Run every case of every reply rule: whether its issue is found in the reply, whatever is done about it."""
    for rule_cases in loaded.reply_cases:
        for expectation, cases in _groups(rule_cases.cases):
            for i, case in enumerate(cases):
                conversation = Conversation((Message(Role.USER, case.user),), case.country)
                reply = ReplyGuard(loaded.knowledge, guard.review(conversation), conversation=conversation, observe=True)
                reply.feed(case.response)
                reply.finish()
                fired = tuple(dict.fromkeys(found.issue for found in reply.report.issues))
                wanted = expectation in ("fires", "known_alarm")
                said = "was not found" if wanted else "was found"
                place = rule_cases.source.problem((expectation, i), f"{rule_cases.rule}: {rule_cases.issue} {said}: {case.response!r}")
                yield CaseResult(rule_cases.rule, expectation, case.response, fired, (rule_cases.issue in fired) is wanted, place)


def _groups(cases: _Grouped[T]) -> Iterator[tuple[Expectation, tuple[T, ...]]]:
    yield "fires", cases.fires
    yield "quiet", cases.quiet
    yield "known_miss", cases.known_miss
    yield "known_alarm", cases.known_alarm
