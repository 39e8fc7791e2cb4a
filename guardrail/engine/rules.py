"""Rules as clinicians write them: a condition tree over findings, and what follows.

The models have the shape of the YAML. A bare name in a list of conditions is a finding:

    when:
      any:
        - chest_pain_crushing
        - all: [chest_pain, {any: [sweating, breathless, {quantity: age_years, at_least: 40}]}]

A finding means what a clinician would expect: affirmed (or uncertain), current, the patient's own. `holds` returns the
findings that made a condition hold, or nothing; evidence is never recomputed.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, assert_never

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from guardrail.engine.model import TIERS, Finding, Maturity, Tier, Topic


class Frozen(BaseModel):
    """Base of what comes from YAML: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FindingIs(Frozen):
    """A concept was found. By default it must count: not denied, current, the patient's.

    `mentioned` also takes what is denied, supposed, past, another person's or asked about in general ("I have not taken
    the tablet yet", "what is it for"), but not what a story tells.
    """

    finding: str
    when: Literal["counts", "mentioned", "any", "past"] = "counts"


class QuantityIs(Frozen):
    """A number within bounds, in the base unit of its kind; `below` is exclusive, `at_least` inclusive."""

    quantity: str
    at_least: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> "QuantityIs":
        if self.at_least is None and self.below is None:
            raise ValueError("needs at_least or below")
        return self


class All(Frozen):
    all: tuple["Condition", ...] = Field(min_length=1)


class AnyOf(Frozen):
    any: tuple["Condition", ...] = Field(min_length=1)


class Not(Frozen):
    """Holds when the inner condition does not. Use sparingly: it lets more text lower a decision (lint says so)."""

    not_: "Condition" = Field(alias="not")


class AtLeast(Frozen):
    """So many of these, different ones."""

    at_least: int = Field(ge=2)
    of: tuple["Condition", ...] = Field(min_length=2)


class Within(Frozen):
    """All of these, in one turn, no more than so many characters from the first to the last."""

    within: int = Field(ge=1)
    all: tuple["Condition", ...] = Field(min_length=2)


def _spread(value: Any) -> Any:
    """A bare name is a finding."""
    return {"finding": value} if isinstance(value, str) else value


def _which(value: Any) -> str | None:
    keys = set(value) if isinstance(value, Mapping) else set(type(value).model_fields) if isinstance(value, BaseModel) else set()
    for key, tag in (
        ("finding", "finding"),
        ("quantity", "quantity"),
        ("within", "within"),
        ("of", "at_least"),
        ("all", "all"),
        ("any", "any"),
        ("not", "not"),
        ("not_", "not"),
    ):
        if key in keys:
            return tag
    return None


Condition = Annotated[
    Annotated[FindingIs, Tag("finding")]
    | Annotated[QuantityIs, Tag("quantity")]
    | Annotated[All, Tag("all")]
    | Annotated[AnyOf, Tag("any")]
    | Annotated[Not, Tag("not")]
    | Annotated[AtLeast, Tag("at_least")]
    | Annotated[Within, Tag("within")],
    Discriminator(
        _which,
        custom_error_type="condition",
        custom_error_message="is not a condition; use a concept's name, or finding, quantity, all, any, not, at_least+of, within+all",
    ),
    BeforeValidator(_spread),
]

for _model in (All, AnyOf, Not, AtLeast, Within):
    _model.model_rebuild()


class Source(Frozen):
    """Where a clinical statement comes from. `grade`: V read on the page, V2 read in a copy, U not verified, study."""

    name: str
    url: str | None = None
    grade: Literal["V", "V2", "U", "study", "none"]


