"""What a site changes in packs that it does not edit: `overrides.d/*.yaml`, applied after everything else is read.

Each override names one thing (a rule, a concept, a tier of the policy, a country), the change, the reason, who owns it and the day
until which it holds. One by which an emergency would be answered less says so (`lowers_emergency: true`), or does not load.

From the day after its last an override that quietens is no longer applied: an emergency that somebody silenced for a while comes
back by itself. One that only adds stays in force. Both are told by `guardrail lint`, `guardrail packs` and the dashboard. A date takes
effect when packs are loaded, never in between, and is part of the revision.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, Discriminator, Field, Tag, TypeAdapter, ValidationError, field_validator, model_validator

from guardrail.engine.answers import Contact, Country
from guardrail.engine.knowledge import NamedRule, OverrideInfo, Policy, TierPolicy
from guardrail.engine.model import DESTINATION_RANK, TIERS, Action, Maturity, Tier, Urgency
from guardrail.engine.rules import Frozen, Rule, named_findings
from guardrail.errors import Problem
from guardrail.packs.source import Source, nearest, validate

FOLDER = "overrides.d"
_ACTIONS = (Action.FORWARD, Action.ANNOTATE, Action.ANSWER)


class _Change(Frozen):
    @model_validator(mode="after")
    def _changes_something(self) -> "_Change":
        if not self.model_fields_set:
            raise ValueError("changes nothing")
        return self


class RuleChange(_Change):
    maturity: Literal["shadow", "live", "retired"] | None = None
    tier: Tier | None = None
    answer: str | None = None


class ConceptChange(_Change):
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    """Phrases and hints, as they are written in the pack."""


class PolicyChange(_Change):
    action: Action | None = None
    answer: str | None = None


class CountryChange(_Change):
    """Lines in place of those of the pack; a country the packs do not have needs at least name and emergency."""

    name: str | None = None
    emergency: Contact | None = None
    crisis: tuple[Contact, ...] | None = None
    poison: tuple[Contact, ...] | None = None
    nurse: tuple[Contact, ...] | None = None
    note: str | None = None


class _Override(Frozen):
    reason: str = Field(min_length=1)
    owner: str = Field(min_length=1)
    expires: str
    """The last day on which it holds: 2027-06-30."""
    lowers_emergency: bool = False
    """Says that an emergency may be answered less than the pack would, on purpose."""

    @field_validator("expires")
    @classmethod
    def _is_a_day(cls, value: str) -> str:
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            raise ValueError(f'"{value}" is not a day; write it like 2027-06-30') from None

    @property
    def last_day(self) -> date:
        return date.fromisoformat(self.expires)


class RuleOverride(_Override):
    rule: str
    change: RuleChange


class ConceptOverride(_Override):
    concept: str
    change: ConceptChange


class PolicyOverride(_Override):
    policy: Tier
    change: PolicyChange


class CountryOverride(_Override):
    country: str = Field(pattern="^[A-Z]{2}$")
    change: CountryChange


_KINDS = ("rule", "concept", "policy", "country")


def _which(value: Any) -> str | None:
    keys = set(value) if isinstance(value, Mapping) else set(type(value).model_fields) if isinstance(value, BaseModel) else set()
    return next((kind for kind in _KINDS if kind in keys), None)


def _tag(value: Any) -> str | None:
    """Tags stand in the places of problems, so they are no keys of the file."""
    kind = _which(value)
    return kind and f"<{kind}>"


Override = Annotated[
    Annotated[RuleOverride, Tag("<rule>")]
    | Annotated[ConceptOverride, Tag("<concept>")]
    | Annotated[PolicyOverride, Tag("<policy>")]
    | Annotated[CountryOverride, Tag("<country>")],
    Discriminator(
        _tag,
        custom_error_type="override",
        custom_error_message="is not an override; name a rule, a concept, a policy (tier) or a country",
    ),
]
Overrides = tuple[Override, ...]
_FILE: TypeAdapter[Overrides] = TypeAdapter(Overrides)


class AddedPhrase(NamedTuple):
    """A phrase for a concept, with its place."""

    concept: str
    phrase: str
    source: Source
    path: tuple[str | int, ...]


@dataclass(slots=True)
class Overridden:
    """The packs as they are after the overrides. What is added to and removed from concepts is left to whoever compiles them."""

    rules: dict[str, NamedRule]
    policy: Policy
    countries: dict[str, Country]
    added: list[AddedPhrase] = field(default_factory=list)
    removed: set[tuple[str, str]] = field(default_factory=set)
    infos: list[OverrideInfo] = field(default_factory=list)
    expired: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Place:
    """An override in its file."""

    source: Source
    number: int

    def problem(self, path: Sequence[str | int], message: str, remedy: str = "") -> Problem:
        return self.source.problem((self.number, *path), message, remedy)


def apply(
    sources: Sequence[Source],
    rules: Mapping[str, NamedRule],
    policy: Policy,
    countries: Mapping[str, Country],
    phrases: Mapping[str, frozenset[str]],
    answers: frozenset[str],
    today: date,
    problems: list[Problem],
) -> Overridden:
    """The packs with the overrides of these files. `phrases` are those of each concept, `answers` the keys of the English texts."""
    packs = Overridden(dict(rules), policy, dict(countries))
    known = _Known(packs, rules, phrases, answers, problems)
    for source in sources:
        found: Overrides = validate(source, (), _FILE, problems) or ()
        for number, override in enumerate(found):
            known.apply(override, _Place(source, number), today)
    return packs


class _Known:
    """Applies one override after the other, and says what is wrong with each."""

    def __init__(
        self,
        packs: Overridden,
        shipped: Mapping[str, NamedRule],
        phrases: Mapping[str, frozenset[str]],
        answers: frozenset[str],
        problems: list[Problem],
    ) -> None:
        self._packs = packs
        self._shipped = shipped
        self._phrases = phrases
        self._answers = answers
        self._problems = problems
        self._places: dict[tuple[str, str], _Place] = {}

    def apply(self, override: Override, place: _Place, today: date) -> None:
        kind = str(_which(override))
        name = str(getattr(override, kind))
        found = len(self._problems)
        if kind != "concept" and (earlier := self._places.setdefault((kind, name), place)) is not place:
            line, column = earlier.source.place((earlier.number,))
            where = f"{earlier.source.name}:{line}:{column}"
            self._problems.append(place.problem((kind,), f'{kind} "{name}" is overridden at {where} already', "merge the two"))
            return
        expired = override.last_day < today
        match override:
            case RuleOverride():
                quietens = self._rule(override, place, expired)
            case ConceptOverride():
                quietens = self._concept(override, place, expired)
            case PolicyOverride():
                quietens = self._policy(override, place, expired)
            case CountryOverride():
                quietens = self._country(override, place)
        if len(self._problems) > found:
            return
        state: Literal["in force", "expired", "expired, not applied"] = "in force"
        if expired:
            state = "expired, not applied" if quietens else "expired"
            what = "is no longer applied" if quietens else "is still applied, as it only adds"
            self._packs.expired.append(place.problem(("expires",), f"expired on {override.expires} and {what}", "renew it or take it out"))
        about = (place.source.name, f"{kind} {name}", _told(override.change))
        self._packs.infos.append(OverrideInfo(*about, override.reason, override.owner, override.expires, state))

    def _rule(self, override: RuleOverride, place: _Place, expired: bool) -> bool:
        named = self._packs.rules.get(override.rule)
        if named is None:
            self._unknown("rule", override.rule, self._packs.rules, place)
            return False
        if not self._answer_is_known(override.change.answer, place):
            return False
        changes: dict[str, Any] = {n: v for n, v in override.change.model_dump().items() if v is not None}
        if "maturity" in changes:
            changes["maturity"] = Maturity(changes["maturity"])
        changed = named.rule.model_copy(update=changes)
        lowers, quietens = _compare(self._acts(named.rule), self._acts(changed))
        self._may_lower(override, lowers, place)
        if not (expired and quietens):
            self._packs.rules[override.rule] = NamedRule(named.id, named.pack, changed)
        return quietens

    def _concept(self, override: ConceptOverride, place: _Place, expired: bool) -> bool:
        name, change = override.concept, override.change
        if name not in self._phrases:
            self._unknown("concept", name, self._phrases, place)
            return False
        for i, phrase in enumerate(change.remove):
            if phrase not in self._phrases[name]:
                near = nearest(phrase, self._phrases[name])
                remedy = f'did you mean "{near}"?' if near else "copy it as it is written there"
                self._problems.append(place.problem(("change", "remove", i), f'concept "{name}" has no phrase "{phrase}"', remedy))
        if change.remove:
            urgent = any(
                name in named_findings(named.rule.when) and self._acts(named.rule)[0][0] is Urgency.EMERGENCY
                for named in self._shipped.values()
            )
            self._may_lower(override, urgent, place)
        path: tuple[str | int, ...] = (place.number, "change", "add")
        self._packs.added += [AddedPhrase(name, phrase, place.source, (*path, i)) for i, phrase in enumerate(change.add)]
        if not expired:
            self._packs.removed |= {(name, phrase) for phrase in change.remove}
        return bool(change.remove)

    def _policy(self, override: PolicyOverride, place: _Place, expired: bool) -> bool:
        if not self._answer_is_known(override.change.answer, place):
            return False
        tier, policy = override.policy, self._packs.policy
        before = policy.tiers[tier]
        after = TierPolicy(**{**before.model_dump(), **{n: v for n, v in override.change.model_dump().items() if v is not None}})
        quietens = _ACTIONS.index(after.action) < _ACTIONS.index(before.action)
        self._may_lower(override, quietens and TIERS[tier].urgency is Urgency.EMERGENCY, place)
        if not (expired and quietens):
            self._packs.policy = policy.model_copy(update={"tiers": {**policy.tiers, tier: after}})
        return quietens

    def _country(self, override: CountryOverride, place: _Place) -> bool:
        shipped = self._packs.countries.get(override.country)
        given = {name: getattr(override.change, name) for name in override.change.model_fields_set}
        try:
            self._packs.countries[override.country] = Country(**{**(dict(shipped) if shipped else {}), **given})
        except ValidationError as error:
            lacking = ", ".join(str(e["loc"][0]) for e in error.errors())
            self._problems.append(place.problem(("change",), f"country {override.country} is new and lacks {lacking}", "add it"))
        return False

    def _acts(self, rule: Rule) -> tuple[tuple[Urgency, int], int]:
        """How serious what the rule says is, and how much is done about it; the least when it does not act."""
        if rule.maturity is not Maturity.LIVE:
            return (Urgency.NONE, 0), 0
        policy, disposition = self._packs.policy, TIERS[rule.tier]
        action = policy.answers.get(rule.answer or "", policy.tiers[rule.tier].action)
        return (disposition.urgency, DESTINATION_RANK[disposition.destination]), _ACTIONS.index(action)

    def _may_lower(self, override: Override, lowers: bool, place: _Place) -> None:
        if lowers and not override.lowers_emergency:
            message, remedy = "answers an emergency less than the pack does", "if that is meant, say lowers_emergency: true"
            self._problems.append(place.problem(("change",), message, remedy))

    def _answer_is_known(self, answer: str | None, place: _Place) -> bool:
        known = answer is None or answer in self._answers
        if not known:
            near = nearest(str(answer), self._answers)
            remedy = f'did you mean "{near}"?' if near else "use one of languages/en/answers.yaml"
            self._problems.append(place.problem(("change", "answer"), f'no answer text "{answer}" in English', remedy))
        return known

    def _unknown(self, kind: str, name: str, known: Mapping[str, object], place: _Place) -> None:
        near = nearest(name, known)
        self._problems.append(place.problem((kind,), f'unknown {kind} "{name}"', f'did you mean "{near}"?' if near else "remove it"))


def _compare(before: tuple[tuple[Urgency, int], int], after: tuple[tuple[Urgency, int], int]) -> tuple[bool, bool]:
    """Whether an emergency is lowered, and whether anything is."""
    quietens = after[0] < before[0] or after[1] < before[1]
    return quietens and before[0][0] is Urgency.EMERGENCY, quietens


def _told(change: BaseModel) -> str:
    """The change in a line: `maturity shadow, tier E1`."""
    return ", ".join(_parts(change))


def _parts(change: BaseModel) -> Iterator[str]:
    for name in type(change).model_fields:
        value = getattr(change, name)
        if value is None or value == ():
            continue
        if isinstance(value, Contact):
            value = value.number
        elif isinstance(value, tuple):
            value = "; ".join(v.number if isinstance(v, Contact) else f'"{v}"' for v in value)
        yield f"{name} {value}"
