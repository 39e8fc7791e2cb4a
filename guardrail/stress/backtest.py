"""The same conversations decided under two sets of packs: what would change for whom, and whether a record can be replayed at all."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Decision, Role, Urgency
from guardrail.stress.page import marked

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Past:
    """A conversation of the past. `replays` says of a decision whether it is the recorded one; None where nothing is recorded
    under the packs in force."""

    id: str
    conversation: Conversation
    replays: Callable[[Decision], bool] | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """One conversation under the packs in force, and under the candidate."""

    past: Past
    now: Decision
    then: Decision
    replayed: bool | None

    @property
    def changed(self) -> bool:
        return self.now.disposition != self.then.disposition or _rules(self.now) != _rules(self.then)

    @property
    def lost(self) -> bool:
        return self.now.urgency is Urgency.EMERGENCY and self.then.urgency is not Urgency.EMERGENCY


def compare(in_force: Guard, candidate: Guard, past: Iterable[Past]) -> Iterator[Compared]:
    """Each conversation decided twice."""
    for one in past:
        now = in_force.review(one.conversation)
        yield Compared(one, now, candidate.review(one.conversation), one.replays(now) if one.replays else None)


def as_text(compared: Sequence[Compared], in_force: str, candidate: str) -> str:
    """What would change, for a terminal."""
    return "\n".join(_lines(compared, in_force, candidate))


def _lines(compared: Sequence[Compared], in_force: str, candidate: str) -> Iterator[str]:
    yield f"packs in force {in_force}, candidate {candidate}; {len(compared)} conversations"
    changed = [c for c in compared if c.changed]
    moves = Counter((c.now.urgency, c.then.urgency) for c in compared if c.now.urgency is not c.then.urgency)
    yield ""
    yield f"decided otherwise: {len(changed)}, in urgency {sum(moves.values())}"
    for (now, then), count in sorted(moves.items(), key=lambda m: (-m[0][0], -m[0][1])):
        yield f"    {now.word} to {then.word}: {count}" + (" LOST" if now is Urgency.EMERGENCY else "")
    gained, lost = _rule_counts(changed)
    for sign, title, counts in (("+", "rules that would hold more often", gained), ("-", "rules that would hold less often", lost)):
        if counts:
            yield f"{title}:"
            yield from (f"    {sign}{count} {rule}" for rule, count in counts.most_common(_SHOWN))
            if len(counts) > _SHOWN:
                yield f"    and {len(counts) - _SHOWN} more"
    # What would be lost is read first, then what moves, then the rest.
    for one in sorted(changed, key=lambda c: (not c.lost, -abs(c.now.urgency - c.then.urgency)))[:_SHOWN]:
        yield ""
        yield f"{one.past.id}: {_result(one.now)} to {_result(one.then)}" + (" LOST" if one.lost else "")
        yield from (f"    {line}" for line in _told(one))
    unlike = [c.past.id for c in compared if c.replayed is False]
    recorded = sum(c.replayed is not None for c in compared)
    if recorded:
        yield ""
        yield f"{recorded} were recorded under the packs in force; {recorded - len(unlike)} are decided as recorded"
    if unlike:
        yield "decided otherwise than recorded, as words were redacted, the chatbot's question is not kept, or something is wrong:"
        yield from (f"    {id_}" for id_ in unlike[:_SHOWN])
        if len(unlike) > _SHOWN:
            yield f"    and {len(unlike) - _SHOWN} more"


def as_data(one: Compared) -> dict[str, Any]:
    """One conversation that would be decided otherwise, as plain data."""
    messages = [{"role": str(m.role), "content": m.text} for m in one.past.conversation.messages]
    sides = {
        name: {"urgency": d.urgency.word, "destination": str(d.destination), "action": str(d.action), "rules": sorted(_rules(d))}
        for name, d in (("now", one.now), ("then", one.then))
    }
    return {"id": one.past.id, "lost": one.lost, **sides, "messages": messages}


def _told(one: Compared) -> Iterator[str]:
    """The patient's messages, evidence in brackets; and the rules that come or go."""
    evidence = {(f.turn, f.start, f.end) for d in (one.now, one.then) for h in d.hits for f in h.evidence}
    named = {e for d in (one.now, one.then) for h in d.hits for f in h.evidence for e in [(f.turn, f.start, f.end)] if _is_named(f.concept)}
    for turn, message in enumerate(one.past.conversation.messages):
        if message.role is Role.USER:
            spans = [(start, end, "", True) for t, start, end in (named or evidence) if t == turn]
            yield "".join(f"[{p.text}]" if p.acted else p.text for p in marked(message.text, spans)).replace("\n", " ")
    now, then = _rules(one.now), _rules(one.then)
    if now - then:
        yield f"no longer: {', '.join(sorted(now - then))}"
    if then - now:
        yield f"new: {', '.join(sorted(then - now))}"


def _is_named(concept: str) -> bool:
    """The second reader judges whole sentences; brackets around them would say nothing."""
    return not concept.startswith("scored_")


def _rule_counts(changed: Iterable[Compared]) -> tuple[Counter[str], Counter[str]]:
    gained, lost = Counter[str](), Counter[str]()
    for one in changed:
        gained.update(_rules(one.then) - _rules(one.now))
        lost.update(_rules(one.now) - _rules(one.then))
    return gained, lost


def _rules(decision: Decision) -> frozenset[str]:
    return frozenset(h.rule for h in decision.hits)


def _result(decision: Decision) -> str:
    return f"{decision.urgency.word} ({str(decision.destination).replace('_', ' ')})"
