"""Advice on packs that load: what is allowed, and yet probably not meant, or no longer true.

Errors are `load`'s; here nothing is wrong enough to stop. Each check is a small function over the parsed files of a folder, and each
piece of advice has its place. Judges wording and upkeep, not medicine.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from guardrail.errors import Problem
from guardrail.packs.load import Loaded
from guardrail.packs.source import Source, read

HARDEST_GRADE = 6.0
"""US school grade that a text may need; patient information is commonly asked to stay at 6."""
SHORTEST_TEXT = 10
"""Words below which a grade says nothing: one long word would decide it."""
CONTACT_MONTHS = 12
"""Numbers change; one not looked up for a year is advised to be checked."""
FEWEST_CASES = 3
_LIST = re.compile(r"\{([\w.-]+)\}")
_SLOT = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"[A-Za-z']+")
_SENTENCE = re.compile(r"[.!?:]+(?:\s|$)")


@dataclass(frozen=True, slots=True)
class _Files:
    """The parsed files of a folder, by what they are; keys are pack names or languages."""

    lists: tuple[Source, ...]
    answers: Mapping[str, Source]
    cues: tuple[Source, ...]
    contacts: Source | None
    packs: Mapping[str, Source]
    concepts: tuple[Source, ...]
    rules: Mapping[str, Source]
    others: tuple[Source, ...]
    """Reply rules and whatever else may use lists."""


def advise(loaded: Loaded, today: date | None = None) -> Iterator[Problem]:
    """Every piece of advice on these packs, in no order."""
    files = _read_files(loaded.folder)
    today = today or date.today()
    for check in _CHECKS:
        yield from check(files, loaded, today)


def reading_grade(text: str) -> float:
    """Flesch-Kincaid grade of an English text: the school year whose pupils can read it."""
    words = _WORD.findall(_SLOT.sub("them", text))
    if not words:
        return 0.0
    sentences = max(len(_SENTENCE.findall(text.strip() + " ")), 1)
    return 0.39 * len(words) / sentences + 11.8 * sum(map(_syllables, words)) / len(words) - 15.59


def _syllables(word: str) -> int:
    """Groups of vowels; a silent e at the end does not count. Good enough for a mean over a text."""
    word = word.lower().strip("'")
    groups = len(re.findall(r"[aeiouy]+", word))
    if word.endswith("e") and not word.endswith(("le", "ee")) and groups > 1:
        groups -= 1
    return max(groups, 1)


def _read_files(folder: Path) -> _Files:
    def one(path: Path) -> Source | None:
        return read(path, path.relative_to(folder.parent).as_posix(), []) if path.is_file() else None

    def every(pattern: str) -> dict[Path, Source]:
        return {
            path: source for path in sorted(folder.glob(pattern)) if (source := one(path)) is not None and isinstance(source.data, dict)
        }

    concepts = every("*/concepts/*.yaml")
    rules = every("*/rules/*.yaml")
    known = {*concepts, *rules, *every("lists/*.yaml"), *every("*/tests/*.yaml"), *every("languages/*/*.yaml")}
    return _Files(
        lists=tuple(every("lists/*.yaml").values()),
        answers={path.parent.name: source for path, source in every("languages/*/answers.yaml").items()},
        cues=tuple(every("languages/*/cues.yaml").values()),
        contacts=one(folder / "contacts.yaml"),
        packs={path.parent.name: source for path, source in every("*/pack.yaml").items()},
        concepts=tuple(concepts.values()),
        rules={path.stem: source for path, source in rules.items()},
        others=tuple(source for path, source in every("**/*.yaml").items() if path not in known),
    )


def _hard_texts(files: _Files, loaded: Loaded, today: date) -> Iterator[Problem]:
    source = files.answers.get("en")
    for part in ("answers", "disclaimers", "notices"):
        for key, text in (source.data.get(part) or {}).items() if source else ():
            grade = reading_grade(str(text))
            if source and grade > HARDEST_GRADE and len(_WORD.findall(str(text))) >= SHORTEST_TEXT:
                yield source.problem((part, key), f"needs school grade {grade:.0f} to be read", "use shorter sentences and plainer words")


def _missing_translations(files: _Files, loaded: Loaded, today: date) -> Iterator[Problem]:
    english = files.answers.get("en")
    for language, source in files.answers.items():
        if english is None or language == "en":
            continue
        for part in ("answers", "disclaimers", "notices"):
            missing = sorted(set(english.data.get(part) or ()) - set(source.data.get(part) or ()))
            if missing:
                yield source.problem((part,), f"has no {part} {', '.join(missing)}: they are shown in English", "translate them")


def _old_packs(files: _Files, loaded: Loaded, today: date) -> Iterator[Problem]:
    for source in files.packs.values():
        expires = _day(source.data.get("expires"))
        if expires is not None and expires < today:
            yield source.problem(("expires",), f"expired on {expires}", "have it reviewed again")


def _old_overrides(files: _Files, loaded: Loaded, today: date) -> Iterator[Problem]:
    yield from loaded.expired


def _old_contacts(files: _Files, loaded: Loaded, today: date) -> Iterator[Problem]:
    if files.contacts is None:
        return
    oldest = today - timedelta(days=CONTACT_MONTHS * 30.5)
    for path, value in _walk(files.contacts.data):
        if path and path[-1] == "checked" and (day := _day(value)) is not None and day < oldest:
            yield files.contacts.problem(path, f"was last checked on {day}", "look the number up again and date it")


def _unused_concepts(files: _Files, loaded: Loaded, today: date) -> Iterator[Problem]:
    used = {str(value) for source in (*files.rules.values(), *files.others) for _, value in _walk(source.data) if isinstance(value, str)}
    for source in files.concepts:
        for name in source.data:
            if name not in used:
                yield source.problem((name,), f'no rule uses the concept "{name}"', "use it or remove it")


def _unused_lists(files: _Files, loaded: Loaded, today: date) -> Iterator[Problem]:
    everything = (*files.lists, *files.cues, *files.concepts, *files.others)
    used = {name for source in everything for _, value in _walk(source.data) if isinstance(value, str) for name in _LIST.findall(value)}
    for source in files.lists:
        for name in source.data:
            if name not in used:
                yield source.problem((name,), f'no phrase uses the list "{name}"', "use it or remove it")


def _negated_conditions(files: _Files, loaded: Loaded, today: date) -> Iterator[Problem]:
    for source in files.rules.values():
        for path, _ in _walk(source.data, inner=True):
            if path and path[-1] == "not":
                yield source.problem(
                    path, "uses a not condition, so more text can lower the decision", "put the exception into the concept"
                )


def _repeated_phrases(files: _Files, loaded: Loaded, today: date) -> Iterator[Problem]:
    """The same phrase twice in one concept, or both in a concept and in its exceptions."""
    for source in files.concepts:
        for name, concept in source.data.items():
            if not isinstance(concept, dict):
                continue
            seen: dict[str, tuple[str | int, ...]] = {}
            for path, value in _walk({k: concept.get(k) for k in ("phrases", "not")}):
                if not isinstance(value, str):
                    continue
                key = " ".join(value.casefold().split())
                if key in seen:
                    line = source.place((name, *seen[key]))[0]
                    masked = path[0] == "not" and seen[key][0] == "phrases"
                    why = (
                        f'the exception "{value}" hides the phrase of line {line}' if masked else f'"{value}" stands already in line {line}'
                    )
                    yield source.problem((name, *path), why, "remove one")
                seen.setdefault(key, path)


def _few_cases(files: _Files, loaded: Loaded, today: date) -> Iterator[Problem]:
    for rule_cases in loaded.cases:
        for kind, cases in (("fires", rule_cases.cases.fires), ("quiet", rule_cases.cases.quiet)):
            if len(cases) < FEWEST_CASES:
                yield rule_cases.source.problem(
                    (kind,), f"has only {len(cases)} cases", f"add some to make {FEWEST_CASES}, in different voices"
                )


def _unsourced_rules(files: _Files, loaded: Loaded, today: date) -> Iterator[Problem]:
    for source in files.rules.values():
        if not source.data.get("sources"):
            yield source.problem(("sources",), "cites no source", "name where the rule comes from")


_CHECKS: Sequence[Callable[[_Files, Loaded, date], Iterator[Problem]]] = (
    _hard_texts,
    _missing_translations,
    _old_packs,
    _old_overrides,
    _old_contacts,
    _unused_concepts,
    _unused_lists,
    _negated_conditions,
    _repeated_phrases,
    _few_cases,
    _unsourced_rules,
)


def _walk(data: Any, path: tuple[str | int, ...] = (), inner: bool = False) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every leaf with its path; with `inner` every mapping and list too."""
    children: Any = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else None
    if children is None or inner:
        yield path, data
    for step, value in children or ():
        yield from _walk(value, (*path, step), inner)


def _day(value: object) -> date | None:
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        return None
