"""Which words, had they not been written, would have changed the result; and where that cannot be told, why."""

from typing import Any

import pytest

from guardrail.audit.entry import entry_of
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.dashboard.counterfactual import Counterfactual
from guardrail.engine.counterfactual import MOST_CHARS
from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Message, Role


def entry(guard: Guard, *said: str, kept: tuple[str, ...] | None = None) -> dict[str, Any]:
    """The record of what a patient said; a message that begins with `bot:` is the chatbot's, which is not kept."""
    messages = tuple(
        Message(Role.ASSISTANT, text.removeprefix("bot:")) if text.startswith("bot:") else Message(Role.USER, text) for text in said
    )
    turns = tuple(turn for turn, message in enumerate(messages) if message.role is Role.USER)
    decision = guard.review(Conversation(messages))
    texts = kept or tuple(messages[turn].text for turn in turns)
    return entry_of(ExchangeRecord("id", 1.0, "chat", Outcome.ANSWERED, decision, texts=texts, turns=turns), b"")


def changes(guard: Guard, *said: str) -> list[tuple[str, str, str, str]]:
    found = Counterfactual().of(entry(guard, *said), guard.knowledge)
    assert found["told"], found["reason"]
    return [(c["words"], c["kind"], c["urgency"], c["destination"]) for c in found["changes"]]


def test_without_the_evidence_there_is_no_emergency(small_guard: Guard) -> None:
    assert changes(small_guard, "I have chest pain") == [("chest pain", "evidence", "none", "none")]


def test_without_the_less_serious_evidence_nothing_changes_and_without_the_other_it_remains(small_guard: Guard) -> None:
    assert changes(small_guard, "I have chest pain and a rash") == [("chest pain", "evidence", "urgent", "same_day_clinician")]


def test_two_that_each_suffice_are_neither_decisive(small_guard: Guard) -> None:
    found = Counterfactual().of(entry(small_guard, "chest pain, really, chest pain"), small_guard.knowledge)

    assert (found["told"], found["changes"]) == (True, [])
    assert found["tried"] >= 1


def test_a_cue_that_lowered_is_named(small_guard: Guard) -> None:
    assert ("no", "negated", "emergency", "ambulance") in changes(small_guard, "I have no chest pain")


def test_words_of_an_earlier_turn_are_found_in_theirs(small_guard: Guard) -> None:
    found = changes(small_guard, "I have a rash", "bot:Tell me more.", "and chest pain")

    assert found == [("chest pain", "evidence", "none", "none")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"decision": None}, "there was no decision"),
        ({"texts": None}, "the text is not kept, or not shown to you"),
        ({"texts": []}, "the text is not kept, or not shown to you"),
        ({"texts": ["x" * (MOST_CHARS + 1)]}, "the text is longer than 4000 characters"),
        ({"texts": ["I have [redacted]"]}, "what is kept of the conversation does not give the recorded result by itself"),
    ],
    ids=lambda given: None if isinstance(given, dict) else str(given)[:20],
)
def test_what_cannot_be_told_says_why(small_guard: Guard, change: dict[str, Any], reason: str) -> None:
    found = Counterfactual().of({**entry(small_guard, "I have chest pain"), **change}, small_guard.knowledge)

    assert found == {"told": False, "reason": reason, "tried": 0, "changes": []}


def test_packs_that_decide_otherwise_now_are_the_reason(small_guard: Guard) -> None:
    record = entry(small_guard, "I have chest pain", kept=("hello",))
    record["decision"]["revision"] = "older"

    found = Counterfactual().of(record, small_guard.knowledge)

    assert found["reason"] == "other packs are in force now, and they decide otherwise"
