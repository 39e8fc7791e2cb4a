"""Accuracy on messages as written against accuracy on the same messages put differently: the gap between the two.

A message is held to its label or, where it has none, to what is decided of it as written. Under a perturbation that counts which was
right before: an emergency is *lost* when it was recognised as written, a quiet message is *raised* when it was not.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Decision, Maturity, Role, Urgency
from guardrail.packs.cases import conversation_of
from guardrail.packs.load import Loaded
from guardrail.stress.labelled import Labelled
from guardrail.stress.perturb import Perturbation, perturbed
from guardrail.stress.run import Outcome
from guardrail.stress.statistics import Share


@dataclass(frozen=True, slots=True)
class Pair:
    """A message as written and under one perturbation. The mistakes of `after` are those that `before` does not have."""

    before: Outcome
    after: Outcome
    perturbation: Perturbation


@dataclass(frozen=True, slots=True)
class Row:
    """What one perturbation did, or all of them did together. `recognised` is of all emergencies it was tried on."""

    name: str
    family: str
    title: str
    before: Share
    after: Share
    lost: Share
    """Of the emergencies recognised as written."""
    urgent_lost: Share
    raised: Share
    """To an emergency, of the quiet messages that were none as written."""
    urgent_raised: Share


def can_be_perturbed(item: Labelled) -> bool:
    """Single messages of the patient. Of a conversation nobody could say that the rest still fits."""
    return item.kind == "message" and len(item.conversation.messages) == 1 and bool(item.conversation.messages[0].text.strip())


def labelled_cases(loaded: Loaded) -> Iterator[Labelled]:
    """The cases of the packs' rules: where a rule fires the message is labelled with its urgency, else it has no label."""
    rules = {named.id: named.rule for named in loaded.knowledge.rules}
    for of_rule in loaded.cases:
        rule = rules[of_rule.rule]
        urgency = Urgency(rule.disposition_seriousness[0]) if rule.maturity is Maturity.LIVE else None
        groups: tuple[tuple[str, Sequence[object], Urgency | None], ...] = (
            ("fires", of_rule.cases.fires, urgency),
            ("quiet", of_rule.cases.quiet, None),
        )
        for kind, cases, triage in groups:
            for number, case in enumerate(cases, 1):
                slices = {"kind": kind, "category": of_rule.pack, "file": of_rule.source.name}
                conversation = conversation_of(case)  # type: ignore[arg-type]  # the groups hold what the model says
                yield Labelled(f"{of_rule.rule}:{kind}:{number}", "message", conversation, slices, triage=triage)


def stress(guard: Guard, items: Iterable[Labelled], perturbations: Sequence[Perturbation], seed: int) -> Iterator[list[Pair]]:
    """For each item the pairs of all perturbations that apply to it."""
    for item in items:
        decision = guard.review(item.conversation)
        expected = decision.urgency if item.triage is None else item.triage
        before = Outcome(item, decision, mistakes(expected, decision.urgency), 0.0)
        pairs = []
        for perturbation in perturbations:
            if perturbation.raises and expected < Urgency.URGENT:
                continue
            changed = perturbed(item, perturbation, seed)
            if changed is not None:
                decision, seen = _most_serious(guard, changed.conversation)
                new = tuple(m for m in mistakes(expected, decision.urgency) if m not in before.mistakes)
                pairs.append(Pair(before, Outcome(replace(changed, conversation=seen), decision, new, 0.0), perturbation))
        yield pairs


def mistakes(expected: Urgency, decided: Urgency) -> tuple[str, ...]:
    """As `run` names them, for triage alone."""
    if expected is Urgency.EMERGENCY:
        return ("emergency_missed",) if decided < Urgency.EMERGENCY else ()
    if expected is Urgency.URGENT:
        return ("urgent_missed",) if decided < Urgency.URGENT else ()
    return tuple(name for name, least in (("emergency_raised", Urgency.EMERGENCY), ("urgent_raised", Urgency.URGENT)) if decided >= least)


def _most_serious(guard: Guard, conversation: Conversation) -> tuple[Decision, Conversation]:
    """The most serious decision of the patient's turns, with the conversation up to that turn: who was sent to help once, was."""
    ends = [i for i, m in enumerate(conversation.messages, 1) if m.role is Role.USER]
    told = [replace(conversation, messages=conversation.messages[:end]) for end in ends]
    decided = [(guard.review(c), c) for c in told]
    return max(decided, key=lambda d: (d[0].disposition.seriousness, len(d[1].messages)))


def rows(pairs: Sequence[Pair], perturbations: Sequence[Perturbation]) -> list[Row]:
    """A row for each perturbation that applied to anything."""
    by_name: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_name.setdefault(pair.perturbation.name, []).append(pair)
    return [_row(p.name, p.family, p.title, by_name[p.name]) for p in perturbations if p.name in by_name]


def whole(pairs: Sequence[Pair]) -> Row:
    """All perturbations as one row: each message under each that applies to it."""
    return _row("all", "", "all of them, message by message", pairs)


def never_lost(pairs: Sequence[Pair]) -> Share:
    """Of the emergencies recognised as written, those that no perturbation loses."""
    kept: dict[str, bool] = {}
    for pair in pairs:
        if _expected(pair) is Urgency.EMERGENCY and not pair.before.mistakes:
            kept[pair.before.item.id] = kept.get(pair.before.item.id, True) and not pair.after.mistakes
    return Share(sum(kept.values()), len(kept))


def _row(name: str, family: str, title: str, pairs: Sequence[Pair]) -> Row:
    emergencies = [p for p in pairs if _expected(p) is Urgency.EMERGENCY]
    urgent = [p for p in pairs if _expected(p) is Urgency.URGENT]
    quiet = [p for p in pairs if _expected(p) < Urgency.URGENT]
    recognised = [p for p in emergencies if not p.before.mistakes]
    return Row(
        name,
        family,
        title,
        before=Share(len(recognised), len(emergencies)),
        after=Share(sum(p.after.decision.urgency is Urgency.EMERGENCY for p in emergencies), len(emergencies)),
        lost=_share("emergency_missed", recognised),
        urgent_lost=_share("urgent_missed", [p for p in urgent if not p.before.mistakes]),
        raised=_share("emergency_raised", [p for p in quiet if "emergency_raised" not in p.before.mistakes]),
        urgent_raised=_share("urgent_raised", [p for p in quiet if "urgent_raised" not in p.before.mistakes]),
    )


def _share(mistake: str, pairs: Sequence[Pair]) -> Share:
    return Share(sum(mistake in p.after.mistakes for p in pairs), len(pairs))


def _expected(pair: Pair) -> Urgency:
    item = pair.before.item
    return pair.before.decision.urgency if item.triage is None else item.triage