class Rule(Frozen):
    """One file under a pack's `rules/`; its id is the file name, for ever."""

    title: str
    why: str
    tier: Tier
    topics: tuple[Topic, ...] = (Topic.ACUTE,)
    when: Condition
    answer: str | None = None
    """Key of the text the patient reads (`languages/*/answers.yaml`); by default the one of the tier."""
    sources: tuple[Source, ...] = Field(min_length=1)
    worse_mistake: Literal["missing", "crying_wolf"]
    maturity: Maturity = Maturity.LIVE
    note: str | None = None

    @property
    def disposition_seriousness(self) -> tuple[int, int]:
        return TIERS[self.tier].seriousness


def named_findings(condition: Any) -> list[str]:
    """All concept names a condition refers to."""
    match condition:
        case FindingIs(finding=name):
            return [name]
        case QuantityIs():
            return []
        case All(all=inner) | AnyOf(any=inner) | AtLeast(of=inner) | Within(all=inner):
            return [n for c in inner for n in named_findings(c)]
        case Not(not_=one):
            return named_findings(one)
        case _:
            raise TypeError(condition)


def needed_concepts(condition: Condition) -> frozenset[str] | None:
    """Concepts and quantities of which at least one must be found for the condition to hold; None when none need be."""
    match condition:
        case FindingIs(finding=name):
            return frozenset({name})
        case QuantityIs(quantity=kind):
            return frozenset({kind})
        case All(all=inner) | Within(all=inner):
            needed = [n for c in inner if (n := needed_concepts(c)) is not None]
            return min(needed, key=len) if needed else None
        case AnyOf(any=inner) | AtLeast(of=inner):
            choices = [needed_concepts(c) for c in inner]
            return None if None in choices else frozenset(n for c in choices if c for n in c)
        case Not():
            return None
        case _:
            assert_never(condition)


class FindingIndex:
    """The findings of a conversation, by concept and by kind of quantity."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.counting: dict[str, list[Finding]] = {}
        self.every: dict[str, list[Finding]] = {}
        self.quantities: dict[str, list[Finding]] = {}
        for finding in findings:
            self.every.setdefault(finding.concept, []).append(finding)
            if finding.assertion.counts:
                self.counting.setdefault(finding.concept, []).append(finding)
                if finding.quantity is not None:
                    self.quantities.setdefault(finding.quantity.kind, []).append(finding)


Evidence = tuple[Finding, ...]


def holds(condition: Condition, index: FindingIndex) -> Evidence | None:
    """The findings that make the condition hold (may be empty, for `not`), or None."""
    match condition:
        case FindingIs(finding=name, when=when):
            if when == "counts":
                found = index.counting.get(name)
            else:
                found = index.every.get(name)
                if when == "past" and found:
                    found = [f for f in found if f.assertion.time == "past"]
                elif when == "mentioned" and found:
                    found = [f for f in found if not any(c.kind == "fiction" for c in f.assertion.cues)]
            return tuple(found) if found else None
        case QuantityIs(quantity=kind, at_least=low, below=high):
            matched = tuple(
                f
                for f in index.quantities.get(kind, ())
                if f.quantity and (low is None or f.quantity.value >= low) and (high is None or f.quantity.value < high)
            )
            return matched or None
        case All(all=inner):
            return _every(inner, index)
        case AnyOf(any=inner):
            held = [e for c in inner if (e := holds(c, index)) is not None]
            return tuple(f for e in held for f in e) if held else None
        case Not(not_=one):
            return () if holds(one, index) is None else None
        case AtLeast(at_least=count, of=inner):
            held = [e for c in inner if (e := holds(c, index)) is not None]
            return tuple(f for e in held for f in e) if len(held) >= count else None
        case Within(within=reach, all=inner):
            evidence = _every(inner, index)
            if evidence is None or len({f.turn for f in evidence}) != 1:
                return None
            return evidence if max(f.end for f in evidence) - min(f.start for f in evidence) <= reach else None
        case _:
            assert_never(condition)


def _every(inner: Sequence[Condition], index: FindingIndex) -> Evidence | None:
    evidence: list[Finding] = []
    for one in inner:
        held = holds(one, index)
        if held is None:
            return None
        evidence.extend(held)
    return tuple(evidence)
