"""Phrases of all packs, compiled once; finds every mention in a text. The grammar is in `phrases`.

Cost follows the text and hardly the number of phrases, because a phrase is looked at in three steps, each rarer than the
one before: its anchor (the class of words that fewest other phrases use) stands in the text; so does one word of each
other class it needs, as far from the anchor as the phrase allows; and only then is it matched, word for word, from the
places where it could begin. Places are bits of a whole number, so that the second step is a shift and an `and`.

What a match means (negated, someone else's, long ago) is not decided here: see `context`.
"""

from collections import Counter
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


_Near = tuple[int, int, int]
"""A class and where a word of it has to stand: its number, the nearest place to the left (from the anchor, plus the pad of
the lexicon), and as many one-bits as there are places."""
_Found = tuple[Entry, int, int, Spans]


@dataclass(frozen=True, slots=True, eq=False)
class _Phrase:
    """A compiled sequence. `near` are the other classes it cannot do without, and last what it may begin with."""

    entry: Entry
    start: _Node
    near: tuple[_Near, ...]


_Anchored = tuple[tuple[_Phrase, ...], Mapping[Key, tuple[_Phrase, ...]]]
"""Phrases of an anchor that need nothing else, and the others under each word of the rarest class they need."""


@dataclass(slots=True)
class _WordNode:
    next: dict[str, "_WordNode"] = field(default_factory=dict)
    symbols: tuple[int, ...] = ()


@dataclass(slots=True)
class _Text:
    """One text, prepared: its words as the lexicon spells them, the lists that begin at each, and what it holds."""

    words: list[str]
    owners: dict[int, str]
    """Places of words such as "knee's", with the word that owns."""
    arcs: list[tuple[tuple[int, int], ...]]
    places: dict[Key, int]
    """For each word, owner and list the places where it stands, as bits; the first place is bit `pad`."""


class Lexicon:
    """The compiled phrases. Build with `LexiconBuilder`; immutable in use."""

    def __init__(
        self,
        anchors: Mapping[Key, _Anchored],
        classes: Sequence[frozenset[Key]],
        pad: int,
        heads: Mapping[str, _WordNode],
        words: frozenset[str],
        number_words: frozenset[str],
        known: frozenset[str],
    ) -> None:
        self._anchors = anchors
        self._classes = classes
        self._pad = pad
        self._heads = heads
        self._number_words = number_words
        self._words = words
        self._speller = Speller(words, known)

    def respell(self, word: str) -> str:
        """The lexicon word an unknown word was probably meant to be, or the word itself."""
        return self._speller.respell(word)

    def find(self, tokens: Tokens) -> list[Mention]:
        """All mentions, masked ones removed, in order of place."""
        text = self._prepare(tokens.words)
        places, pad, anchors, classes = text.places, self._pad, self._anchors, self._classes
        present = set(places)
        where: dict[int, int] = {}
        found: list[_Found] = []
        seen: set[tuple[_Phrase, int]] = set()
        for key in present & anchors.keys():
            alone, others = anchors[key]
            candidates = set(alone)
            for need in present & others.keys():
                candidates.update(others[need])
            if not candidates:
                continue
            standing = _bits(places[key] >> pad)
            for phrase in candidates:
                for anchor in standing:
                    for number, left, span in phrase.near:
                        whole = where.get(number)
                        if whole is None:
                            whole = where[number] = _places_of(classes[number], present, places)
                        near = whole >> (anchor + left) & span
                        if not near:
                            break
                    else:
                        # The last of them is what it may begin with.
                        for bit in _bits(near):
                            start = phrase, anchor + left - pad + bit
                            if start not in seen:
                                seen.add(start)
                                _match(phrase, start[1], text, found)
        return _settle(found)

    def _prepare(self, written: Sequence[str]) -> _Text:
        known, respell = self._words, self._speller.respell
        words = [w if w in known or len(w) < 3 else respell(w) for w in written]
        owners = {i: w[:-2] for i, w in enumerate(words) if w.endswith("'s") and w[:-2] in known}
        places: dict[Key, int] = {}
        arcs: list[tuple[tuple[int, int], ...]] = []
        heads, count, number_words = self._heads, len(words), self._number_words
        place = 1 << self._pad
        for i, word in enumerate(words):
            places[word] = places.get(word, 0) | place
            here: list[tuple[int, int]] = []
            if word in number_words or word[0].isdigit():
                here.append((NUMBER, i + 1))
            _lists_from(heads.get(word), i + 1, words, count, here)
            if i in owners:
                owner = owners[i]
                places[owner] = places.get(owner, 0) | place
                _lists_from(heads.get(owner), i + 1, words, count, here)
            for symbol, _ in here:
                places[symbol] = places.get(symbol, 0) | place
            arcs.append(tuple(here))
            place <<= 1
        return _Text(words, owners, arcs, places)


def _lists_from(node: _WordNode | None, after: int, words: Sequence[str], count: int, here: list[tuple[int, int]]) -> None:
    """Add the lists that have an item which begins with the word of this node, with where the item ends."""
    while node is not None:
        for symbol in node.symbols:
            here.append((symbol, after))
        if after >= count or not node.next:
            return
        node = node.next.get(words[after])
        after += 1


def _places_of(keys: frozenset[Key], present: set[Key], places: Mapping[Key, int]) -> int:
    """Where any of some keys stands."""
    out = 0
    for key in keys & present:
        out |= places[key]
    return out


def _bits(number: int) -> list[int]:
    """The places of the ones of a number."""
    out: list[int] = []
    while number:
        low = number & -number
        out.append(low.bit_length() - 1)
        number ^= low
    return out


