"""What would have changed a decision: the conversation is reviewed again, each time without one stretch of evidence or one cue.

Words, not findings, are taken out, so that everything is weighed anew as it would have been. Two stretches that only together make
the difference are not found.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Decision, Disposition

# A review of so much takes some milliseconds, and there is one for each stretch.
MOST_CHARS: Final = 4000
MOST_STRETCHES: Final = 40


@dataclass(frozen=True, slots=True)
class Difference:
    """Words without which the disposition would have been another. `kind` is evidence, or the kind of cue that they were."""

    words: str
    kind: str
    disposition: Disposition


@dataclass(frozen=True, slots=True)
class _Stretch:
    turn: int
    start: int
    end: int
    kind: str


def differences(guard: Guard, conversation: Conversation, decision: Decision) -> tuple[list[Difference], int]:
    """What would have made a difference to this decision of this guard, and how many stretches were tried."""
    stretches = list(dict.fromkeys(_stretches(conversation, decision)))[:MOST_STRETCHES]
    found = []
    for stretch in stretches:
        messages = list(conversation.messages)
        text = messages[stretch.turn].text
        messages[stretch.turn] = replace(messages[stretch.turn], text=text[: stretch.start] + text[stretch.end :])
        without = guard.review(replace(conversation, messages=tuple(messages)))
        if without.disposition != decision.disposition:
            found.append(Difference(text[stretch.start : stretch.end], stretch.kind, without.disposition))
    return found, len(stretches)


def _stretches(conversation: Conversation, decision: Decision) -> Iterator[_Stretch]:
    """Evidence of the rules first, then the cues of everything that was found."""
    evidence = [("evidence", f.turn, f.start, f.text) for hit in decision.hits for f in hit.evidence]
    cues = [(cue.kind, f.turn, cue.start, cue.text) for f in decision.findings for cue in f.assertion.cues]
    for kind, turn, start, words in (*evidence, *cues):
        text = conversation.messages[turn].text
        # What was read from several messages at once has no place of its own in the last.
        start = start if text.startswith(words, start) else text.find(words)
        if words and start >= 0:
            yield _Stretch(turn, start, start + len(words), kind)
