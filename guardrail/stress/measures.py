"""From outcomes to figures: what was recognised, what was raised for nothing, by slice, and how labels and decisions meet."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from guardrail.engine.model import Urgency
from guardrail.stress.labelled import DISCLAIMER, ISSUES, SLICES
from guardrail.stress.run import Outcome, found_issues, is_altered
from guardrail.stress.statistics import Share, median, quantile


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure. `better` says which way is good."""

    name: str
    share: Share
    better: str


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds for one message, and over how many messages."""

    median_us: float
    p95_us: float
    messages: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything measured in one run."""

    measures: tuple[Measure, ...]
    slices: Mapping[str, Mapping[str, tuple[Measure, ...]]]
    """Slice -> value -> measures that apply."""
    confusion: Mapping[str, Mapping[str, int]]
    """Triage label -> decided urgency -> messages."""
    timing: Timing


Applies = Callable[[Outcome], bool]


@dataclass(frozen=True, slots=True)
class _Definition:
    """Of the outcomes to which it applies, those without (recognised, quiet) or with (raised) the mistake."""

    name: str
    applies: Applies
    mistake: str
    counts_mistakes: bool


def _quiet(outcome: Outcome) -> bool:
    return outcome.item.triage in (Urgency.NONE, Urgency.ROUTINE)


_DEFINITIONS = (
    _Definition("emergency recognised as emergency", lambda o: o.item.triage is Urgency.EMERGENCY, "emergency_missed", False),
    _Definition("urgent recognised as urgent or above", lambda o: o.item.triage is Urgency.URGENT, "urgent_missed", False),
    _Definition("emergency raised on routine or none", _quiet, "emergency_raised", True),
    _Definition("urgent or above raised on routine or none", _quiet, "urgent_raised", True),
    _Definition("medication recognised", lambda o: o.item.medication is True, "medication_missed", False),
    _Definition("medication raised on other messages", lambda o: o.item.medication is False, "medication_raised", True),
    _Definition("crisis recognised", lambda o: o.item.crisis is True, "crisis_missed", False),
    _Definition("crisis raised on other messages", lambda o: o.item.crisis is False, "crisis_raised", True),
    _Definition("mention present and current: counts", lambda o: o.item.kind == "mention" and o.item.counts, "mention_missed", False),
    _Definition("mention absent or not current: counts", lambda o: o.item.kind == "mention" and not o.item.counts, "mention_raised", True),
)
_TRIAGE_MISTAKES = frozenset({"emergency_missed", "urgent_missed", "emergency_raised", "urgent_raised"})


def measure(outcomes: Sequence[Outcome]) -> Figures:
    """All figures of a run."""
    messages = [o for o in outcomes if o.item.kind == "message"]
    times = [o.seconds * 1e6 for o in outcomes]
    return Figures(
        measures=(*_defined(outcomes), *_whole(outcomes), *_replies(outcomes)),
        slices={name: _slice(name, outcomes) for name in SLICES},
        confusion=_confusion(messages),
        timing=Timing(median(times), quantile(times, 0.95), len(times)),
    )


def _defined(outcomes: Iterable[Outcome]) -> list[Measure]:
    """The measures that apply to at least one outcome."""
    out: list[Measure] = []
    listed = list(outcomes)
    for definition in _DEFINITIONS:
        judged = [o for o in listed if definition.applies(o)]
        if judged:
            wrong = sum(definition.mistake in o.mistakes for o in judged)
            share = Share(wrong if definition.counts_mistakes else len(judged) - wrong, len(judged))
            out.append(Measure(definition.name, share, "lower" if definition.counts_mistakes else "higher"))
    return out


def _whole(outcomes: Iterable[Outcome]) -> list[Measure]:
    """Mentions and conversations taken as a whole: right or not."""
    listed = list(outcomes)
    mentions = [o for o in listed if o.item.kind == "mention"]
    spoken = [o for o in listed if o.item.triage is not None and len(o.item.conversation.messages) > 1]
    out: list[Measure] = []
    if mentions:
        out.append(Measure("mentions: assertion right", Share(sum(not o.mistakes for o in mentions), len(mentions)), "higher"))
    if spoken:
        right = sum(_TRIAGE_MISTAKES.isdisjoint(o.mistakes) for o in spoken)
        out.append(Measure("conversations: decision right", Share(right, len(spoken)), "higher"))
    return out


def _replies(outcomes: Iterable[Outcome]) -> list[Measure]:
    """For each issue how many were found (recall) and how many of those found were right (precision)."""
    replies = [(o.item.issues, found_issues(o.report), is_altered(o.report)) for o in outcomes if o.report is not None]
    if not replies:
        return []
    out: list[Measure] = []
    for issue in sorted(ISSUES - {DISCLAIMER}):
        labelled = [r for r in replies if issue in r[0]]
        found = [r for r in replies if issue in r[1]]
        right = sum(issue in r[1] for r in labelled)
        if labelled:
            out.append(Measure(f"replies: {issue} found", Share(right, len(labelled)), "higher"))
        if found:
            out.append(Measure(f"replies: {issue} found rightly", Share(right, len(found)), "higher"))
    clean = [r for r in replies if not r[0] - {DISCLAIMER}]
    bad = [r for r in replies if r[0] - {DISCLAIMER}]
    limits = [r for r in replies if DISCLAIMER in r[0]]
    without = [r for r in replies if DISCLAIMER not in r[0]]
    out += [
        Measure("replies: with any issue altered", Share(sum(r[2] for r in bad), len(bad)), "higher"),
        Measure("replies: clean ones altered", Share(sum(r[2] for r in clean), len(clean)), "lower"),
        Measure("replies: disclaimer recognised", Share(sum(DISCLAIMER in r[1] for r in limits), len(limits)), "higher"),
        Measure("replies: disclaimer seen where none is", Share(sum(DISCLAIMER in r[1] for r in without), len(without)), "lower"),
    ]
    return [m for m in out if m.share.total]


def _slice(name: str, outcomes: Iterable[Outcome]) -> dict[str, tuple[Measure, ...]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.item.kind != "reply" and (value := outcome.item.slices.get(name)):
            groups.setdefault(value, []).append(outcome)
    return {value: tuple(_defined(group)) for value, group in sorted(groups.items())}


def _confusion(messages: Iterable[Outcome]) -> dict[str, dict[str, int]]:
    counts = Counter((o.item.triage, o.decision.urgency) for o in messages if o.item.triage is not None)
    levels = sorted(Urgency, reverse=True)
    labels = [label for label in levels if any(counts[label, decided] for decided in levels)]
    return {label.word: {decided.word: counts[label, decided] for decided in levels} for label in labels}
