"""Phrases of all packs, compiled once; finds every mention in a text. The grammar is in `phrases`.

Cost follows the text and hardly the number of phrases. Phrases that can be written out in a few ways, and items of lists,
stand in a tree of words and are found as the words are read. Any other phrase is filed under a pair: a word of the part
that fewest phrases use, and a word of its next rarest part. Only where both stand in the text, as far apart as the phrase allows, and
the other parts it cannot do without as well, is it matched word for word from where it could begin.

What a match means (negated, someone else's, long ago) is not decided here: see `context`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from guardrail.engine.normalize import STOPS, Tokens
from guardrail.engine.phrases import (
    EITHER_ORDER_GAP,
    GAP,
    Element,
    Gap,
    Group,
    Items,
    Listed,
    PhraseError,
    Sequence_,
    inflect,
    parse,
    spell_out,
    without_apostrophes,
)
from guardrail.engine.spelling import Speller

NUMBER = 0  # symbol of any number

__all__ = ["EITHER_ORDER_GAP", "GAP", "Entry", "Lexicon", "LexiconBuilder", "Mention", "PhraseError", "inflect"]

Key = str | int
"""What a text can hold: a word, or the symbol of a list."""
Spans = tuple[tuple[int, int], ...]


class Entry(Struct, frozen=True, gc=False):
    """What a phrase stands for.

    `kind` is concept, hint (a concept too loosely put to count alone), mask (hides overlapping mentions of that concept) or cue.
    """

    kind: str
    name: str


class Mention(Struct, frozen=True):
    """An entry found at tokens `first` up to but not including `after`."""

    entry: Entry
    first: int
    after: int
    gaps: Spans = ()
    """The tokens inside that are not its own: what a `...` or `&` stood for."""


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    """A state of one phrase: what may stand next. `words` take one token, `symbols` as many as the list's item has."""

    words: tuple[tuple[frozenset[str], "_Node"], ...] = ()
    symbols: tuple[tuple[int, "_Node"], ...] = ()
    gaps: tuple[tuple[int, "_Node"], ...] = ()
    accepts: bool = False


_END = _Node(accepts=True)

_Found = tuple[int, int, int, int, Spans]
"""First token, token after it negated, number of the entry, words in gaps, gaps: in this order the best of equals comes first."""
_Near = tuple[int, int, int]
"""A class by number, and where a word of it has to stand from the anchor: the nearest place and the farthest, negative to the left."""
_FEW_WAYS = 32  # more would make the tree large, and most phrases have fewer
_WINDOW = 48  # tokens that are looked at together: pairs of words far apart are not worth asking for


@dataclass(frozen=True, slots=True, eq=False)
class _Phrase:
    """A compiled sequence. `near` are the parts it needs beside the pair it is filed under, last what it may begin with.

    Nothing is near when only the pair is needed and the phrase begins with the first of the two.
    """

    entry: int
    start: _Node
    near: tuple[_Near, ...]


_Filed = tuple[tuple[int, int, tuple[_Phrase, ...]], ...]
_Pairs = Mapping[Key, _Filed]
"""Under the second word of a pair: how far it may stand from the first, and the phrases. What needs one part is paired with itself."""


@dataclass(slots=True)
class _WordNode:
    """A place in the tree of words. What ends here: items of lists, by symbol, and whole phrases, by the number of their entry."""

    next: dict[str, "_WordNode"] = field(default_factory=dict)
    symbols: tuple[int, ...] = ()
    entries: tuple[int, ...] = ()


@dataclass(slots=True)
class _Text:
    """One text, prepared: its words as the lexicon spells them, and the items of lists that begin at each."""

    words: list[str]
    owners: dict[int, str]
    """Places of words such as "knee's", with the word that owns."""
    arcs: list[list[tuple[int, int]]]
    found: list[_Found]


