"""What the packs teach the reply guard, compiled: which words to hold on, which phrases mean what, what follows.

A reply is read sentence by sentence. A rule's condition is a tree over names: a bare name is a concept found in this
sentence, `reply:name` one found in this sentence or an earlier one, `user:name` one found in what the patient wrote,
`case:name` a fact of the conversation (`CASES`), and `issue:name`, for rules about the whole reply, an issue found in it.
Conditions have the form of the other packs (`engine.rules`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum
from typing import Any, Literal

from pydantic import Field

from guardrail.engine.lexicon import Lexicon
from guardrail.engine.lines import Lines
from guardrail.engine.model import Maturity
from guardrail.engine.rules import All, AnyOf, AtLeast, Condition, FindingIs, Frozen, Not, Source
from guardrail.engine.sentences import FACTS, SentenceScorer

CASES = frozenset(FACTS)
"""Facts of a conversation that a condition may name as `case:...`."""


SHAPES = frozenset({"is_first", "is_short", "foreign_line"})
"""What a condition may ask about the sentence itself: the reply's first; hardly more than a name or a word of consent; with the
telephone number of another country's line in it."""


SCORED = "scored_"
"""With the name of an issue behind it: what the trained reader (`engine.sentences`) found in the sentence."""


NEAR = "near_"
"""With the name of an issue behind it: the trained reader finds the sentence near to it. Without one everything is near."""


DISCLAIMERS = ("verify", "medication", "image")
"""Kinds of disclaimer; each says what the first does."""


class Treatment(StrEnum):
    """What is done about a sentence or a reply, from least to most."""

    RECORD = "record"
    ANNOTATE = "annotate"
    REPLACE = "replace"
    CUT = "cut"


TREATMENT_RANK: Mapping[str, int] = {t: i for i, t in enumerate(Treatment)}


class ReplyRule(Frozen):
    """One file under `replies/rules/`; its name is the rule's id for ever."""

    title: str
    why: str
    issue: str
    """The name under which it is reported (`corpus/LABELS.md`); several rules may share one."""
    scope: Literal["sentence", "reply"] = "sentence"
    """A rule about the reply is decided when the reply is complete; it can record and annotate only."""
    when: Condition
    """Of an `all`, the first part that names concepts of the sentence is what sentences are held for."""
    treatment: Treatment | None = None
    """What is done about it where the policy is not to decide by the issue."""
    sources: tuple[Source, ...] = Field(min_length=1)
    worse_mistake: Literal["missing", "crying_wolf"]
    maturity: Maturity = Maturity.LIVE
    note: str | None = None


class IssuePolicy(Frozen):
    """What follows from an issue: the treatment, and the key of the text (`notices`) that stands in the place of a sentence."""

    treatment: Treatment
    text: str | None = None


class ReplyPolicy(Frozen):
    """`replies/policy.yaml`."""

    issues: Mapping[str, IssuePolicy]
    reasoning: Literal["drop", "label", "allow"] = "drop"
    """Thinking text beside the reply: leave it out, put a label before it, or show it."""
    disclaimer: Literal["health", "never"] = "health"
    disclaimer_every: int = Field(default=6, ge=1)
    """A patient who was given the disclaimer is given it again with the reply that comes so many later, with another kind at once."""
    hold_chars: int = Field(default=600, ge=80)
    """A sentence is reviewed at the latest after so many characters."""
    opening_words: tuple[str, ...]
    """A sentence that begins with one is held for `reach` words, so that what is replaced is the whole sentence."""
    leading_words: tuple[str, ...]
    """The same, wherever in the sentence it stands: amounts begin with a number."""
    reach: int = Field(default=4, ge=1, le=12)
    frequent_words: tuple[str, ...] = ()
    """Words that are frequent in ordinary replies: held on only where a phrase has nothing better."""
    flow_words: tuple[str, ...]
    """Whole words that are shown at once although a longer word begins with them."""
    common_words: tuple[str, ...]
    """Words too common to hold a sentence on; every phrase of a rule needs one that is not among them."""


