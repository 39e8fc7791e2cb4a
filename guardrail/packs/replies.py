"""The pack of reply rules (`replies/`) -> `Replies`, with every problem at its place.

Its concepts are in a lexicon of their own, so that reading messages does not pay for them; word lists are shared. Every
phrase that a sentence is held for needs a word that is rare in ordinary replies: which one is worked out here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from guardrail.engine.answers import Country, LanguageTexts
from guardrail.engine.lexicon import Entry, LexiconBuilder, PhraseError
from guardrail.engine.lines import Lines
from guardrail.engine.model import Maturity
from guardrail.engine.phrases import Element, Gap, Group, Items, Listed, Sequence_, parse, spell_out
from guardrail.engine.replies import (
    CASES,
    NEAR,
    SCORED,
    SHAPES,
    CompiledRule,
    Hold,
    IssuePolicy,
    Replies,
    ReplyPolicy,
    ReplyRule,
    Test,
    Treatment,
    Word,
    by_concept,
    compile_condition,
)
from guardrail.engine.rules import All, AnyOf, FindingIs, Frozen, named_findings
from guardrail.errors import Problem
from guardrail.packs.source import Source, nearest, read, validate
from guardrail.packs.weights import read_sentence_scorer

FOLDER = "replies"


class ReplyConcept(Frozen):
    """What a reply may say, and the ways to say it."""

    title: str
    phrases: tuple[str, ...]
    not_: tuple[str, ...] = Field(default=(), alias="not")


class ReplyCase(Frozen):
    """A reply to test a rule on, with what the patient had written."""

    user: str
    response: str
    country: str | None = None
    why: str | None = None


class ReplyCases(Frozen):
    """`tests/<rule>.yaml`. A rule needs both where it fires and where it keeps quiet."""

    fires: tuple[ReplyCase, ...] = Field(min_length=1)
    quiet: tuple[ReplyCase, ...] = Field(min_length=1)
    known_miss: tuple[ReplyCase, ...] = ()
    known_alarm: tuple[ReplyCase, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplyRuleCases:
    rule: str
    issue: str
    cases: ReplyCases
    source: Source


@dataclass(slots=True)
class LoadedReplies:
    replies: Replies | None
    cases: tuple[ReplyRuleCases, ...]


@dataclass(slots=True)
class _Load:
    folder: Path
    lists: Mapping[str, Sequence[str]]
    problems: list[Problem]
    read_bytes: list[bytes] = field(default_factory=list)

    def read(self, path: Path) -> Source | None:
        self.read_bytes.append(path.relative_to(self.folder.parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
        return read(path, path.relative_to(self.folder.parent.parent).as_posix(), self.problems)

    def each(self, name: str) -> Iterator[tuple[Path, Source]]:
        for path in sorted((self.folder / name).glob("*.yaml")):
            source = self.read(path)
            if source is not None:
                yield path, source


def is_reply_pack(manifest: Path) -> bool:
    """Whether a pack's folder is the one of the reply rules, which have a form of their own."""
    return manifest.parent.name == FOLDER