class Lexicon:
    """The compiled phrases. Build with `LexiconBuilder`; immutable in use."""

    def __init__(
        self,
        entries: Sequence[Entry],
        pairs: Mapping[Key, _Pairs],
        classes: Sequence[frozenset[Key]],
        longest: int,
        heads: Mapping[str, _WordNode],
        plain: Sequence[Sequence[int]],
        words: frozenset[str],
        number_words: frozenset[str],
        known: frozenset[str],
    ) -> None:
        self._entries = entries
        self._pairs = pairs
        self._classes = classes
        self._longest = longest
        self._heads = heads
        self._plain = plain
        self._number_words = number_words
        self._words = words
        self._speller = Speller(words, known)

    def respell(self, word: str) -> str:
        """The lexicon word an unknown word was probably meant to be, or the word itself."""
        return self._speller.respell(word)

    def find(self, tokens: Tokens) -> list[Mention]:
        """All mentions, masked ones removed, in order of place."""
        text = self._prepare(tokens.words)
        for first in range(0, len(text.words), _WINDOW):
            self._find_in(text, first, first + _WINDOW)
        return self._settle(text.found)

    def _prepare(self, written: Sequence[str]) -> _Text:
        """Respell the words, and walk the tree of words from each: that finds list items, and phrases that are one."""
        lexical, respell = self._words, self._speller.respell
        words = [w if w in lexical or len(w) < 3 else respell(w) for w in written]
        owners = {i: w[:-2] for i, w in enumerate(words) if w.endswith("'s") and w[:-2] in lexical}
        found: list[_Found] = []
        arcs: list[list[tuple[int, int]]] = []
        heads, plain, count, number_words = self._heads, self._plain, len(words), self._number_words
        for i, word in enumerate(words):
            here: list[tuple[int, int]] = []
            if word in number_words or word[0].isdigit():
                here.append((NUMBER, i + 1))
            ways = [(heads.get(word), i + 1, True)]
            if i in owners:
                ways.append((heads.get(owners[i]), i + 1, True))
            for node, after, listed in ways:
                while node is not None:
                    for entry in node.entries:
                        found.append((i, -after, entry, 0, ()))
                    if listed:
                        for symbol in node.symbols:
                            here.append((symbol, after))
                            for entry in plain[symbol]:
                                found.append((i, -after, entry, 0, ()))
                    if after >= count or not node.next:
                        break
                    if after in owners:  # "last night's" says "last night"; but an item of a list is owned by its first word only
                        ways.append((node.next.get(owners[after]), after + 1, False))
                    node = node.next.get(words[after])
                    after += 1
            arcs.append(here)
        return _Text(words, owners, arcs, found)

    def _find_in(self, text: _Text, first: int, limit: int) -> None:
        """Find the phrases of several parts that begin at tokens from `first` up to but not including `limit`."""
        places = _places(text, first, limit + self._longest, self._words)
        here = places.keys()
        pairs = self._pairs
        classes: dict[int, list[int]] = {}
        tried: set[tuple[_Phrase, int]] = set()
        for key in here & pairs.keys():
            under = pairs[key]
            standing = places[key]
            for need in here & under.keys():
                there = places[need]
                for low, high, phrases in under[need]:
                    for anchor in standing:
                        for other in there:
                            if low <= other - anchor <= high:
                                break
                        else:
                            continue
                        for phrase in phrases:
                            if (phrase, anchor) not in tried:
                                tried.add((phrase, anchor))
                                for start in self._starts(phrase, anchor, places, classes) if phrase.near else (anchor,):
                                    if start < limit:
                                        _match(phrase, start, text)

    def _starts(self, phrase: _Phrase, anchor: int, places: Mapping[Key, list[int]], classes: dict[int, list[int]]) -> list[int]:
        """Where the phrase could begin; nowhere when it lacks a part."""
        starts: list[int] = []
        for number, low, high in phrase.near:
            standing = classes.get(number)
            if standing is None:
                standing = classes[number] = [i for key in places.keys() & self._classes[number] for i in places[key]]
            starts = [i for i in standing if low <= i - anchor <= high]
            if not starts:
                break
        return starts

    def _settle(self, found: list[_Found]) -> list[Mention]:
        """Drop what a mask covers, and of nested mentions of one entry keep the longest."""
        entries = self._entries
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


