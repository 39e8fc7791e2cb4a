"""Phrases of all packs, compiled once; finds every mention in a text. The grammar is in `phrases`.

How they are found, and what the compiled form holds, is in `finder`. What a match means (negated, someone else's, long ago) is not
decided here: see `context`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from guardrail.engine.compiled import Finder
from guardrail.engine.finder import NUMBER, Compiled, Entry, Filed, Key, Mention, Node, Phrase, WordNode
from guardrail.engine.normalize import Tokens, tokenize
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

_FEW_WAYS = 16  # more would make the tree large, and most phrases have fewer

__all__ = ["EITHER_ORDER_GAP", "GAP", "Entry", "Lexicon", "LexiconBuilder", "Mention", "PhraseError", "inflect"]


class Lexicon:
    """The compiled phrases. Build with `LexiconBuilder`; immutable in use."""

    def __init__(self, compiled: Compiled, number_words: frozenset[str], known: frozenset[str]) -> None:
        self._words = compiled.keys
        self._finder = Finder(compiled, number_words)
        self._speller = Speller(compiled.keys, known)

    def respell(self, word: str) -> str:
        """The lexicon word an unknown word was probably meant to be, or the word itself."""
        return self._speller.respell(word)

    def read(self, text: str) -> Tokens:
        """The text in tokens, with leet and drawn-out letters undone wherever that makes words: so all who read it see the same."""
        tokens = tokenize(text)
        odd = [w for w in tokens.words if len(w) > 3 and w[0].isalpha() and not self._speller.is_word(w)]
        if "$" in text or "@" in text or not all(w.isalpha() or "'" in w for w in odd):
            tokens = tokenize(self._speller.plain(text))
        shortened = {w: short for w in odd if (short := self._speller.shortened(w)) != w}
        words = [shortened.get(w, w) for w in tokens.words] if shortened else tokens.words
        return Tokens(text, words, tokens.starts, tokens.ends)

    def find(self, tokens: Tokens) -> list[Mention]:
        """All mentions, masked ones removed, in order of place."""
        known, respell = self._words, self._speller.respell
        return self._finder.find([w if w in known or len(w) < 3 else respell(w) for w in tokens.words])


class LexiconBuilder:
    """Collects lists and phrases, then compiles them.

    `lists` gives each class its items; `known_words` are ordinary words that are never respelt.
    """

    def __init__(self, lists: Mapping[str, Sequence[str]], number_words: Iterable[str] = (), known_words: Iterable[str] = ()) -> None:
        self._lists = lists
        self._number_words = frozenset(number_words)
        self._known = frozenset(known_words)
        self._list_keys: dict[str, Key] = {"number": NUMBER}
        self._word_keys: dict[str, Key] = {}
        self._tree: dict[Key, WordNode] = {}
        self._parsed: dict[tuple[Sequence_, Entry], None] = {}
        self._spelled: dict[str, tuple[tuple[Key, ...], ...]] = {}
        self._longest_items: dict[str, int] = {}
        self._entries: dict[Entry, Entry] = {}
        self._classes: dict[frozenset[Key], int] = {}
        self._listed: list[frozenset[Key]] = []
        self._nodes: dict[Node, int] = {}
        self._numbered: list[Node] = []

    def add(self, phrase: str, entry: Entry) -> None:
        """Add one phrase; raises PhraseError when it cannot be compiled."""
        entry = self._entries.setdefault(entry, entry)
        for sequence in parse(phrase):
            self._use(sequence)
            self._parsed[sequence, entry] = None

    def build(self) -> Lexicon:
        return Lexicon(self.compile(), self._number_words, self._known)

    def compile(self) -> Compiled:
        """What was added, compiled; once."""
        entries = sorted(self._entries, key=lambda e: (e.kind, e.name))
        numbers = {entry: i for i, entry in enumerate(entries)}
        plain: defaultdict[Key, list[int]] = defaultdict(list)
        # How many phrases use a word is a fair measure of how common it is in what patients write.
        used: Counter[Key] = Counter()
        several: list[tuple[Sequence_, int]] = []
        for sequence, entry in self._parsed:
            match sequence:
                case [Listed(name=name, optional=False)] if name != "number":
                    plain[self._list_keys[name]].append(numbers[entry])
                    continue
            ways = self._written_out(sequence)
            for words in dict.fromkeys(ways):
                self._file(words).entries += (numbers[entry],)
            if not ways:
                several.append((sequence, numbers[entry]))
                used.update(set(self._keys(sequence)))
        weights: dict[frozenset[Key], int] = {}
        pairs: defaultdict[Key, defaultdict[Key, defaultdict[tuple[int, int], list[int]]]]
        pairs = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        phrases: list[Phrase] = []
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
            near = [(self._class(keys), *distance) for (_, keys), distance in zip(required[2:], distances[1:], strict=True)]
            begin = -sum(size[1] for size in sizes[:place]) - sizes[place][2], -sum(size[0] for size in sizes[:place])
            start = self._compile(sequence, self._node(Node(accepts=True)))
            if near or begin != (0, 0):
                near.append((self._class(self._firsts(start)), *begin))
            for key in anchors:
                for need in needs or (key,):
                    pairs[key][need][distances[0]].append(len(phrases))
            phrases.append(Phrase(number, start, tuple(near)))
        filed: dict[Filed, int] = {}  # most words of a class lead to the same phrases
        by_pair: dict[Key, dict[Key, int]] = {}
        for key, under in pairs.items():
            listed = {need: tuple((*distance, tuple(found)) for distance, found in at.items()) for need, at in under.items()}
            by_pair[key] = {need: filed.setdefault(one, len(filed)) for need, one in listed.items()}
        return Compiled(
            keys=self._word_keys,
            entries=entries,
            tree=self._tree,
            plain={key: tuple(found) for key, found in plain.items()},
            pairs=by_pair,
            filed=list(filed),
            phrases=phrases,
            nodes=self._numbered,
            classes=self._listed,
            longest=longest,
        )

    def _written_out(self, sequence: Sequence_) -> list[tuple[Key, ...]]:
        """Every way to say a sequence without lists and gaps, if these are few; none otherwise."""
        ways: list[tuple[Key, ...]] = [()]
        for element in sequence:
            if not isinstance(element, Items):
                return []
            forms = [words for item in element.items for words in self._spell(item)] + [()] * element.optional
            if len(ways) * len(forms) > _FEW_WAYS and len(sequence) > 1:
                return []
            ways = [way + words for way in ways for words in forms]
        return ways

    def _class(self, keys: frozenset[Key]) -> int:
        number = self._classes.setdefault(keys, len(self._classes))
        if number == len(self._listed):
            self._listed.append(keys)
        return number

    def _node(self, node: Node) -> int:
        number = self._nodes.setdefault(node, len(self._nodes))
        if number == len(self._numbered):
            self._numbered.append(node)
        return number

    def _key(self, word: str) -> Key:
        """The number of a word. Words and lists share the numbers, so that both can be looked up in one table."""
        known = self._word_keys.get(word)
        if known is None:
            known = self._word_keys[word] = len(self._word_keys) + len(self._list_keys)
        return known

    def _file(self, words: Sequence[Key]) -> WordNode:
        """The place of these words in the tree."""
        node = self._tree.setdefault(words[0], WordNode())
        for word in words[1:]:
            if node.next is None:
                node.next = {}
            node = node.next.setdefault(word, WordNode())
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
        if name in self._list_keys:
            return
        if name not in self._lists:
            raise PhraseError(f'unknown list "{name}"')
        key = self._list_keys[name] = len(self._word_keys) + len(self._list_keys)
        sequences = tuple(s for item in self._lists[name] for s in self._spell(item))
        self._longest_items[name] = max(map(len, sequences), default=1)
        for words in sequences:
            node = self._file(words)
            if key not in node.lists:
                node.lists += (key,)

    def _spell(self, item: str) -> tuple[tuple[Key, ...], ...]:
        known = self._spelled.get(item)
        if known is None:
            sequences = (tuple(map(self._key, v)) for s in spell_out(item) for v in without_apostrophes(s, self._known))
            known = self._spelled[item] = tuple(dict.fromkeys(sequences))
        return known

    def _keys(self, sequence: Sequence_) -> Iterator[Key]:
        for element in sequence:
            match element:
                case Items(items=items):
                    for item in items:
                        for words in self._spell(item):
                            yield from words
                case Listed(name=name):
                    yield self._list_keys[name]
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
                return frozenset({self._list_keys[name]})
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

    def _firsts(self, start: int) -> frozenset[Key]:
        """What a text must hold where a phrase begins."""
        node = self._numbered[start]
        return frozenset(key for number, _ in node.words for key in self._listed[number]) | {name for name, _ in node.lists}

    def _compile(self, sequence: Sequence_, rest: int) -> int:
        """The states of a sequence, built from its end; returns the first. `rest` is the state behind it."""
        for element in reversed(sequence):
            match element:
                case Items():
                    node = self._compile_items(element, rest)
                case Listed(name=name):
                    node = self._node(Node(lists=((self._list_keys[name], rest),)))
                case Group(alternatives=alternatives):
                    node = self._either([self._compile(one, rest) for one in alternatives])
                case Gap(reach=reach):
                    rest = self._node(Node(gaps=((reach, rest),)))
                    continue
            rest = self._either([node, rest]) if element.optional else node
        return rest

    def _compile_items(self, element: Items, rest: int) -> int:
        singles: list[Key] = []
        words: list[tuple[int, int]] = []
        for item in element.items:
            for spelled in self._spell(item):
                if len(spelled) == 1:
                    singles.append(spelled[0])
                    continue
                node = rest
                for word in reversed(spelled[1:]):
                    node = self._node(Node(words=((self._class(frozenset({word})), node),)))
                words.append((self._class(frozenset({spelled[0]})), node))
        if singles:
            words.insert(0, (self._class(frozenset(singles)), rest))
        return self._node(Node(words=tuple(words)))

    def _either(self, numbers: Sequence[int]) -> int:
        """A state from which any of some states may follow."""
        listed = [self._numbered[n] for n in numbers]
        return self._node(
            Node(
                words=tuple(e for n in listed for e in n.words),
                lists=tuple(e for n in listed for e in n.lists),
                gaps=tuple(e for n in listed for e in n.gaps),
                accepts=any(n.accepts for n in listed),
            )
        )


def _distance(part: int, anchor: int, sizes: Sequence[tuple[int, int, int]]) -> tuple[int, int]:
    """From a key of the anchor to one of another part of the phrase: the least and the most, negative to the left.

    `sizes` are for each part its fewest tokens, its most, and how far inside it a key may stand.
    """
    first, last = min(part, anchor), max(part, anchor)
    least = 1 + sum(size[0] for size in sizes[first + 1 : last])
    most = sum(size[1] for size in sizes[first:last]) + sizes[last][2]
    return (least, most) if part > anchor else (-most, -least)
