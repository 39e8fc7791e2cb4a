"""Lines of other countries are found in what a model says, and never shown."""

import pytest

from guardrail.engine.answers import Country
from guardrail.engine.guard import Guard
from guardrail.engine.lines import Lines
from guardrail.engine.model import Conversation, Message, Role
from guardrail.engine.reply import ReplyGuard
from guardrail.packs.load import load, shipped_rules


def country(emergency: str, crisis: str, *also: str) -> Country:
    line = {"source": "s", "checked": "2026-01-01", "grade": "2"}
    return Country.model_validate(
        {"name": "n", "emergency": {"number": emergency, "also": also, **line}, "crisis": [{"number": crisis, **line, "grade": "A"}]}
    )


LINES = Lines({"US": country("911", "988"), "GB": country("999", "116 123", "112"), "DE": country("112", "0800 1110111")})


@pytest.mark.parametrize(
    ("text", "where", "foreign"),
    [
        ("Call 911 now.", "GB", "911"),
        ("Call 999 now.", "GB", None),
        ("Call 112 now.", "US", None),  # works from mobile phones nearly everywhere
        ("Ring 0800-111 0111 today", "GB", "0800-111 0111"),
        ("Ring 116123", "DE", "116123"),
        ("Call 911 now.", None, None),
        ("Call 911 now.", "XX", None),
        ("It was 911.5 or 1,911 or 2911 or 911%.", "GB", None),
        ("Call the surgery on 0161 496 0000.", "GB", None),
    ],
)
def test_a_line_of_another_country(text: str, where: str | None, foreign: str | None) -> None:
    span = LINES.foreign(text, where)

    assert (text[slice(*span)] if span else None) == foreign


def test_groups_are_those_of_others_only() -> None:
    assert LINES.groups("GB") == {"911", "988", "0800", "1110111"}
    assert LINES.groups(None) == frozenset()


@pytest.mark.parametrize("step", [1, 3, 80])
def test_no_character_of_it_is_shown(step: int) -> None:
    knowledge = load(shipped_rules()).knowledge
    conversation = Conversation((Message(Role.USER, "I feel low"),), country="GB")
    guard = ReplyGuard(knowledge, Guard(knowledge).review(conversation), conversation=conversation)
    text = "That sounds hard. You could call 988 or text them. Rest well."

    shown, at = "", 0
    for review in (*(guard.feed(text[i : i + step]) for i in range(0, len(text), step)), guard.finish()):
        for edit in review.edits:
            shown += text[at : edit.start] + edit.text
            at = edit.end
        if review.released > at:
            shown, at = shown + text[at : review.released], review.released

    assert "988" not in shown
    assert "vouch" in shown
    assert shown.endswith("Rest well.")