def _match(phrase: _Phrase, first: int, text: _Text, found: list[_Found]) -> None:
    """Add every way the phrase matches from token `first`."""
    words, owners, arcs = text.words, text.owners, text.arcs
    count = len(words)
    stack: list[tuple[_Node, int, Spans]] = [(phrase.start, first, ())]
    while stack:
        node, place, gaps = stack.pop()
        # A gap with nothing behind it (what follows is optional) is no part of the mention; the match without it stands.
        if node.accepts and not (gaps and gaps[-1][1] == place):
            found.append((phrase.entry, first, place, gaps))
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


def _settle(found: Sequence[_Found]) -> list[Mention]:
    """Drop what a mask covers, and of nested mentions of one entry keep the longest."""
    masks: dict[str, list[tuple[int, int]]] = {}
    for entry, first, after, _ in found:
        if entry.kind == "mask":
            masks.setdefault(entry.name, []).append((first, after))
    longest: dict[tuple[int, int], _Found] = {}
    for one in found:
        entry, first, after, gaps = one
        if entry.kind == "mask" or (entry.name in masks and any(a <= first and after <= b for a, b in masks[entry.name])):
            continue
        best = longest.get((id(entry), first))
        # Of two that are equally long the one that says more of it itself: what a gap holds may deny it.
        if best is None or after > best[2] or (after == best[2] and (_gap_words(gaps), gaps) < (_gap_words(best[3]), best[3])):
            longest[id(entry), first] = one
    kept: list[Mention] = []
    reach: dict[Entry, int] = {}
    for entry, first, after, gaps in sorted(longest.values(), key=_by_place):
        if after > reach.get(entry, 0):
            reach[entry] = after
            kept.append(Mention(entry, first, after, gaps))
    return kept


def _by_place(found: _Found) -> tuple[int, int, str, str]:
    """Names decide between mentions of the same words, so that the same text always reads the same."""
    entry, first, after, _ = found
    return first, -after, entry.kind, entry.name


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
        # How many phrases use a word is a fair measure of how common it is in what patients write.
        used: Counter[Key] = Counter()
        for sequence, _ in self._parsed:
            used.update(set(self._keys(sequence)))
        weights: dict[frozenset[Key], int] = {}
        placed: list[tuple[Sequence_, Entry, int, list[tuple[int, frozenset[Key]]]]] = []
        for sequence, entry in self._parsed:
            required = [(i, self._required(e, used)) for i, e in enumerate(sequence) if not isinstance(e, Gap) and not e.optional]
            for _, keys in required:
                if keys not in weights:
                    weights[keys] = sum(used[k] for k in keys)
            required.sort(key=lambda r: weights[r[1]])
            placed.append((sequence, entry, required[0][0], required))
        # Whatever stands to the left of an anchor stands at most so far away.
        pad = max((sum(map(self._longest, s[: place + 1])) for s, _, place, _ in placed), default=0)
        alone: dict[Key, list[_Phrase]] = {}
        others: dict[Key, dict[Key, list[_Phrase]]] = {}
        for sequence, entry, place, required in placed:
            phrase = self._phrase(sequence, entry, place, required[1:], pad)
            for key in required[0][1]:
                if len(required) == 1:
                    alone.setdefault(key, []).append(phrase)
                    continue
                by = others.setdefault(key, {})
                for need in required[1][1]:
                    by.setdefault(need, []).append(phrase)
        same: dict[tuple[_Phrase, ...], tuple[_Phrase, ...]] = {}  # most words of a class lead to the same phrases
        anchors = {
            key: (
                tuple(alone.get(key, ())),
                {need: same.setdefault(phrases, phrases) for need, listed in others.get(key, {}).items() for phrases in (tuple(listed),)},
            )
            for key in alone.keys() | others.keys()
        }
        return Lexicon(anchors, tuple(self._numbers), pad, self._heads, frozenset(self._words), self._number_words, self._known)

    def _phrase(self, sequence: Sequence_, entry: Entry, place: int, needs: Sequence[tuple[int, frozenset[Key]]], pad: int) -> _Phrase:
        """`place` is the anchor's place in the sequence, `needs` are the other parts it cannot do without, the rarest first."""
        start = self._compile(sequence, _END)
        firsts: frozenset[Key] = frozenset(k for words, _ in start.words for k in words) | {symbol for symbol, _ in start.symbols}
        longest = [self._longest(e) for e in sequence]
        shortest = [self._shortest(e) for e in sequence]
        near = [self._near(keys, _distance(i, place, shortest, longest), pad) for i, keys in needs]
        before = (-sum(longest[:place]) - longest[place] + 1, -sum(shortest[:place]))
        return _Phrase(entry, start, (*near, self._near(firsts, before, pad)))

    def _near(self, keys: frozenset[Key], distance: tuple[int, int], pad: int) -> _Near:
        low, high = distance
        return self._numbers.setdefault(keys, len(self._numbers)), low + pad, (1 << (high - low + 1)) - 1

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
            node = self._heads.setdefault(words[0], _WordNode())
            for word in words[1:]:
                node = node.next.setdefault(word, _WordNode())
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


def _distance(part: int, anchor: int, shortest: Sequence[int], longest: Sequence[int]) -> tuple[int, int]:
    """From a word of the anchor to one of another part of the phrase: the least and the most, negative to the left."""
    first, last = min(part, anchor), max(part, anchor)
    least = 1 + sum(shortest[first + 1 : last])
    most = longest[first] + sum(longest[first + 1 : last]) + longest[last] - 1
    return (least, most) if part > anchor else (-most, -least)


def _gap_words(gaps: Spans) -> int:
    return sum(after - first for first, after in gaps)