def load_replies(
    rules_folder: Path,
    lists: Mapping[str, Sequence[str]],
    number_words: Iterable[str],
    known_words: frozenset[str],
    texts: Mapping[str, LanguageTexts],
    countries: Mapping[str, Country],
    problems: list[Problem],
) -> tuple[LoadedReplies, bytes]:
    """The compiled rules and the bytes they were made of (for the revision); a folder without the pack gives none."""
    folder = rules_folder / FOLDER
    if not (folder / "policy.yaml").is_file():
        return LoadedReplies(None, ()), b""
    state = _Load(folder, lists, problems)
    own_lists = {**lists, **_lists(state)}
    source = state.read(folder / "policy.yaml")
    policy = validate(source, (), ReplyPolicy, problems) if source else None
    concepts: dict[str, tuple[ReplyConcept, Source]] = {}
    for _, source in state.each("concepts"):
        for name, concept in (validate(source, (), dict[str, ReplyConcept], problems) or {}).items():
            if name in concepts:
                problems.append(source.problem((name,), f'concept "{name}" is already defined in {concepts[name][1].name}', "use one name"))
            concepts[name] = (concept, source)
    rules, cases = _rules(state)
    if policy is None:
        return LoadedReplies(None, ()), b"".join(state.read_bytes)
    scorer = read_sentence_scorer(folder / "weights.npz", state.read_bytes, problems)
    heads = scorer.heads if scorer else ()
    scored = [*(f"{NEAR}{name}" for name in dict.fromkeys((*policy.issues, *heads))), *(f"{SCORED}{head}" for head in heads)]
    compiled = tuple(_compile(id_, rule, source, policy, concepts, scored, texts, problems) for id_, (rule, source) in rules.items())
    treatments = {rule.id: rule.treatment for rule in compiled}
    builder = LexiconBuilder(own_lists, number_words, known_words)
    gates, gate_of = _gates(rules)
    holding: dict[str, int] = {}
    heeded: dict[str, int] = {}
    for id_, (rule, _) in rules.items():
        if rule.scope != "sentence" or treatments[id_] not in _HOLDING:
            continue
        near = _near(rule.when) if scorer else frozenset()
        for head in near:
            heeded[head] = heeded.get(head, 0) | 1 << gate_of[id_]
        for name in _anchors(rule.when):
            # What only counts near to an issue is held by the scorer's leaning, and by no word of its own.
            holding[name] = holding.get(name, 0) | (0 if near else 1 << gate_of[id_])
    marks = _Marks(own_lists, frozenset(policy.common_words), frozenset(policy.frequent_words))
    for name, (concept, source) in concepts.items():
        for place, phrases in (("phrases", concept.phrases), ("not", concept.not_)):
            for i, phrase in enumerate(phrases):
                path = (name, place, i)
                try:
                    builder.add(phrase, Entry("mask" if place == "not" else "concept", name))
                    if place == "phrases":
                        marks.add(phrase, holding.get(name, 0))
                except PhraseError as error:
                    problems.append(source.problem(path, f'phrase "{phrase}": {error}'))
    for word in policy.leading_words:
        marks.note(word, Hold.LEAD, _ALWAYS)
    for word in policy.opening_words:
        marks.note(word, Hold.OPEN, 0)
    flow = frozenset(policy.flow_words)
    replies = Replies(
        lexicon=builder.build(),
        rules=compiled,
        words=_shown_early(marks.words, flow),
        prefixes=_prefixes(marks.words, flow),
        openings=frozenset(w[:n] for w in policy.opening_words for n in range(1, len(w) + 1)),
        pairs=marks.pairs,
        gates=gates,
        policy=policy,
        asked=frozenset(
            name.removeprefix("reply:") for rule, _ in rules.values() for name in named_findings(rule.when) if name.startswith("reply:")
        )
        | {"drug_named"},
        lines=Lines(countries),
        by_concept=by_concept(compiled),
        scorer=scorer,
        heeded=heeded,
    )
    return LoadedReplies(replies, tuple(cases)), b"".join(state.read_bytes)


_HOLDING = frozenset({Treatment.REPLACE, Treatment.CUT})


def _lists(state: _Load) -> dict[str, tuple[str, ...]]:
    """The pack's own word lists; an item `{name}` stands for the items of a list before it."""
    path = state.folder / "lists.yaml"
    source = state.read(path) if path.is_file() else None
    found: dict[str, tuple[str, ...]] = (validate(source, (), dict[str, tuple[str, ...]], state.problems) or {}) if source else {}
    out: dict[str, tuple[str, ...]] = {}
    for name, items in found.items():
        spread: list[str] = []
        for i, item in enumerate(items):
            inner = item[1:-1] if item.startswith("{") else None
            known = out.get(inner) or state.lists.get(inner) if inner else None
            if inner and known is None and source:
                state.problems.append(source.problem((name, i), f'unknown list "{inner}"', "define it above"))
            spread.extend(known if known is not None else [item])
        out[name] = tuple(dict.fromkeys(spread))
    return out


