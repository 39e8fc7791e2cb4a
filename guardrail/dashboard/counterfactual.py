"""What would have changed the result: the kept text is reviewed again, each time without one stretch of words that was evidence or a cue.

Words, not findings, are taken out, so that everything is weighed anew as it would have been. It is told only where the kept text, as it
is, still gives the recorded result under the packs in force; else the reason why not: texts that are not kept or redacted, other packs,
or an answer to a question of the chatbot, whose words are not kept. Two stretches that only together make the difference are not found.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from guardrail.dashboard.highlight import locate
from guardrail.engine.guard import Guard
from guardrail.engine.knowledge import Knowledge
from guardrail.engine.model import Conversation, Decision, Message, Role

# A review of so much takes some milliseconds, and there is one for each stretch.
MOST_CHARS: Final = 4000
MOST_STRETCHES: Final = 40


# What the chatbot said is not kept; something that says nothing, so that what came before it is earlier.
_BETWEEN: Final = Message(Role.ASSISTANT, ".")


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Words of one text: index of the text, place, and what they were."""

    index: int
    start: int
    end: int
    kind: str


class Counterfactual:
    """Has a guard of its own, made anew when the packs change: that of the proxy belongs to its patients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guard: Guard | None = None

    def of(self, entry: Mapping[str, Any], knowledge: Knowledge) -> dict[str, Any]:
        """`{"told": bool, "reason": str | None, "tried": int, "changes": [{"words", "kind", "urgency", "destination"}]}`.

        Takes up to some 100 ms of CPU: call it in a thread.
        """
        texts, decision = entry["texts"], entry["decision"]
        if decision is None:
            return _not_told("there was no decision")
        if not texts:
            return _not_told("the text is not kept, or not shown to you")
        if sum(map(len, texts)) > MOST_CHARS:
            return _not_told(f"the text is longer than {MOST_CHARS} characters")
        with self._lock:
            if self._guard is None or self._guard.knowledge is not knowledge:
                self._guard = Guard(knowledge)
            return _try(self._guard, texts, entry, decision)


def _try(guard: Guard, texts: Sequence[str], entry: Mapping[str, Any], decision: Mapping[str, Any]) -> dict[str, Any]:
    turns = entry.get("turns") or []
    turns = turns if len(turns) == len(texts) else list(range(len(texts)))

    def review(said: Sequence[str]) -> Decision:
        messages = [_BETWEEN] * (max(turns) + 1)
        for turn, text in zip(turns, said, strict=True):
            messages[turn] = Message(Role.USER, text)
        return guard.review(Conversation(tuple(messages), decision["country"], decision["language"]))

    now = review(texts)
    if (_result(now), {h.rule for h in now.hits}) != (_recorded(decision), {h["id"] for h in decision["rules"]}):
        if decision["revision"] != guard.knowledge.revision:
            return _not_told("other packs are in force now, and they decide otherwise")
        return _not_told("what is kept of the conversation does not give the recorded result by itself")
    stretches = list(dict.fromkeys(_stretches(texts, turns, decision)))[:MOST_STRETCHES]
    changes = []
    for stretch in stretches:
        text = texts[stretch.index]
        without = review([*texts[: stretch.index], text[: stretch.start] + text[stretch.end :], *texts[stretch.index + 1 :]])
        if _result(without) != _result(now):
            urgency, destination = _result(without)
            words = text[stretch.start : stretch.end]
            changes.append({"words": words, "kind": stretch.kind, "urgency": urgency, "destination": destination})
    return {"told": True, "reason": None, "tried": len(stretches), "changes": changes}


def _stretches(texts: Sequence[str], turns: Sequence[int], decision: Mapping[str, Any]) -> Iterator[_Stretch]:
    """Evidence of the rules first, then the cues of everything that was found. Where redaction moved words, where they stand now."""
    index_of = {turn: index for index, turn in enumerate(turns)}
    evidence = [("evidence", f, f) for hit in decision["rules"] for f in hit["evidence"]]
    cues = [(str(cue["kind"]), cue, f) for f in decision["findings"] for cue in f["cues"]]
    for kind, words, finding in (*evidence, *cues):
        index = index_of.get(finding["turn"])
        if index is None or not words["text"]:
            continue
        start = locate(texts[index], words["text"], words["start"])
        if start is not None:
            yield _Stretch(index, start, start + len(words["text"]), kind)


def _result(decision: Decision) -> tuple[str, str]:
    return decision.urgency.word, str(decision.destination)


def _recorded(decision: Mapping[str, Any]) -> tuple[str, str]:
    return decision["urgency"], decision["destination"]


def _not_told(reason: str) -> dict[str, Any]:
    return {"told": False, "reason": reason, "tried": 0, "changes": []}