def _places(text: _Text, first: int, limit: int, lexical: frozenset[str]) -> dict[Key, list[int]]:
    """For each word, owner and list the tokens where it stands, from `first` up to but not including `limit`."""
    places: defaultdict[Key, list[int]] = defaultdict(list)
    words, arcs = text.words, text.arcs
    for i in range(first, min(limit, len(words))):
        if words[i] in lexical:
            places[words[i]].append(i)
        for symbol, _ in arcs[i]:
            places[symbol].append(i)
    for i, owner in text.owners.items():
        if first <= i < limit:
            places[owner].append(i)
    return places


def _match(phrase: _Phrase, first: int, text: _Text) -> None:
    """Add every way the phrase matches from token `first`."""
    words, owners, arcs = text.words, text.owners, text.arcs
    count = len(words)
    stack: list[tuple[_Node, int, Spans]] = [(phrase.start, first, ())]
    while stack:
        node, place, gaps = stack.pop()
        # A gap with nothing behind it (what follows is optional) is no part of the mention; the match without it stands.
        if node.accepts and not (gaps and gaps[-1][1] == place):
            text.found.append((first, -place, phrase.entry, sum(b - a for a, b in gaps), gaps))
        if place >= count:
            continue
        word = words[place]
        for accepted, after in node.words:
            if word in accepted or (owners and owners.get(place, "") in accepted):
                stack.append((after, place + 1, gaps))
        if node.symbols:
            for symbol, end in arcs[place]:
                for wanted, after in node.symbols:
                    if wanted == symbol:
                        stack.append((after, end, gaps))
        for reach, after in node.gaps:
            # Zero words first; the words skipped may not end a sentence.
            for place2 in range(place, min(place + reach, count - 1) + 1):
                stack.append((after, place2, (*gaps, (place, place2)) if place2 > place else gaps))
                if words[place2] in STOPS:
                    break


