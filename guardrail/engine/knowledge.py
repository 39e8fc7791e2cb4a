"""Everything the packs teach the engine, compiled: what `packs.load` makes and `Guard` uses. Immutable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from guardrail.engine.answers import Answers
from guardrail.engine.context import Context
from guardrail.engine.languages import Languages
from guardrail.engine.lexicon import Lexicon
from guardrail.engine.model import Action, Tier
from guardrail.engine.quantities import Quantities
from guardrail.engine.replies import Replies
from guardrail.engine.rules import Frozen, Rule
from guardrail.engine.scorer import Scorer


class TierPolicy(Frozen):
    """What a tier leads to: the action, and the text that goes with it."""

    action: Action
    answer: str | None = None


class Policy(Frozen):
    """`rules/policy.yaml`: which disposition leads to which action."""

    tiers: Mapping[Tier, TierPolicy]
    answers: Mapping[str, Action] = Field(default_factory=dict)
    """Action for a rule's own text, by its key, where it differs from that of the rule's tier."""
    carry_turns: int = 6
    """For how many further messages of the patient a finding still counts."""


@dataclass(frozen=True, slots=True)
class PackInfo:
    name: str
    title: str
    version: str
    reviewed: str | None
    rules: int


@dataclass(frozen=True, slots=True)
class OverrideInfo:
    """What a site changed in the packs: where it is written, what it changes and how, why, and whose it is until when."""

    file: str
    subject: str
    change: str
    reason: str
    owner: str
    expires: str
    state: Literal["in force", "expired", "expired, not applied"]


@dataclass(frozen=True, slots=True)
class NamedRule:
    """A rule with its id and its pack."""

    id: str
    pack: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Knowledge:
    """One revision of all packs. `revision` is the hash of the files it was built from."""

    revision: str
    lexicon: Lexicon
    context: Context
    rules: tuple[NamedRule, ...]
    answers: Answers
    policy: Policy
    concepts: Mapping[str, str]
    """Concept id -> title."""
    medication_concepts: frozenset[str] = frozenset()
    """Those of which a hint counts where the text leans towards medication."""
    persons: Mapping[str, str] = field(default_factory=dict)
    packs: tuple[PackInfo, ...] = ()
    scorer: Scorer | None = None
    languages: Languages = field(default_factory=Languages)
    quantities: Quantities = field(default_factory=Quantities)
    replies: Replies | None = None
    overrides: tuple[OverrideInfo, ...] = ()