def _rules(state: _Load) -> tuple[dict[str, tuple[ReplyRule, Source]], list[ReplyRuleCases]]:
    rules: dict[str, tuple[ReplyRule, Source]] = {}
    cases: list[ReplyRuleCases] = []
    tests = {p.stem: (p, s) for p, s in state.each("tests")}
    for path, source in state.each("rules"):
        rule = validate(source, (), ReplyRule, state.problems)
        test = tests.pop(path.stem, None)
        if test is None:
            state.problems.append(source.problem((), "has no test file", f"add {FOLDER}/tests/{path.name} with fires and quiet cases"))
        elif rule is not None and (found := validate(test[1], (), ReplyCases, state.problems)) is not None:
            cases.append(ReplyRuleCases(path.stem, rule.issue, found, test[1]))
        if rule is not None and rule.maturity not in (Maturity.DRAFT, Maturity.RETIRED):
            rules[path.stem] = (rule, source)
    for path, source in tests.values():
        state.problems.append(source.problem((), f'there is no rule "{path.stem}"', "name the test file like its rule"))
    return rules, cases


def _compile(
    id_: str,
    rule: ReplyRule,
    source: Source,
    policy: ReplyPolicy,
    concepts: Mapping[str, object],
    scored: Sequence[str],
    texts: Mapping[str, LanguageTexts],
    problems: list[Problem],
) -> CompiledRule:
    names = named_findings(rule.when)
    for name in names:
        place, _, rest = name.rpartition(":")
        known: Iterable[str] = CASES if place == "case" else policy.issues if place == "issue" else [*concepts, *SHAPES, *scored]
        if place not in ("", "reply", "user", "case", "issue") or rest not in known:
            near = nearest(rest, known)
            remedy = f'did you mean "{near}"?' if near else "define it in a concepts file"
            problems.append(source.problem(("when",), f'unknown name "{name}"', remedy))
    what = policy.issues.get(rule.issue)
    if what is None:
        near = nearest(rule.issue, policy.issues)
        remedy = f'did you mean "{near}"?' if near else "add it to policy.yaml"
        problems.append(source.problem(("issue",), f'issue "{rule.issue}" has no policy', remedy))
        what = IssuePolicy(treatment=Treatment.RECORD)
    treatment = rule.treatment or what.treatment
    if rule.scope == "reply" and treatment in _HOLDING:
        problems.append(source.problem(("scope",), f"a rule about the whole reply cannot {treatment}", "it can record or annotate"))
    english = texts.get("en")
    known_texts = (english.notices if treatment is Treatment.REPLACE else english.answers) if english else {}
    if what.text and treatment in _HOLDING and what.text not in known_texts:
        problems.append(source.problem(("issue",), f'no text "{what.text}" in English', "add it to languages/en/answers.yaml"))
    return CompiledRule(
        id=id_,
        issue=rule.issue,
        scope=rule.scope,
        holds=compile_condition(rule.when),
        evidence=_anchors(rule.when),
        treatment=treatment,
        text=what.text,
        shadow=rule.maturity is Maturity.SHADOW,
    )


def _anchors(condition: Any) -> frozenset[str]:
    """The concepts of the sentence one of which the condition cannot do without; of an `all`, its first part that has such."""
    match condition:
        case FindingIs(finding=name):
            return frozenset() if ":" in name else frozenset({name})
        case All(all=inner):
            return next((a for a in map(_anchors, inner) if a), frozenset())
        case AnyOf(any=inner):
            return frozenset().union(*map(_anchors, inner))
        case _:
            return frozenset()


