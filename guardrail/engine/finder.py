"""Phrases of all packs in compiled form, and how they are found in a text.

Cost follows the text and hardly the number of phrases. Phrases that can be written out in a few ways, and items of lists,
stand in a tree of words and are found as the words are read. Any other phrase is filed under a pair: a word of the part
that fewest phrases use, and a word of its next rarest part. Only where both stand in the text, as far apart as the phrase allows, and
the other parts it cannot do without as well, is it matched word for word from where it could begin.

`_finder.pyx` is the same in compiled code, over tables of numbers; which of the two runs is decided in `compiled`.
How the compiled form is made: `lexicon`. What a match means (negated, someone else's, long ago): `context`.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct

from guardrail.engine.normalize import STOPS

NUMBER = 0  # symbol of any number
WINDOW = 96  # tokens that are looked at together: pairs of words far apart are not worth asking for

Key = int
"""What a text can hold, by number: a word, or an item of a list."""
_NO_KEY = -1
Spans = tuple[tuple[int, int], ...]


class Entry(Struct, frozen=True, gc=False):
    """What a phrase stands for.

    `kind` is concept, hint (a concept too loosely put to count alone), mask (hides overlapping mentions of that concept) or cue.
    """

    kind: str
    name: str


class Mention(Struct, frozen=True, gc=False):
    """An entry found at tokens `first` up to but not including `after`."""

    entry: Entry
    first: int
    after: int
    gaps: Spans = ()
    """The tokens inside that are not its own: what a `...` or `&` stood for."""


class Node(Struct, frozen=True, array_like=True, gc=False):
    """A state of one phrase: what may stand next, each with the number of the state behind it.

    `words` are classes that take one token, `lists` take as many as the list's item has.
    """

    words: tuple[tuple[int, int], ...] = ()
    lists: tuple[tuple[Key, int], ...] = ()
    gaps: tuple[tuple[int, int], ...] = ()
    accepts: bool = False


_Found = tuple[int, int, int, int, Spans]
"""First token, token after it negated, number of the entry, words in gaps, gaps: in this order the best of equals comes first."""
Near = tuple[int, int, int]
"""A class by number, and where a word of it has to stand from the anchor: the nearest place and the farthest, negative to the left."""


class Phrase(Struct, frozen=True, array_like=True, gc=False):
    """A compiled sequence. `near` are the parts it needs beside the pair it is filed under, last what it may begin with.

    Nothing is near when only the pair is needed and the phrase begins with the first of the two.
    """

    entry: int
    start: int
    near: tuple[Near, ...]


Filed = tuple[tuple[int, int, tuple[int, ...]], ...]
"""Under a pair: how far the second may stand from the first, least and most, and the phrases. One part alone is paired with itself."""


class WordNode(Struct, array_like=True, gc=False):
    """A place in the tree of words. What ends here: items of lists, and whole phrases, by the number of their entry."""

    next: dict[Key, "WordNode"] | None = None
    lists: tuple[Key, ...] = ()
    entries: tuple[int, ...] = ()


class Compiled(Struct, frozen=True):
    """All phrases as plain data, so that they can be kept and read back."""

    keys: dict[str, Key]
    """Of every word that a phrase or list uses."""
    entries: list[Entry]
    tree: dict[Key, WordNode]
    plain: dict[Key, tuple[int, ...]]
    """Lists that are phrases by themselves, with their entries."""
    pairs: dict[Key, dict[Key, int]]
    """First and second word of a pair, with its place in `filed`."""
    filed: list[Filed]
    phrases: list[Phrase]
    nodes: list[Node]
    classes: list[frozenset[Key]]
    longest: int
    """Tokens of the longest phrase."""


@dataclass(slots=True)
class _Text:
    """One text, prepared: its words as the lexicon spells them, and the items of lists that begin at each."""

    words: list[str]
    keys: list[Key]
    owners: dict[int, Key]
    """Places of words such as "knee's", with the word that owns."""
    arcs: list[list[tuple[Key, int]]]
    found: list[_Found]


class Finder:
    """Finds the phrases of one lexicon in texts."""

    def __init__(self, compiled: Compiled, number_words: frozenset[str]) -> None:
        self._compiled = compiled
        self._number_words = number_words

    def find(self, words: list[str]) -> list[Mention]:
        """All mentions in words as the lexicon spells them, masked ones removed, in order of place."""
        text = self._prepare(words)
        for first in range(0, len(words), WINDOW):
            self._find_in(text, first, first + WINDOW)
        return self._settle(text.found)

    def _prepare(self, words: list[str]) -> _Text:
        """Walk the tree of words from each word: that finds list items, and phrases that are one."""
        key_of = self._compiled.keys
        keys = [key_of.get(w, _NO_KEY) for w in words]
        owners = {i: key_of[w[:-2]] for i, w in enumerate(words) if w.endswith("'s") and w[:-2] in key_of}
        found: list[_Found] = []
        arcs: list[list[tuple[Key, int]]] = []
        tree, plain, count, number_words = self._compiled.tree, self._compiled.plain, len(words), self._number_words
        for i, word in enumerate(words):
            here: list[tuple[Key, int]] = []
            if word in number_words or word[0].isdigit():
                here.append((NUMBER, i + 1))
            ways = [(tree.get(keys[i]), i + 1, True)]
            if i in owners:
                ways.append((tree.get(owners[i]), i + 1, True))
            for node, after, listed in ways:
                while node is not None:
                    for entry in node.entries:
                        found.append((i, -after, entry, 0, ()))
                    if listed:
                        for name in node.lists:
                            here.append((name, after))
                            for entry in plain.get(name, ()):
                                found.append((i, -after, entry, 0, ()))
                    if after >= count or not node.next:
                        break
                    if after in owners:  # "last night's" says "last night"; but an item of a list is owned by its first word only
                        ways.append((node.next.get(owners[after]), after + 1, False))
                    node = node.next.get(keys[after])
                    after += 1
            arcs.append(here)
        return _Text(words, keys, owners, arcs, found)

    def _find_in(self, text: _Text, first: int, limit: int) -> None:
        """Find the phrases of several parts that begin at tokens from `first` up to but not including `limit`."""
        compiled = self._compiled
        places = _places(text, first, limit + compiled.longest)
        here = places.keys()
        pairs, filed, all_phrases = compiled.pairs, compiled.filed, compiled.phrases
        classes: dict[int, list[int]] = {}
        tried: set[tuple[int, int]] = set()
        for key in here & pairs.keys():
            under = pairs[key]
            standing = places[key]
            for need in here & under.keys():
                there = places[need]
                for low, high, phrases in filed[under[need]]:
                    for anchor in standing:
                        for other in there:
                            if low <= other - anchor <= high:
                                break
                        else:
                            continue
                        for number in phrases:
                            if (number, anchor) not in tried:
                                tried.add((number, anchor))
                                phrase = all_phrases[number]
                                for start in self._starts(phrase, anchor, places, classes) if phrase.near else (anchor,):
                                    if start < limit:
                                        self._match(phrase, start, text)

    def _starts(self, phrase: Phrase, anchor: int, places: Mapping[Key, list[int]], classes: dict[int, list[int]]) -> list[int]:
        """Where the phrase could begin; nowhere when it lacks a part."""
        starts: list[int] = []
        for number, low, high in phrase.near:
            standing = classes.get(number)
            if standing is None:
                standing = classes[number] = [i for key in places.keys() & self._compiled.classes[number] for i in places[key]]
            starts = [i for i in standing if low <= i - anchor <= high]
            if not starts:
                break
        return starts

    def _match(self, phrase: Phrase, first: int, text: _Text) -> None:
        """Add every way the phrase matches from token `first`."""
        keys, owners, arcs = text.keys, text.owners, text.arcs
        nodes, classes = self._compiled.nodes, self._compiled.classes
        count = len(keys)
        stack: list[tuple[int, int, Spans]] = [(phrase.start, first, ())]
        while stack:
            number, place, gaps = stack.pop()
            node = nodes[number]
            # A gap with nothing behind it (what follows is optional) is no part of the mention; the match without it stands.
            if node.accepts and not (gaps and gaps[-1][1] == place):
                text.found.append((first, -place, phrase.entry, sum(b - a for a, b in gaps), gaps))
            if place >= count:
                continue
            key = keys[place]
            for accepted, after in node.words:
                if key in classes[accepted] or (owners and owners.get(place, _NO_KEY) in classes[accepted]):
                    stack.append((after, place + 1, gaps))
            if node.lists:
                for name, end in arcs[place]:
                    for wanted, after in node.lists:
                        if wanted == name:
                            stack.append((after, end, gaps))
            for reach, after in node.gaps:
                # Zero words first; the words skipped may not end a sentence.
                for place2 in range(place, min(place + reach, count - 1) + 1):
                    stack.append((after, place2, (*gaps, (place, place2)) if place2 > place else gaps))
                    if text.words[place2] in STOPS:
                        break

    def _settle(self, found: list[_Found]) -> list[Mention]:
        """Drop what a mask covers, and of nested mentions of one entry keep the longest."""
        entries = self._compiled.entries
        masks: dict[str, list[tuple[int, int]]] = {}
        for first, after, number, _, _ in found:
            if entries[number].kind == "mask":
                masks.setdefault(entries[number].name, []).append((first, -after))
        kept: list[Mention] = []
        reach: dict[int, int] = {}
        # Of two that are equally long the one that says more of it itself comes first: what a gap holds may deny it.
        for first, after, number, _, gaps in sorted(found):
            after = -after
            if after <= reach.get(number, 0):
                continue
            entry = entries[number]
            if entry.kind == "mask" or (masks and any(a <= first and after <= b for a, b in masks.get(entry.name, ()))):
                continue
            reach[number] = after
            kept.append(Mention(entry, first, after, gaps))
        return kept


def _places(text: _Text, first: int, limit: int) -> dict[Key, list[int]]:
    """For each word, owner and list the tokens where it stands, from `first` up to but not including `limit`."""
    places: defaultdict[Key, list[int]] = defaultdict(list)
    keys, arcs = text.keys, text.arcs
    for i in range(first, min(limit, len(keys))):
        places[keys[i]].append(i)
        for name, _ in arcs[i]:
            places[name].append(i)
    for i, owner in text.owners.items():
        if first <= i < limit:
            places[owner].append(i)
    return places
