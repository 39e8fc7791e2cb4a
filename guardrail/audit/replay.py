"""A conversation from its record, as far as it is kept, to decide it again.

What the chatbot said is not kept; something that says nothing stands for it. So a decision that hung on the chatbot's question, or on
words that redaction took out, comes out otherwise.
"""

from collections.abc import Mapping
from typing import Any, Final

from guardrail.engine.model import Conversation, Decision, Message, Role

_BETWEEN: Final = Message(Role.ASSISTANT, ".")


def conversation_of(entry: Mapping[str, Any]) -> Conversation | None:
    """What the patient wrote, in its turns; None where no text is kept, or there was no decision."""
    texts, decision = entry["texts"], entry["decision"]
    if not texts or decision is None or not all(isinstance(text, str) for text in texts):
        return None
    turns = entry.get("turns") or []
    turns = turns if len(turns) == len(texts) else list(range(len(texts)))
    messages = [_BETWEEN] * (max(turns) + 1)
    for turn, text in zip(turns, texts, strict=True):
        messages[turn] = Message(Role.USER, text)
    return Conversation(tuple(messages), decision["country"], decision["language"])


def is_as_recorded(decision: Decision, recorded: Mapping[str, Any]) -> bool:
    """Whether a decision is the recorded one: the same result by the same rules."""
    result = decision.urgency.word, str(decision.destination), {h.rule for h in decision.hits}
    return result == (recorded["urgency"], recorded["destination"], {h["id"] for h in recorded["rules"]})
