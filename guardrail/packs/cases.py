"""Runs the cases of the packs: every rule fires where it says and keeps quiet where it says."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Message, Role
from guardrail.errors import Problem
from guardrail.packs.load import Case, Loaded, RuleCases

Expectation = Literal["fires", "quiet", "known_miss", "known_alarm"]


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
    """Run every case of every rule."""
    for rule_cases in loaded.cases:
        for expectation, cases in _groups(rule_cases):
            for i, case in enumerate(cases):
                decision = guard.review(conversation_of(case))
                fired = tuple(h.rule for h in (*decision.hits, *decision.shadow_hits))
                wanted = expectation in ("fires", "known_alarm")
                text = case if isinstance(case, str) else case.text or " / ".join(case.turns)
                place = rule_cases.source.problem((expectation, i), f"{rule_cases.rule} {'did not fire' if wanted else 'fired'}: {text!r}")
                yield CaseResult(rule_cases.rule, expectation, text, fired, (rule_cases.rule in fired) is wanted, place)


def _groups(rule_cases: RuleCases) -> Iterator[tuple[Expectation, Sequence[str | Case]]]:
    yield "fires", rule_cases.cases.fires
    yield "quiet", rule_cases.cases.quiet
    yield "known_miss", rule_cases.cases.known_miss
    yield "known_alarm", rule_cases.cases.known_alarm
