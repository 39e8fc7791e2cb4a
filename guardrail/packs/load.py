"""A folder of packs -> `Knowledge`, or every problem it has, each with its place.

Order: lists, languages, contacts, policy, then each pack's concepts, rules and cases, then what the site overrides; then everything
is compiled into one lexicon. Nothing is half loaded: either a whole revision comes back or a `PackError` with all problems.
"""

import ctypes
import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeVar, get_args

import msgspec
from pydantic import Field, TypeAdapter

from guardrail.engine.answers import Answers, Country, LanguageTexts
from guardrail.engine.context import Age, Context, CueKind, CueRule, Direction, Vocabulary, WordKind
from guardrail.engine.conversation import SignKind
from guardrail.engine.knowledge import Knowledge, NamedRule, PackInfo, Policy
from guardrail.engine.languages import Glossary, Languages
from guardrail.engine.lexicon import Entry, Lexicon, LexiconBuilder, PhraseError, inflect
from guardrail.engine.model import Maturity
from guardrail.engine.normalize import tokenize
from guardrail.engine.quantities import UNITS, Quantities
from guardrail.engine.rules import Frozen, Rule, named_findings
from guardrail.errors import PackError, Problem
from guardrail.packs import cache
from guardrail.packs.overrides import FOLDER as OVERRIDES
from guardrail.packs.overrides import Overridden, apply
from guardrail.packs.replies import ReplyRuleCases, is_reply_pack, load_replies
from guardrail.packs.source import Source, nearest, read, validate
from guardrail.packs.weights import read_scorer

T = TypeVar("T")

ENGINE = 1
"""Version of the pack format; a pack that asks for a newer one does not load."""
DEFAULT_LANGUAGE = "en"
QUANTITIES = frozenset(UNITS)
# Concepts that engine parts make themselves, without phrases.
BUILT_IN_CONCEPTS = QUANTITIES | frozenset({"scored_emergency", "scored_urgent", "scored_crisis", "scored_medication"})


class Review(Frozen):
    by: str
    role: str
    on: str


class Pack(Frozen):
    """`pack.yaml`: what the pack is and who answers for it."""

    title: str
    version: str
    engine: int = ENGINE
    maturity: Maturity = Maturity.LIVE
    owner: str
    reviewed: Review | None = None
    expires: str | None = None
    sources: tuple[str, ...] = ()
    description: str | None = None


