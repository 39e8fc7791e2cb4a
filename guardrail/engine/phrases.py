"""The grammar of phrases: what an author writes, as a tree.

A phrase is written the way a patient would say it, with classes where the words vary:

    {chest} ... {pain}            a word of list `chest`, up to four other words, a word of list `pain`
    {pain} & {chest}              both, in either order, within five words
    (my|the)? heart racing        alternatives, and an optional part
    (back of (my|his)? head|{neck}) alternatives may hold groups, lists and gaps
    vomit+ blood                  vomit, vomits, vomited, vomiting
    {number} tablets              any number, in digits or words

Lists may hold several words an item.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from guardrail.engine.normalize import fold, tokenize

GAP = 4  # words a `...` may stand for; five lets "pain ... chest" join across clauses in dictated text
EITHER_ORDER_GAP = 5
_MARK = re.compile(r"\{\w+\}|\.\.\.|[()&?|]|[^\s{}()&?|]+")
_VOWELS = "aeiou"


class PhraseError(ValueError):
    """A phrase that cannot be compiled; the message says why."""


@dataclass(frozen=True, slots=True)
class Items:
    """One of some words or word sequences."""

    items: tuple[str, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """One item of a list."""

    name: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """One of some sequences."""

    alternatives: tuple["Sequence_", ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """Up to `reach` words of any kind."""

    reach: int


Element = Items | Listed | Group | Gap
Sequence_ = tuple[Element, ...]


def parse(phrase: str) -> tuple[Sequence_, ...]:
    """A phrase as its sequences: one, or two where `&` allows either order."""
    marks = _marks(phrase)
    sides = [_sequence(marks, phrase)]
    while marks and marks[-1] == "&":
        marks.pop()
        sides.append(_sequence(marks, phrase))
    if not all(_required(side) for side in sides):
        raise PhraseError("needs at least one word that is not optional" + (" on each side of &" if len(sides) > 1 else ""))
    if any(isinstance(side[0], Gap) or isinstance(side[-1], Gap) for side in sides):
        raise PhraseError("cannot begin or end with ...")
    if len(sides) == 1:
        return (sides[0],)
    if len(sides) > 2:
        raise PhraseError("has more than one &")
    between = (Gap(EITHER_ORDER_GAP),)
    return (sides[0] + between + sides[1], sides[1] + between + sides[0])


def _required(sequence: Sequence_) -> bool:
    return any(not isinstance(e, Gap) and not e.optional for e in sequence)


def _marks(phrase: str) -> list[str]:
    """The marks of a phrase, last first."""
    marks: list[str] = []
    place = 0
    for found in _MARK.finditer(phrase):
        if phrase[place : found.start()].strip():
            raise PhraseError(f'cannot read "{phrase[place : found.start()].strip()}"')
        place = found.end()
        marks.append(found[0])
    if phrase[place:].strip():
        raise PhraseError(f'cannot read "{phrase[place:].strip()}"')
    marks.reverse()
    return marks


def _sequence(marks: list[str], phrase: str, ends: tuple[str, ...] = ("&",)) -> Sequence_:
    """Reads up to one of the ends. Inside a group `&` is a word like any other."""
    elements: list[Element] = []
    while marks and marks[-1] not in ends:
        mark = marks.pop()
        if mark in ("|", ")"):
            raise PhraseError(f'unexpected "{mark}"')
        if mark == "?":
            raise PhraseError("a ? stands directly behind what is optional")
        if mark == "...":
            elements.append(Gap(GAP))
            continue
        alternatives = _alternatives(marks, phrase) if mark == "(" else ()
        optional = bool(marks) and marks[-1] == "?"
        if optional:
            marks.pop()
        if mark == "(":
            elements.append(_group(alternatives, optional))
        elif mark.startswith("{"):
            elements.append(Listed(mark[1:-1], optional))
        else:
            elements.append(Items((mark,), optional))
    return tuple(elements)


def _alternatives(marks: list[str], phrase: str) -> tuple[Sequence_, ...]:
    """The alternatives of a group whose opening mark is read."""
    alternatives: list[Sequence_] = []
    while True:
        sequence = _sequence(marks, phrase, ("|", ")"))
        if not sequence:
            raise PhraseError(f'empty alternative in "{phrase}"')
        alternatives.append(sequence)
        mark = marks.pop() if marks else ""
        if mark == ")":
            return tuple(alternatives)
        if not mark:
            raise PhraseError("a ( is never closed")


def _group(alternatives: Sequence[Sequence_], optional: bool) -> Element:
    """A group of plain words is one class of words; anything else stays a group."""
    items: list[str] = []
    others: list[Sequence_] = []
    for sequence in alternatives:
        if all(isinstance(e, Items) and len(e.items) == 1 and not e.optional for e in sequence):
            items.append(" ".join(e.items[0] for e in sequence if isinstance(e, Items)))
        else:
            others.append(sequence)
    if not others:
        return Items(tuple(dict.fromkeys(items)), optional)
    if items:
        others.insert(0, (Items(tuple(dict.fromkeys(items))),))
    if not all(_required(s) for s in others):
        raise PhraseError("an alternative needs at least one word that is not optional")
    return Group(tuple(others), optional)


def inflect(word: str) -> tuple[str, ...]:
    """Regular English forms: vomit -> vomit, vomits, vomited, vomiting. Irregular ones are listed by the author."""
    forms = [word]
    if word.endswith(("s", "sh", "ch", "x", "z")):
        forms.append(word + "es")
    elif word.endswith("y") and word[-2:-1] not in _VOWELS:
        forms.append(word[:-1] + "ies")
    else:
        forms.append(word + "s")
    if word.endswith("e"):
        forms += [word + "d", word[:-1] + "ing", word[:-1] + "in"]
    elif word.endswith("y") and word[-2:-1] not in _VOWELS:
        forms += [word[:-1] + "ied", word + "ing", word + "in"]
    else:
        forms += [word + "ed", word + "ing", word + "in"]
        one_vowel = len(word) > 2 and word[-1] not in _VOWELS + "wxy" and word[-2] in _VOWELS and word[-3] not in _VOWELS
        if one_vowel:
            forms += [word + word[-1] + "ed", word + word[-1] + "ing", word + word[-1] + "in"]
    return tuple(forms)


def spell_out(item: str) -> tuple[tuple[str, ...], ...]:
    """An item of a list as sequences of folded words; `word+` gives one sequence a form."""
    if item.isascii() and item.isalpha():  # most items; the general way costs ten times as much
        return ((item.lower(),),)
    return _spelled_out(item)


@lru_cache(maxsize=1 << 16)
def _spelled_out(item: str) -> tuple[tuple[str, ...], ...]:
    sequences: list[tuple[str, ...]] = [()]
    for part in item.split():
        forms = inflect(fold(part[:-1])) if len(part) > 2 and part.endswith("+") else (fold(part),)
        spelled = [tuple(tokenize(f).words) for f in forms]
        sequences = [s + f for s in sequences for f in spelled]
    return tuple(sequences)


def without_apostrophes(words: Sequence[str], known: frozenset[str]) -> Iterator[list[str]]:
    """As written, and "can't" also as "cant", unless that is another word in use ("we're" / "were"; nobody means the slope "cant")."""
    yield list(words)
    if any("'" in w for w in words):
        joined = [w.replace("'", "") for w in words]
        if not any(j != w and j in known and not w.endswith("n't") for j, w in zip(joined, words, strict=True)):
            yield joined
