"""Rules as clinicians write them: a condition tree over findings, and what follows.

The models have the shape of the YAML. A bare name in a list of conditions is a finding:

    when:
      any:
        - chest_pain_crushing
        - all: [chest_pain, {any: [sweating, breathless, {quantity: age_years, at_least: 40}]}]

A finding means what a clinician would expect: affirmed (or uncertain), current, the patient's own. A compiled condition returns the
findings that made a condition hold, or nothing; evidence is never recomputed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, assert_never

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from guardrail.engine.model import TIERS, Finding, Maturity, Tier, Time, Topic


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


def needed_names(condition: Condition) -> tuple[frozenset[str], ...]:
    """Sets of concepts and quantities: the condition cannot hold unless one of each set is found."""
    match condition:
        case FindingIs(finding=name) | QuantityIs(quantity=name):
            return (frozenset({name}),)
        case All(all=inner) | Within(all=inner):
            return tuple(dict.fromkeys(names for c in inner for names in needed_names(c)))
        case AnyOf(any=inner) | AtLeast(of=inner):
            choices = [needed_names(c) for c in inner]
            return (frozenset().union(*(min(c, key=len) for c in choices)),) if all(choices) else ()
        case Not():
            return ()
        case _:
            assert_never(condition)


class FindingIndex:
    """The findings of a conversation, by concept and by kind of quantity."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.counting: dict[str, list[Finding]] = {}
        self.every: dict[str, list[Finding]] = {}
        self.quantities: dict[str, list[Finding]] = {}
        every, counting = self.every, self.counting
        for finding in findings:
            concept = finding.concept
            if concept in every:
                every[concept].append(finding)
            else:
                every[concept] = [finding]
            if finding.assertion.counts:
                counting.setdefault(concept, []).append(finding)
                if finding.quantity is not None:
                    self.quantities.setdefault(finding.quantity.kind, []).append(finding)


Evidence = tuple[Finding, ...]
Test = Callable[[FindingIndex], Evidence | None]
"""A condition as a function: the findings that make it hold (may be empty, for `not`), or None."""


def compile_condition(condition: Condition) -> Test:
    """A condition tree as one function, so that judging a rule does not ask again of what kind each part is."""
    match condition:
        case FindingIs(finding=name, when=when):
            return _finding_test(name, when)
        case QuantityIs(quantity=kind, at_least=low, below=high):
            return _quantity_test(kind, low, high)
        case All(all=inner):
            return _all_test(inner)
        case AnyOf(any=inner):
            return _at_least_test(1, inner)
        case AtLeast(at_least=count, of=inner):
            return _at_least_test(count, inner)
        case Not(not_=one):
            test = compile_condition(one)
            return lambda index: () if test(index) is None else None
        case Within(within=reach, all=inner):
            return _within_test(reach, inner)
        case _:
            assert_never(condition)


def _finding_test(name: str, when: str) -> Test:
    def counts(index: FindingIndex) -> Evidence | None:
        found = index.counting.get(name)
        return tuple(found) if found else None

    def otherwise(index: FindingIndex) -> Evidence | None:
        found = index.every.get(name)
        if when == "past" and found:
            found = [f for f in found if f.assertion.time is Time.PAST]
        elif when == "mentioned" and found:
            found = [f for f in found if not any(c.kind == "fiction" for c in f.assertion.cues)]
        return tuple(found) if found else None

    return counts if when == "counts" else otherwise


def _quantity_test(kind: str, low: float | None, high: float | None) -> Test:
    def test(index: FindingIndex) -> Evidence | None:
        found = index.quantities.get(kind)
        if not found:
            return None
        values = ((f, f.quantity.value) for f in found if f.quantity)
        return tuple(f for f, value in values if (low is None or value >= low) and (high is None or value < high)) or None

    return test


def _all_test(inner: Sequence[Condition]) -> Test:
    tests = [compile_condition(c) for c in inner]

    def test(index: FindingIndex) -> Evidence | None:
        evidence: Evidence = ()
        for one in tests:
            held = one(index)
            if held is None:
                return None
            evidence += held
        return evidence

    return test


def _at_least_test(count: int, inner: Sequence[Condition]) -> Test:
    """Plain names are most of what long lists hold, so they are looked up all at once."""
    tests = [compile_condition(c) for c in inner]
    plain = {c.finding: i for i, c in enumerate(inner) if isinstance(c, FindingIs) and c.when == "counts"}
    others = [i for i, c in enumerate(inner) if i not in plain.values()]

    def test(index: FindingIndex) -> Evidence | None:
        named = index.counting.keys() & plain.keys()
        if not named and not others:
            return None
        held = [e for i in sorted([*others, *(plain[n] for n in named)]) if (e := tests[i](index)) is not None]
        return tuple(f for e in held for f in e) if len(held) >= count else None

    return test


def _within_test(reach: int, inner: Sequence[Condition]) -> Test:
    every = _all_test(inner)

    def test(index: FindingIndex) -> Evidence | None:
        evidence = every(index)
        if evidence is None or len({f.turn for f in evidence}) != 1:
            return None
        return evidence if max(f.end for f in evidence) - min(f.start for f in evidence) <= reach else None

    return test