class Concept(Frozen):
    """A clinical idea and the ways patients put it. Plain `phrases` are English; other languages go under their code."""

    title: str
    phrases: tuple[str, ...] | Mapping[str, tuple[str, ...]]
    hints: tuple[str, ...] = ()
    """Ways of putting it too loose to count alone: they count where the second reader leans
    towards danger or, of the medication pack, towards medication."""
    not_: tuple[str, ...] = Field(default=(), alias="not")
    lasts: Literal["months", "life"] | None = None
    """A state that stays true so long (surgery, birth: months; diabetes: life): "years ago" may say since when."""
    passes: bool = False
    """Once it has gone it no longer counts (fever, rash). Otherwise an episode that is over still does."""

    def all_phrases(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Each phrase with its path in the file."""
        if isinstance(self.phrases, Mapping):
            for language, phrases in self.phrases.items():
                for i, phrase in enumerate(phrases):
                    yield ("phrases", language, i), phrase
        else:
            for i, phrase in enumerate(self.phrases):
                yield ("phrases", i), phrase
        for i, phrase in enumerate(self.hints):
            yield ("hints", i), phrase
        for i, phrase in enumerate(self.not_):
            yield ("not", i), phrase


class CueGroup(Frozen):
    """A group of cues in `cues.yaml`: what they change, in which direction, over how many words (see `engine.context`).

    The kinds of WordKind hold single words that are looked up (or {lists} of them); a light one that begins with - is an ending.
    """

    kind: CueKind | SignKind | WordKind
    direction: Direction = "forward"
    reach: int = Field(default=6, ge=0, le=60)
    strict: bool = False
    predicate: bool = False
    age: Literal["weeks", "months", "years"] | None = None
    items: tuple[int, ...] = ()
    phrases: tuple[str, ...]


class Case(Frozen):
    """A test message of a rule: plain text, or a conversation (patient and chatbot in turn)."""

    text: str | None = None
    turns: tuple[str, ...] = ()
    why: str | None = None


class Cases(Frozen):
    """`tests/<rule>.yaml`. A rule needs both where it fires and where it keeps quiet; `known_*` are recorded, not required."""

    fires: tuple[str | Case, ...] = Field(min_length=1)
    quiet: tuple[str | Case, ...] = Field(min_length=1)
    known_miss: tuple[str | Case, ...] = ()
    known_alarm: tuple[str | Case, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleCases:
    rule: str
    pack: str
    cases: Cases
    source: Source


@dataclass(slots=True)
class Loaded:
    """What came out of a folder: the knowledge and the cases of its rules."""

    knowledge: Knowledge
    cases: tuple[RuleCases, ...]
    folder: Path
    reply_cases: tuple[ReplyRuleCases, ...] = ()
    expired: tuple[Problem, ...] = ()
    """Overrides whose day has passed."""


@dataclass(slots=True)
class _Load:
    """State of one load."""

    folder: Path
    problems: list[Problem] = field(default_factory=list)
    hash: "object" = field(default_factory=sha256)

    def read(self, path: Path) -> Source | None:
        self.hash.update(path.relative_to(self.folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")  # type: ignore[attr-defined]  # hashlib's type is private
        return read(path, path.relative_to(self.folder.parent).as_posix(), self.problems)

    def each(self, folder: Path) -> Iterator[tuple[Path, Source]]:
        for path in sorted(folder.glob("*.yaml")):
            source = self.read(path)
            if source is not None:
                yield path, source


def shipped_rules() -> Path:
    """The packs that travel with the package: inside the wheel, or beside the package in a checkout."""
    inside = Path(__file__).parent.parent / "rules"
    return inside if inside.is_dir() else Path(__file__).parent.parent.parent / "rules"


def load(folder: Path, kept: Path | None = cache.USER_FOLDER, *, overrides: Path | None = None, today: date | None = None) -> Loaded:
    """Load and compile all packs of a folder; raises PackError with every problem found.

    `kept` is where compiled phrases are kept for the next start; None keeps none. `overrides` is a folder of overrides after those
    of the packs' own `overrides.d`; `today` decides which of them have expired.
    """
    if not (folder / "policy.yaml").is_file():
        raise PackError([Problem(str(folder), 1, 1, "is not a folder of rule packs: no policy.yaml in it", "name the rules folder")])
    # Loading makes a million small things that stay: looking among them for rubbish again and again is a third of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return _load(folder, kept, overrides, today or date.today())
    finally:
        if collecting:
            gc.enable()
        _give_back()


def _give_back() -> None:
    """Have the C library return what loading took and freed, ten megabytes; glibc does so only when asked."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _load(folder: Path, kept: Path | None, overrides_folder: Path | None, today: date) -> Loaded:
    state = _Load(folder)
    lists = _lists(state)
    texts, cue_groups, number_words, units = _languages(state)
    countries = _one_file(state, folder / "contacts.yaml", dict[str, Country]) or {}
    policy = _one_file(state, folder / "policy.yaml", Policy)
    concepts: dict[str, tuple[Concept, Source, str]] = {}
    rules: dict[str, tuple[NamedRule, Source]] = {}
    cases: list[RuleCases] = []
    packs: list[PackInfo] = []
    for manifest in sorted(folder.glob("*/pack.yaml")):
        if not is_reply_pack(manifest):
            _pack(state, manifest.parent, concepts, rules, cases, packs)
    overrides = _overrides(state, overrides_folder, rules, policy, countries, concepts, texts, today)
    if overrides is not None:
        policy, countries = overrides.policy, overrides.countries
        rules = {id_: (overrides.rules[id_], source) for id_, (_, source) in rules.items()}
    known_words = _known_words(folder)
    glossaries = _glossaries(state)
    phrases = [
        _Written(phrase, Entry({"not": "mask", "hints": "hint"}.get(str(path[0]), "concept"), name), source, (name, *path))
        for name, (concept, source, _) in concepts.items()
        for path, phrase in concept.all_phrases()
        if overrides is None or path[0] == "not" or (name, phrase) not in overrides.removed
    ]
    phrases += [_Written(a.phrase, Entry("concept", a.concept), a.source, a.path) for a in (overrides.added if overrides else ())]
    context = _context(cue_groups, lists, concepts, phrases)
    lexicon = _lexicon(phrases, lists, frozenset(number_words), known_words, kept, state.problems)
    _check_names(rules, concepts, texts, state.problems)
    if policy is not None:
        for tier, what in policy.tiers.items():
            if what.answer and DEFAULT_LANGUAGE in texts and what.answer not in texts[DEFAULT_LANGUAGE].answers:
                state.problems.append(Problem("rules/policy.yaml", 1, 1, f'tier {tier}: no answer text "{what.answer}" in English'))
    replies, reply_bytes = load_replies(folder, lists, number_words, known_words, texts, countries, state.problems)
    state.hash.update(reply_bytes)  # type: ignore[attr-defined]  # hashlib's type is private
    weights = folder / "scorer" / "weights.npz"
    scorer = None
    if weights.is_file():
        state.hash.update(weights.read_bytes())  # type: ignore[attr-defined]  # as above
        scorer = read_scorer(weights, weights.relative_to(folder.parent).as_posix(), state.problems)
    if state.problems or policy is None:
        raise PackError(state.problems)
    knowledge = Knowledge(
        revision=state.hash.hexdigest()[:16],  # type: ignore[attr-defined]  # hashlib's type is private
        lexicon=lexicon,
        context=context,
        rules=tuple(named for named, _ in rules.values()),
        answers=Answers(texts, countries),
        policy=policy,
        concepts={name: concept.title for name, (concept, _, _) in concepts.items()},
        medication_concepts=frozenset(name for name, (_, _, pack) in concepts.items() if pack == "medication"),
        packs=tuple(packs),
        scorer=scorer,
        languages=Languages(glossaries, known_words),
        quantities=Quantities(number_words, units),
        replies=replies.replies,
        overrides=tuple(overrides.infos) if overrides else (),
    )
    return Loaded(knowledge, tuple(cases), folder, replies.cases, tuple(overrides.expired) if overrides else ())


def _overrides(
    state: _Load,
    further: Path | None,
    rules: Mapping[str, tuple[NamedRule, Source]],
    policy: Policy | None,
    countries: Mapping[str, Country],
    concepts: Mapping[str, tuple[Concept, Source, str]],
    texts: Mapping[str, LanguageTexts],
    today: date,
) -> Overridden | None:
    """What the files of `overrides.d`, and those of a further folder, make of the packs; None where there are none."""
    sources = [source for _, source in state.each(state.folder / OVERRIDES)]
    if further is not None:
        if not further.is_dir():
            state.problems.append(Problem(str(further), 1, 1, "is not a folder of overrides", "make it, or take the setting out"))
        for path in sorted(further.glob("*.yaml")):
            name = f"{further.name}/{path.name}"
            state.hash.update(name.encode() + b"\0" + path.read_bytes() + b"\0")  # type: ignore[attr-defined]  # as above
            if (source := read(path, name, state.problems)) is not None:
                sources.append(source)
    if not sources or policy is None:
        return None
    phrases = {name: frozenset(p for path, p in c.all_phrases() if path[0] != "not") for name, (c, _, _) in concepts.items()}
    answers = frozenset(texts[DEFAULT_LANGUAGE].answers) if DEFAULT_LANGUAGE in texts else frozenset[str]()
    shipped = {id_: named for id_, (named, _) in rules.items()}
    found = apply(sources, shipped, policy, countries, phrases, answers, today, state.problems)
    state.hash.update(repr([info.state for info in found.infos]).encode())  # type: ignore[attr-defined]  # as above
    return found


@dataclass(frozen=True, slots=True)
class _Written:
    """A phrase with what it stands for, and where it was written."""

    phrase: str
    entry: Entry
    source: Source
    path: tuple[str | int, ...]


def _lexicon(
    phrases: Sequence[_Written],
    lists: Mapping[str, Sequence[str]],
    number_words: frozenset[str],
    known_words: frozenset[str],
    kept: Path | None,
    problems: list[Problem],
) -> Lexicon:
    """All phrases compiled, or as they were when the same were compiled before."""
    words = (" ".join(sorted(w)).encode() for w in (number_words, known_words))
    key = cache.key_of(*words, msgspec.msgpack.encode([lists, [(p.phrase, p.entry) for p in phrases]]))
    compiled = cache.read(kept, key)
    if compiled is not None:
        return Lexicon(compiled, number_words, known_words)
    builder = LexiconBuilder(lists, number_words, known_words)
    found = len(problems)
    for written in phrases:
        try:
            builder.add(written.phrase, written.entry)
        except PhraseError as error:
            name = str(error).split('"')[1] if str(error).startswith("unknown list") else ""
            near = nearest(name, lists) if name else None
            remedy = f'did you mean "{near}"?' if near else ""
            problems.append(written.source.problem(written.path, f'phrase "{written.phrase}": {error}', remedy))
    compiled = builder.compile()
    if len(problems) == found:
        cache.write(kept, key, compiled)
    return Lexicon(compiled, number_words, known_words)


def _context(
    groups: Mapping[str, tuple[CueGroup, Source]],
    lists: Mapping[str, Sequence[str]],
    concepts: Mapping[str, tuple[Concept, Source, str]],
    phrases: list[_Written],
) -> Context:
    """The cues to the phrases, single words into the vocabulary."""
    rules: dict[str, CueRule] = {}
    words: dict[str, set[str]] = {kind: set() for kind in get_args(WordKind)}
    for name, (group, source) in groups.items():
        if group.kind in words:
            for phrase in group.phrases:
                words[group.kind].update(lists.get(phrase[1:-1], ()) if phrase.startswith("{") else (phrase,))
            continue
        age = Age[group.age.upper()] if group.age else Age.EVER
        rules[name] = CueRule(group.kind, group.direction, group.reach, group.strict, group.predicate, age, group.items)  # type: ignore[arg-type]  # word kinds are handled above
        for i, phrase in enumerate(group.phrases):
            phrases.append(_Written(phrase, Entry("cue", name), source, (name.split(":", 1)[1], "phrases", i)))
    light = words["light"]
    return Context(
        rules,
        Vocabulary(
            light=frozenset(w for w in light if not w.startswith("-") or len(w) == 1),
            light_endings=tuple(sorted(w[1:] for w in light if w.startswith("-") and len(w) > 1)),
            any=frozenset(words["any"]),
            connectors=frozenset(words["or"]),
            own=frozenset(words["self"]),
            goes_on=frozenset(words["goes_on"]),
            pointing=frozenset(words["pointing"]),
            bare=frozenset(form for w in words["bare"] for form in (inflect(w[:-1]) if w.endswith("+") else (w,)) if " " not in w),
            pronouns=frozenset(words["pronoun"]),
            determiners=frozenset(words["determiner"]),
            possessives=frozenset(words["possessive"]),
            mirror={pair.split()[0]: pair.split()[1] for pair in sorted(words["mirror"])},
            lasts={name: Age[c.lasts.upper()] for name, (c, _, _) in concepts.items() if c.lasts},
            passing=frozenset(name for name, (c, _, _) in concepts.items() if c.passes),
        ),
    )


def _lists(state: _Load) -> dict[str, tuple[str, ...]]:
    lists: dict[str, tuple[str, ...]] = {}
    sources: dict[str, Source] = {}
    for _, source in state.each(state.folder / "lists"):
        found = validate(source, (), dict[str, tuple[str, ...]], state.problems)
        for name, items in (found or {}).items():
            if name in lists:
                state.problems.append(source.problem((name,), f'list "{name}" is already defined', "use one name"))
            lists[name] = items
            sources[name] = source
    return {name: _with_inner_lists(name, lists, sources, state.problems) for name in lists}


def _with_inner_lists(
    name: str, lists: Mapping[str, tuple[str, ...]], sources: Mapping[str, Source], problems: list[Problem], outer: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The items of a list, with those of the lists it names: `[aspirin, "{drug_nsaid}"]`. Each item once."""
    items: dict[str, None] = {}
    for i, item in enumerate(lists[name]):
        if not (item.startswith("{") and item.endswith("}")):
            items[item] = None
            continue
        inner = item[1:-1]
        if inner not in lists:
            near = nearest(inner, lists)
            problems.append(sources[name].problem((name, i), f'unknown list "{inner}"', f'did you mean "{near}"?' if near else "define it"))
        elif inner in (*outer, name):
            problems.append(sources[name].problem((name, i), f'list "{inner}" contains itself', "take one of the two out"))
        else:
            items.update(dict.fromkeys(_with_inner_lists(inner, lists, sources, problems, (*outer, name))))
    return tuple(items)


def _languages(
    state: _Load,
) -> tuple[dict[str, LanguageTexts], dict[str, tuple[CueGroup, Source]], dict[str, float], dict[str, tuple[str, ...]]]:
    texts: dict[str, LanguageTexts] = {}
    cues: dict[str, tuple[CueGroup, Source]] = {}
    number_words: dict[str, float] = {}
    units: dict[str, tuple[str, ...]] = {}
    for folder in sorted(p for p in (state.folder / "languages").iterdir() if p.is_dir()):
        if (found := _one_file(state, folder / "answers.yaml", LanguageTexts)) is not None:
            texts[folder.name] = found
        if (folder / "cues.yaml").is_file() and (source := state.read(folder / "cues.yaml")) is not None:
            groups = validate(source, (), dict[str, CueGroup], state.problems)
            for name, group in (groups or {}).items():
                cues[f"{folder.name}:{name}"] = (group, source)
        numbers = _one_file(state, folder / "numbers.yaml", dict[str, float])
        number_words.update(numbers or {})
        for slot, phrases in (_one_file(state, folder / "units.yaml", dict[str, tuple[str, ...]]) or {}).items():
            units[slot] = units.get(slot, ()) + phrases
    if DEFAULT_LANGUAGE not in texts:
        state.problems.append(
            Problem("rules/languages/en/answers.yaml", 1, 1, "is missing", "English texts are the fallback of all others")
        )
    return texts, cues, number_words, units


def _glossaries(state: _Load) -> dict[str, Glossary]:
    """`languages/*/glossary.tsv`: a word or short phrase, a tab, its English; lines that begin with # are remarks."""
    out: dict[str, Glossary] = {}
    for path in sorted((state.folder / "languages").glob("*/glossary.tsv")):
        content = path.read_bytes()
        state.hash.update(content)  # type: ignore[attr-defined]  # hashlib's type is private
        name = path.relative_to(state.folder.parent).as_posix()
        entries: dict[tuple[str, ...], tuple[str, ...]] = {}
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            word, tab, english = line.partition("\t")
            words, meaning = tuple(tokenize(word).words), tuple(tokenize(english).words)
            if not tab or not words or not meaning:
                state.problems.append(Problem(name, number, 1, f'"{line}" is no entry', "write the word, a tab, its English"))
            else:
                entries.setdefault(words, meaning)
        out[path.parent.name] = entries
    return out


def _one_file(state: _Load, path: Path, shape: type[T]) -> T | None:
    if not path.is_file():
        return None
    source = state.read(path)
    return None if source is None else validate(source, (), shape, state.problems)


def _pack(
    state: _Load,
    folder: Path,
    concepts: dict[str, tuple[Concept, Source, str]],
    rules: dict[str, tuple[NamedRule, Source]],
    cases: list[RuleCases],
    packs: list[PackInfo],
) -> None:
    source = state.read(folder / "pack.yaml")
    pack = validate(source, (), Pack, state.problems) if source else None
    if source and pack and pack.engine > ENGINE:
        state.problems.append(source.problem(("engine",), f"needs engine {pack.engine}, this is {ENGINE}", "upgrade Guardrail"))
    for _, source in state.each(folder / "concepts"):
        for name, concept in (validate(source, (), _CONCEPTS, state.problems) or {}).items():
            if name in concepts:
                state.problems.append(
                    source.problem((name,), f'concept "{name}" is already defined in {concepts[name][1].name}', "use one name")
                )
            concepts[name] = (concept, source, folder.name)
    tests = {p.stem: (p, s) for p, s in state.each(folder / "tests")}
    count = 0
    for path, source in state.each(folder / "rules"):
        rule = validate(source, (), Rule, state.problems)
        if path.stem in rules:
            state.problems.append(
                source.problem((), f'rule "{path.stem}" is already defined in {rules[path.stem][1].name}', "rename the newer one")
            )
        test = tests.pop(path.stem, None)
        if test is None:
            state.problems.append(source.problem((), "has no test file", f"add {folder.name}/tests/{path.name} with fires and quiet cases"))
        elif (found := validate(test[1], (), Cases, state.problems)) is not None:
            cases.append(RuleCases(path.stem, folder.name, found, test[1]))
        if rule is not None:
            rules[path.stem] = (NamedRule(path.stem, folder.name, rule), source)
            count += 1
    for path, source in tests.values():
        state.problems.append(source.problem((), f'there is no rule "{path.stem}"', "name the test file like its rule"))
    if pack is not None:
        reviewed = f"{pack.reviewed.by}, {pack.reviewed.on}" if pack.reviewed else None
        packs.append(PackInfo(folder.name, pack.title, pack.version, reviewed, count))


_CONCEPTS: TypeAdapter[dict[str, Concept]] = TypeAdapter(dict[str, Concept])


def _check_names(
    rules: Mapping[str, tuple[NamedRule, Source]],
    concepts: Mapping[str, object],
    texts: Mapping[str, LanguageTexts],
    problems: list[Problem],
) -> None:
    known = set(concepts) | BUILT_IN_CONCEPTS
    english = texts.get(DEFAULT_LANGUAGE)
    for named, source in rules.values():
        for name in dict.fromkeys(named_findings(named.rule.when)):
            if name not in known:
                near = nearest(name, known)
                place = next((p for p in source.places if p and _at(source.data, p) == name), ("when",))
                problems.append(
                    source.problem(
                        place, f'unknown concept "{name}"', f'did you mean "{near}"?' if near else "define it in a concepts file"
                    )
                )
        answer = named.rule.answer
        if answer and english and answer not in english.answers:
            near = nearest(answer, english.answers)
            problems.append(
                source.problem(("answer",), f'no answer text "{answer}" in English', f'did you mean "{near}"?' if near else "add it")
            )


def _at(data: object, path: Sequence[str | int]) -> object:
    for step in path:
        data = data[step]  # type: ignore[index]  # the path was recorded from this very data
    return data


def _known_words(folder: Path) -> frozenset[str]:
    """Ordinary words, names of people and places: never taken for a misspelt symptom or medicine."""
    return frozenset(word for path in (folder / "lists").glob("*.txt") for word in path.read_text(encoding="utf-8").split())