def _near(condition: Any) -> frozenset[str]:
    """The heads of the trained reader without whose leaning the condition cannot hold; of alternatives, all."""
    match condition:
        case FindingIs(finding=name):
            return frozenset(name.removeprefix(p) for p in (NEAR, SCORED) if name.startswith(p))
        case All(all=inner):
            return frozenset().union(*map(_near, inner))
        case AnyOf(any=inner):
            heads = [_near(c) for c in inner]
            return frozenset().union(*heads) if all(heads) else frozenset()
        case _:
            return frozenset()


def _gates(rules: Mapping[str, tuple[ReplyRule, Source]]) -> tuple[tuple[Test, ...], dict[str, int]]:
    """What each rule asks of the conversation before it looks at any sentence, each such thing once; gate 0 asks nothing."""
    gates: dict[str, Test] = {"": lambda seen: True}
    numbers: dict[str, int] = {}
    for id_, (rule, _) in rules.items():
        asked = [c for c in rule.when.all if _is_situation(c)] if isinstance(rule.when, All) else []
        key = " ".join(map(repr, asked))
        if key not in gates:
            gates[key] = compile_condition(All(all=tuple(asked)))
        numbers[id_] = list(gates).index(key)
    return tuple(gates.values()), numbers


def _is_situation(condition: Any) -> bool:
    """Whether it can be answered without the sentence, and once true stays true."""
    match condition:
        case FindingIs(finding=name):
            return name.startswith(("case:", "user:", "reply:"))
        case All(all=inner) | AnyOf(any=inner):
            return all(map(_is_situation, inner))
        case _:
            return False


_ALWAYS = -1
"""Gates of a word that holds whatever the conversation is about."""


@dataclass(slots=True)
class _Marks:
    """The words on which phrases are held or read.

    Of the parts that a phrase cannot do without, the one whose words are rarest; a word that is common counts only with the
    one behind it.
    """

    lists: Mapping[str, Sequence[str]]
    common: frozenset[str]
    frequent: frozenset[str]
    words: dict[str, tuple[Hold, int]] = field(default_factory=dict)
    pairs: dict[str, dict[str, int]] = field(default_factory=dict)
    _listed: dict[str, frozenset[str]] = field(default_factory=dict)

    def note(self, word: str, hold: Hold, gates: int) -> None:
        known, open_to = self.words.get(word, (Hold(0), 0))
        self.words[word] = (known | hold, open_to | gates)

    def add(self, phrase: str, gates: int) -> None:
        """Note a phrase; `gates` 0 says that nothing is held for it."""
        for sequence in parse(phrase):
            required = [e for e in sequence if not isinstance(e, Gap) and not e.optional]
            choices = [c for e in required if (c := self._anchor_words(e))]
            rare = [c for c in choices if not c & self.common]
            if not gates:
                for key in min(rare or choices, key=self._cost, default=frozenset[str]()):
                    self.note(key.split(" ")[0], Hold.NOTE, 0)
                continue
            single = [c for c in rare if not any(" " in k for k in c)]
            numbers = any(isinstance(e, Listed) and e.name == "number" for e in required)
            if not single and numbers:
                continue  # where medicines are talked of, a number holds
            if not single and (found := _pair(sequence, self.lists)):
                for first in found[0]:
                    for second in found[1]:
                        self._note_pair(first, second, gates)
            elif rare:
                for key in min(single or rare, key=self._cost):
                    first, _, word = key.rpartition(" ")
                    if first:
                        self._note_pair(first, word, gates)
                    else:
                        self.note(word, Hold.HOT | Hold.NOTE, gates)
            else:
                raise PhraseError("has only common words; a sentence cannot be held on it")

    def _note_pair(self, first: str, second: str, gates: int) -> None:
        behind = self.pairs.setdefault(first, {})
        behind[second] = behind.get(second, 0) | gates

    def _anchor_words(self, element: Element) -> frozenset[str]:
        """Words (or pairs of words) of which an element holds at least one. Empty for numbers."""
        match element:
            case Items(items=items):
                return self._anchors_of(items)
            case Listed(name="number"):
                return frozenset()
            case Listed(name=name):
                if name not in self._listed:
                    self._listed[name] = self._anchors_of(self.lists.get(name, ()))
                return self._listed[name]
            case Group(alternatives=alternatives):
                words: set[str] = set()
                for one in alternatives:
                    choices = [self._anchor_words(e) for e in one if not isinstance(e, Gap) and not e.optional]
                    known = [c for c in choices if c and not c & self.common] or [c for c in choices if c]
                    if not known:
                        return frozenset()
                    words |= min(known, key=len)
                return frozenset(words)
            case Gap():
                return frozenset()

    def _anchors_of(self, items: Iterable[str]) -> frozenset[str]:
        return frozenset(_anchor(sequence, self.common, self.frequent) for item in items for sequence in spell_out(item))

    def _cost(self, keys: frozenset[str]) -> int:
        return sum(100 if " " in k or k in self.common else 12 if k in self.frequent else 1 for k in keys)


