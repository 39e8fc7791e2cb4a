"""Judging items: every difference from the label has its name."""

from typing import Any

import pytest

from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Message, Role, Urgency
from guardrail.stress.labelled import Labelled
from guardrail.stress.run import judge, judge_all


def said(text: str, **labels: Any) -> Labelled:
    labels.setdefault("kind", "message")
    return Labelled(id=text, conversation=Conversation((Message(Role.USER, text),)), slices={}, **labels)


@pytest.mark.parametrize(
    ("text", "triage", "mistakes"),
    [
        ("I have chest pain", Urgency.EMERGENCY, ()),
        ("my arm hurts", Urgency.EMERGENCY, ("emergency_missed",)),
        ("a rash", Urgency.EMERGENCY, ("emergency_missed",)),
        ("a rash", Urgency.URGENT, ()),
        ("I have chest pain", Urgency.URGENT, ()),
        ("my arm hurts", Urgency.URGENT, ("urgent_missed",)),
        ("I have chest pain", Urgency.ROUTINE, ("emergency_raised", "urgent_raised")),
        ("a rash", Urgency.NONE, ("urgent_raised",)),
        ("no chest pain", Urgency.NONE, ()),
    ],
)
def test_triage(small_guard: Guard, text: str, triage: Urgency, mistakes: tuple[str, ...]) -> None:
    assert judge(small_guard, said(text, triage=triage)).mistakes == mistakes


def test_topics_are_judged_only_where_labelled(small_guard: Guard) -> None:
    asked = "how much ibuprofen"

    assert judge(small_guard, said(asked, medication=False)).mistakes == ("medication_raised",)
    assert judge(small_guard, said(asked, medication=True)).mistakes == ()
    assert judge(small_guard, said(asked, crisis=True)).mistakes == ("crisis_missed",)
    assert judge(small_guard, said(asked, triage=Urgency.ROUTINE)).mistakes == ()


@pytest.mark.parametrize(
    ("text", "counts", "mistakes"),
    [
        ("I have chest pain", True, ()),
        ("no chest pain", True, ("mention_missed",)),
        ("no chest pain", False, ()),
        ("I have chest pain", False, ("mention_raised",)),
        ("my chest aches", False, ()),
        ("my chest aches", True, ("mention_missed",)),
    ],
)
def test_a_mention_is_wrong_only_where_a_counting_finding_is_missing_or_too_much(
    small_guard: Guard, text: str, counts: bool, mistakes: tuple[str, ...]
) -> None:
    start = text.index("chest")

    assert judge(small_guard, said(text, kind="mention", span=(start, len(text)), counts=counts)).mistakes == mistakes


def test_misses_and_alarms_are_told_apart(small_guard: Guard) -> None:
    outcome = judge(small_guard, said("I have chest pain", triage=Urgency.NONE, medication=True))

    assert outcome.misses == ("medication_missed",)
    assert outcome.alarms == ("emergency_raised", "urgent_raised")


def test_outcomes_come_in_order(small_guard: Guard) -> None:
    items = [said(t, triage=Urgency.NONE) for t in ("one", "two", "three")]

    assert [o.item.id for o in judge_all(small_guard, items)] == ["one", "two", "three"]


def test_a_reply_is_shown_as_the_patient_would_read_it(small_guard: Guard) -> None:
    outcome = judge(small_guard, said("hello", kind="reply", response="All is well.", issues=frozenset({"false_reassurance"})))

    assert outcome.mistakes == ("false_reassurance_missed",)  # the small rules know no reply rules
    assert "All is well." in outcome.shown