class LexiconBuilder:
    """Collects lists and phrases, then compiles them.

    `lists` gives each class its items; `known_words` are ordinary words that are never respelt.
    """

    def __init__(self, lists: Mapping[str, Sequence[str]], number_words: Iterable[str] = (), known_words: Iterable[str] = ()) -> None:
        self._lists = lists
        self._number_words = frozenset(number_words)
        self._known = frozenset(known_words)
        self._symbols: dict[str, int] = {"number": NUMBER}
        self._heads: dict[str, _WordNode] = {}
        self._words: set[str] = set()
        self._parsed: dict[tuple[Sequence_, Entry], None] = {}
        self._spelled: dict[str, tuple[tuple[str, ...], ...]] = {}
        self._longest_items: dict[str, int] = {}
        self._classes: dict[tuple[str, ...], frozenset[str]] = {}
        self._entries: dict[Entry, Entry] = {}
        self._numbers: dict[frozenset[Key], int] = {}

    def add(self, phrase: str, entry: Entry) -> None:
        """Add one phrase; raises PhraseError when it cannot be compiled."""
        entry = self._entries.setdefault(entry, entry)
        for sequence in parse(phrase):
            self._use(sequence)
            self._parsed[sequence, entry] = None

    def build(self) -> Lexicon:
        entries = sorted(self._entries, key=lambda e: (e.kind, e.name))
        numbers = {entry: i for i, entry in enumerate(entries)}
        plain: list[list[int]] = [[] for _ in self._symbols]
        # How many phrases use a word is a fair measure of how common it is in what patients write.
        used: Counter[Key] = Counter()
        several: list[tuple[Sequence_, int]] = []
        for sequence, entry in self._parsed:
            match sequence:
                case [Listed(name=name, optional=False)] if name != "number":
                    plain[self._symbols[name]].append(numbers[entry])
                    continue
            ways = self._written_out(sequence)
            for words in dict.fromkeys(ways):
                self._file(words).entries += (numbers[entry],)
            if not ways:
                several.append((sequence, numbers[entry]))
                used.update(set(self._keys(sequence)))
        weights: dict[frozenset[Key], int] = {}
        pairs: defaultdict[Key, defaultdict[Key, defaultdict[tuple[int, int], list[_Phrase]]]]
        pairs = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        longest = 1
        for sequence, number in several:
            sizes = [(self._shortest(e), self._longest(e), self._inside(e)) for e in sequence]
            longest = max(longest, sum(size[1] for size in sizes))
            required = [(i, self._required(e, used)) for i, e in enumerate(sequence) if not isinstance(e, Gap) and not e.optional]
            for _, keys in required:
                if keys not in weights:
                    weights[keys] = sum(used[k] for k in keys)
            required.sort(key=lambda r: weights[r[1]])
            place, anchors = required[0]
            _, needs = required[1] if len(required) > 1 else (place, frozenset())
            distances = [_distance(i, place, sizes) for i, _ in required[1:]] or [(0, 0)]
            near = [(self._number(keys), *distance) for (_, keys), distance in zip(required[2:], distances[1:], strict=True)]
            begin = -sum(size[1] for size in sizes[:place]) - sizes[place][2], -sum(size[0] for size in sizes[:place])
            start = self._compile(sequence, _END)
            if near or begin != (0, 0):
                firsts: frozenset[Key] = frozenset(k for words, _ in start.words for k in words) | {s for s, _ in start.symbols}
                near.append((self._number(firsts), *begin))
            phrase = _Phrase(number, start, tuple(near))
            for key in anchors:
                for need in needs or (key,):
                    pairs[key][need][distances[0]].append(phrase)
        same: dict[_Filed, _Filed] = {}  # most words of a class lead to the same phrases
        filed: dict[Key, _Pairs] = {}
        for key, under in pairs.items():
            listed = {need: tuple((*distance, tuple(phrases)) for distance, phrases in at.items()) for need, at in under.items()}
            filed[key] = {need: same.setdefault(one, one) for need, one in listed.items()}
        spelled = frozenset(self._words)
        return Lexicon(entries, filed, tuple(self._numbers), longest, self._heads, plain, spelled, self._number_words, self._known)

    def _written_out(self, sequence: Sequence_) -> list[tuple[str, ...]]:
        """Every way to say a sequence without lists and gaps, if these are few; none otherwise."""
        ways: list[tuple[str, ...]] = [()]
        for element in sequence:
            if not isinstance(element, Items):
                return []
            forms = [words for item in element.items for words in self._spell(item)] + [()] * element.optional
            if len(ways) * len(forms) > _FEW_WAYS and len(sequence) > 1:
                return []
            ways = [way + words for way in ways for words in forms]
        return ways

    def _number(self, keys: frozenset[Key]) -> int:
        return self._numbers.setdefault(keys, len(self._numbers))

    def _file(self, words: Sequence[str]) -> _WordNode:
        """The place of these words in the tree."""
        node = self._heads.setdefault(words[0], _WordNode())
        for word in words[1:]:
            node = node.next.setdefault(word, _WordNode())
        return node

    def _use(self, sequence: Sequence_) -> None:
        """Spell out what a sequence refers to, so that mistakes are found where they were written."""
        for element in sequence:
            match element:
                case Items(items=items):
                    for item in items:
                        self._spell(item)
                case Listed(name=name):
                    self._use_list(name)
                case Group(alternatives=alternatives):
                    for one in alternatives:
                        self._use(one)
                case Gap():
                    pass

    def _use_list(self, name: str) -> None:
        if name in self._symbols:
            return
        if name not in self._lists:
            raise PhraseError(f'unknown list "{name}"')
        symbol = self._symbols[name] = len(self._symbols)
        sequences = tuple(s for item in self._lists[name] for s in self._spell(item))
        self._longest_items[name] = max(map(len, sequences), default=1)
        for words in sequences:
            node = self._file(words)
            if symbol not in node.symbols:
                node.symbols += (symbol,)

    def _spell(self, item: str) -> tuple[tuple[str, ...], ...]:
        known = self._spelled.get(item)
        if known is None:
            sequences = (tuple(v) for s in spell_out(item) for v in without_apostrophes(s, self._known))
            known = self._spelled[item] = tuple(dict.fromkeys(sequences))
            for words in known:
                self._words.update(words)
        return known

    def _keys(self, sequence: Sequence_) -> Iterator[Key]:
        for element in sequence:
            match element:
                case Items(items=items):
                    for item in items:
                        for words in self._spell(item):
                            yield from words
                case Listed(name=name):
                    yield self._symbols[name]
                case Group(alternatives=alternatives):
                    for one in alternatives:
                        yield from self._keys(one)
                case Gap():
                    pass

    def _required(self, element: Element, used: Mapping[Key, int]) -> frozenset[Key]:
        """Keys of which a text must hold at least one for this element to match: of each alternative its rarest."""
        match element:
            case Items(items=items):
                return frozenset(min(words, key=lambda w: used[w]) for item in items for words in self._spell(item))
            case Listed(name=name):
                return frozenset({self._symbols[name]})
            case Group(alternatives=alternatives):
                keys: set[Key] = set()
                for one in alternatives:
                    choices = [self._required(e, used) for e in one if not isinstance(e, Gap) and not e.optional]
                    keys |= min(choices, key=lambda c: sum(used[k] for k in c))
                return frozenset(keys)
            case Gap():
                return frozenset()

    def _longest(self, element: Element) -> int:
        """The most tokens an element may take."""
        match element:
            case Items(items=items):
                return max(len(words) for item in items for words in self._spell(item))
            case Listed(name=name):
                return self._longest_items.get(name, 1)
            case Group(alternatives=alternatives):
                return max(sum(self._longest(e) for e in one) for one in alternatives)
            case Gap(reach=reach):
                return reach

    def _shortest(self, element: Element) -> int:
        """The fewest tokens an element may take."""
        if isinstance(element, Gap) or element.optional:
            return 0
        return min(sum(map(self._shortest, one)) for one in element.alternatives) if isinstance(element, Group) else 1

    def _inside(self, element: Element) -> int:
        """How far from its first token one of its keys may stand. A list stands where its item begins."""
        return 0 if isinstance(element, Listed) else self._longest(element) - 1

    def _compile(self, sequence: Sequence_, rest: _Node) -> _Node:
        """The states of a sequence, built from its end."""
        for element in reversed(sequence):
            match element:
                case Items():
                    node = self._compile_items(element, rest)
                case Listed(name=name):
                    node = _Node(symbols=((self._symbols[name], rest),))
                case Group(alternatives=alternatives):
                    node = _either(self._compile(one, rest) for one in alternatives)
                case Gap(reach=reach):
                    rest = _Node(gaps=((reach, rest),))
                    continue
            rest = _either((node, rest)) if element.optional else node
        return rest

    def _compile_items(self, element: Items, rest: _Node) -> _Node:
        singles: list[str] = []
        words: list[tuple[frozenset[str], _Node]] = []
        for item in element.items:
            for spelled in self._spell(item):
                if len(spelled) == 1:
                    singles.append(spelled[0])
                    continue
                node = rest
                for word in reversed(spelled[1:]):
                    node = _Node(words=((self._class((word,)), node),))
                words.append((self._class((spelled[0],)), node))
        if singles:
            words.insert(0, (self._class(tuple(singles)), rest))
        return _Node(words=tuple(words))

    def _class(self, words: tuple[str, ...]) -> frozenset[str]:
        """One set for each class of words, however many phrases use it."""
        return self._classes.setdefault(words, frozenset(words))


def _either(nodes: Iterable[_Node]) -> _Node:
    """A state from which any of some states may follow."""
    listed = tuple(nodes)
    return _Node(
        words=tuple(e for n in listed for e in n.words),
        symbols=tuple(e for n in listed for e in n.symbols),
        gaps=tuple(e for n in listed for e in n.gaps),
        accepts=any(n.accepts for n in listed),
    )


def _distance(part: int, anchor: int, sizes: Sequence[tuple[int, int, int]]) -> tuple[int, int]:
    """From a key of the anchor to one of another part of the phrase: the least and the most, negative to the left.

    `sizes` are for each part its fewest tokens, its most, and how far inside it a key may stand.
    """
    first, last = min(part, anchor), max(part, anchor)
    least = 1 + sum(size[0] for size in sizes[first + 1 : last])
    most = sum(size[1] for size in sizes[first:last]) + sizes[last][2]
    return (least, most) if part > anchor else (-most, -least)
