"""What would have changed the result of a recorded exchange (`engine.counterfactual`), or why that cannot be told.

It is told only where the kept text, as it is, still gives the recorded result under the packs in force; else the reason why not: texts
that are not kept or redacted, other packs, or an answer to a question of the chatbot, whose words are not kept.
"""

import threading
from collections.abc import Mapping
from typing import Any

from guardrail.audit.replay import conversation_of, is_as_recorded
from guardrail.engine.counterfactual import MOST_CHARS, differences
from guardrail.engine.guard import Guard
from guardrail.engine.knowledge import Knowledge


class Counterfactual:
    """Has a guard of its own, made anew when the packs change: that of the proxy belongs to its patients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guard: Guard | None = None

    def of(self, entry: Mapping[str, Any], knowledge: Knowledge) -> dict[str, Any]:
        """`{"told": bool, "reason": str | None, "tried": int, "changes": [{"words", "kind", "urgency", "destination"}]}`.

        Takes up to some 100 ms of CPU: call it in a thread.
        """
        with self._lock:
            if self._guard is None or self._guard.knowledge is not knowledge:
                self._guard = Guard(knowledge)
            return tell(self._guard, entry)


def tell(guard: Guard, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What `Counterfactual.of` gives, by this guard."""
    recorded = entry["decision"]
    if recorded is None:
        return _not_told("there was no decision")
    conversation = conversation_of(entry)
    if conversation is None:
        return _not_told("the text is not kept, or not shown to you")
    if sum(map(len, entry["texts"])) > MOST_CHARS:
        return _not_told(f"the text is longer than {MOST_CHARS} characters")
    decision = guard.review(conversation)
    if not is_as_recorded(decision, recorded):
        if recorded["revision"] != guard.knowledge.revision:
            return _not_told("other packs are in force now, and they decide otherwise")
        return _not_told("what is kept of the conversation does not give the recorded result by itself")
    found, tried = differences(guard, conversation, decision)
    changes = [
        {
            "words": d.words,
            "kind": d.kind,
            "urgency": d.disposition.urgency.word,
            "destination": str(d.disposition.destination),
        }
        for d in found
    ]
    return {"told": True, "reason": None, "tried": tried, "changes": changes}


def _not_told(reason: str) -> dict[str, Any]:
    return {"told": False, "reason": reason, "tried": 0, "changes": []}