class Hold(IntFlag):
    """What a word does to the sentence it stands in."""

    NOTE = 1
    """The sentence is read when it ends."""
    OPEN = 2
    """At the start of a sentence: held for some words."""
    LEAD = 4
    """Held for some words."""
    HOT = 8
    """Held until the sentence ends: some rule may need it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What conditions are asked about."""

    here: frozenset[str]
    reply: frozenset[str]
    user: frozenset[str]
    case: frozenset[str]
    issues: frozenset[str] = frozenset()
    """Found in the reply's sentences; known when a rule about the whole reply is asked."""


Test = Callable[[Seen], bool]


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A reply rule ready to run. `evidence` are the concepts of the sentence itself that its condition names."""

    id: str
    issue: str
    scope: Literal["sentence", "reply"]
    holds: Test
    evidence: frozenset[str]
    treatment: Treatment
    text: str | None
    shadow: bool
    gate: int = 0


@dataclass(frozen=True, slots=True)
class Word:
    """A word the reply guard reacts to. Its first `shown` characters may be out before it is known to be this word."""

    hold: int
    """`Hold`s."""
    shown: int = 0
    gates: int = 0
    """Bits of the gates (`Replies.gates`) of which one must be open for it to be hot."""


@dataclass(frozen=True, slots=True)
class Replies:
    """The reply rules of one revision."""

    lexicon: Lexicon
    rules: tuple[CompiledRule, ...]
    words: Mapping[str, Word]
    prefixes: Mapping[str, int]
    """Beginnings of words that hold, but for those shown at once: a text that ends so waits for the rest of the word."""
    openings: frozenset[str]
    """Beginnings of opening words: at the start of a sentence a text that ends so waits."""
    pairs: Mapping[str, Mapping[str, int]]
    """Words that hold behind a certain word: "your" behind "as"."""
    gates: tuple[Test, ...]
    """What must hold of the conversation, or of the reply so far, for some rules to matter; gate 0 is always open."""
    policy: ReplyPolicy
    asked: frozenset[str] = frozenset({"drug_named"})
    """What of the reply so far opens gates, or makes numbers matter."""
    lines: Lines = field(default_factory=lambda: Lines({}))
    by_concept: Mapping[str, tuple[CompiledRule, ...]] = field(default_factory=dict)
    scorer: SentenceScorer | None = None
    heeded: Mapping[str, int] = field(default_factory=dict)
    """The scorer's heads for which a rule would replace or cut, with the bits of the gates of those rules."""


def compile_condition(condition: Any) -> Test:
    """A condition tree as one function."""
    match condition:
        case FindingIs(finding=name):
            return _name_test(name)
        case All(all=inner):
            every = [compile_condition(c) for c in inner]
            return lambda seen: all(t(seen) for t in every)
        case AnyOf(any=inner):
            some = [compile_condition(c) for c in inner]
            return lambda seen: any(t(seen) for t in some)
        case Not(not_=one):
            test = compile_condition(one)
            return lambda seen: not test(seen)
        case AtLeast(at_least=count, of=inner):
            of = [compile_condition(c) for c in inner]
            return lambda seen: sum(t(seen) for t in of) >= count
        case _:
            raise TypeError(f"{type(condition).__name__} has no meaning for a reply")


def _name_test(name: str) -> Test:
    place, _, rest = name.rpartition(":")
    match place:
        case "":
            return lambda seen: rest in seen.here
        case "reply":
            return lambda seen: rest in seen.here or rest in seen.reply
        case "user":
            return lambda seen: rest in seen.user
        case "case":
            return lambda seen: rest in seen.case
        case "issue":
            return lambda seen: rest in seen.issues
        case _:
            raise TypeError(f'"{place}:" is not one of reply:, user:, case:, issue:')


def by_concept(rules: Sequence[CompiledRule]) -> dict[str, tuple[CompiledRule, ...]]:
    """The sentence rules by the concepts any of which they cannot do without finding in the sentence."""
    found: dict[str, list[CompiledRule]] = {}
    for rule in rules:
        if rule.scope == "sentence":
            for name in rule.evidence:
                found.setdefault(name, []).append(rule)
    return {name: tuple(listed) for name, listed in found.items()}


def more_serious(one: Treatment, other: Treatment) -> Treatment:
    return one if TREATMENT_RANK[one] >= TREATMENT_RANK[other] else other


__all__ = ["CASES", "CompiledRule", "Hold", "IssuePolicy", "Replies", "ReplyPolicy", "ReplyRule", "Seen", "Test", "Treatment", "Word"]