def _pair(sequence: Sequence_, lists: Mapping[str, Sequence[str]]) -> tuple[frozenset[str], frozenset[str]] | None:
    """The last words of one part and the first words of what can follow it; of all such places the one with fewest."""
    places: list[tuple[frozenset[str], frozenset[str]]] = []
    for i, element in enumerate(sequence[:-1]):
        if isinstance(element, Gap) or element.optional:
            continue
        following: set[str] = set()
        for after in sequence[i + 1 :]:
            if isinstance(after, Gap):
                following.clear()
                break
            following |= _ends_of(after, lists, 0)
            if not after.optional:
                break
        last = _ends_of(element, lists, -1)
        if last and following and "" not in following:
            places.append((last, frozenset(following)))
    return min(places, key=lambda p: len(p[0]) * len(p[1]), default=None)


def _ends_of(element: Element, lists: Mapping[str, Sequence[str]], place: int) -> frozenset[str]:
    """The first or last words of what an element matches; with an empty word among them when it cannot be said."""
    match element:
        case Items(items=items):
            return frozenset(_pieces(sequence)[place] for item in items for sequence in spell_out(item))
        case Listed(name=name) if name != "number":
            return frozenset(_pieces(sequence)[place] for item in lists.get(name, ()) for sequence in spell_out(item))
        case _:
            return frozenset({""})


def _anchor(words: Sequence[str], common: frozenset[str], frequent: frozenset[str]) -> str:
    """The first word that is not common, or the first two of the item; a single common word when that is all it has."""
    pieces = _pieces(words)
    rare = [p for p in pieces if p not in common]
    return next((p for p in rare if p not in frequent), rare[0] if rare else " ".join(pieces[:2]))


def _pieces(words: Sequence[str]) -> list[str]:
    """Words as the reply guard splits them: letters and digits only."""
    pieces = [p for w in words for p in re.findall(r"[^\W_]+", w)]
    return pieces or [""]


def _shown_early(words: Mapping[str, tuple[Hold, int]], flow: frozenset[str]) -> dict[str, Word]:
    """Each word with how much of it may have been shown before it was known to be this word."""
    return {w: Word(int(h), max((n for n in range(1, len(w)) if w[:n] in flow), default=0), g) for w, (h, g) in words.items()}


def _prefixes(words: Mapping[str, tuple[Hold, int]], flow: frozenset[str]) -> dict[str, int]:
    """Beginnings at which a text waits, with their gates. Words that are only noted do not hold, so nothing waits for them."""
    found: dict[str, int] = {}
    for word, (_, gates) in words.items():
        for n in range(1, len(word) + 1):
            if gates and (word[:n] not in flow or n == len(word)):
                found[word[:n]] = found.get(word[:n], 0) | gates
    return found
