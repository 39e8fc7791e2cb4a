# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=False, annotation_typing=False
"""`finder` compiled: the same phrases found in tables of plain numbers. The Python is the reference; a test compares the two.

Every table is read with its bounds checked, since what is read was written by strangers. Reading a text costs mostly waiting for
memory, so what is looked at together stands together: a table holds records of a few numbers (`enum` below), and where a list
belongs to a record its place in the next table is one of them; the list ends where that of the next record begins.
"""

from cpython.array cimport array, clone
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdlib cimport qsort

from guardrail.engine.finder import NUMBER, WINDOW, Mention
from guardrail.engine.normalize import STOPS

cdef frozenset _STOPS = STOPS
cdef int _WINDOW = WINDOW
cdef int _NUMBER = NUMBER
cdef array _TEMPLATE = array("i")
cdef enum:
    TRIED = 1024
cdef enum:  # a place in the tree of words: its children, lists and entries; last the size of such a record, as below
    CHILDREN, LISTS, ENTRIES, NODE
cdef enum:  # what is filed under a pair
    LOW, HIGH, PHRASES, FILED
cdef enum:
    ENTRY, START, PARTS, PHRASE
cdef enum:  # a part that a phrase needs, and how far from its anchor
    CLASS, NEAREST, FARTHEST, PART
cdef enum:
    ACCEPTS, WAYS, LISTED, GAPS, STATE
cdef enum:  # a way out of a state: through a class, a list or a gap of so many words, to which state
    THROUGH, NEXT, WAY


cdef struct Match:
    # `start` and `count` are its gaps in the text's. Ordered as the tuples of the reference are.
    int first
    int after
    int entry
    int skipped
    int start
    int count


cdef int _by_place(const void *a, const void *b) noexcept nogil:
    cdef const Match *one = <const Match *>a
    cdef const Match *two = <const Match *>b
    if one.first != two.first:
        return -1 if one.first < two.first else 1
    if one.after != two.after:
        return -1 if one.after > two.after else 1
    if one.entry != two.entry:
        return -1 if one.entry < two.entry else 1
    if one.skipped != two.skipped:
        return -1 if one.skipped < two.skipped else 1
    return 0


cdef class _Numbers:
    """A list of numbers that grows."""

    cdef int *data
    cdef Py_ssize_t size, room

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef inline int push(self, int value) except -1:
        cdef int *data
        if self.size == self.room:
            data = <int *>PyMem_Realloc(self.data, (2 * self.room + 64) * sizeof(int))
            if data == NULL:
                raise MemoryError
            self.data, self.room = data, 2 * self.room + 64
        self.data[self.size] = value
        self.size += 1
        return 0

    cdef inline int at(self, Py_ssize_t place) except? -1:
        if not 0 <= place < self.size:
            raise IndexError
        return self.data[place]


cdef class _Matches:
    """A list of matches that grows."""

    cdef Match *data
    cdef Py_ssize_t size, room

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef inline int push(self, Match value) except -1:
        cdef Match *data
        if self.size == self.room:
            data = <Match *>PyMem_Realloc(self.data, (2 * self.room + 64) * sizeof(Match))
            if data == NULL:
                raise MemoryError
            self.data, self.room = data, 2 * self.room + 64
        self.data[self.size] = value
        self.size += 1
        return 0


cdef class _Text:
    """One text, prepared, and the window of it that is searched."""

    cdef int count
    cdef int[::1] keys, owners, stops
    cdef _Numbers arcs_at, arc_name, arc_end
    cdef _Matches found
    cdef _Numbers gaps
    # The window: where each key stands (a chain from `head`, counted from one), and which keys there are.
    cdef int[::1] head
    cdef _Numbers place, chain, here
    # Attempts of late in this window, so that few are made again.
    cdef int[::1] tried_phrase, tried_place
    # The gaps of the match in hand.
    cdef _Numbers open_gaps

    def __init__(self, int count, int keys):
        self.count = count
        self.keys, self.owners, self.stops = _zeros(count), _zeros(count), _zeros(count)
        self.arcs_at, self.arc_name, self.arc_end = _Numbers(), _Numbers(), _Numbers()
        self.found, self.gaps = _Matches(), _Numbers()
        self.head = _zeros(keys)
        self.place, self.chain, self.here = _Numbers(), _Numbers(), _Numbers()
        self.tried_phrase, self.tried_place = _zeros(TRIED), _zeros(TRIED)
        self.open_gaps = _Numbers()

    cdef int stand(self, int key, int place) except -1:
        """Note that a key stands at a place of the window."""
        cdef int last
        if key < 0:
            return 0
        last = self.head[key]
        if not last:
            self.here.push(key)
        elif self.place.at(last - 1) == place:
            return 0
        self.place.push(place)
        self.chain.push(last)
        self.head[key] = <int>self.place.size
        return 0

    cdef int clear(self) except -1:
        """Begin another window."""
        cdef Py_ssize_t i
        self.tried_phrase[:] = 0
        for i in range(self.here.size):
            self.head[self.here.at(i)] = 0
        self.here.size = self.place.size = self.chain.size = 0
        return 0

    cdef int accept(self, int first, int after, int entry) except -1:
        """Add a match with the gaps in hand."""
        cdef Match match
        cdef Py_ssize_t i
        match.first, match.after, match.entry, match.skipped = first, after, entry, 0
        match.start, match.count = <int>self.gaps.size, <int>self.open_gaps.size
        for i in range(self.open_gaps.size):
            self.gaps.push(self.open_gaps.at(i))
            match.skipped += self.open_gaps.at(i) if i % 2 else -self.open_gaps.at(i)
        self.found.push(match)
        return 0


cdef class Finder:
    """Finds the phrases of one lexicon in texts."""

    cdef dict key_of
    cdef list entries
    cdef frozenset number_words
    cdef int key_count, longest
    # The tree of words: the children of a node stand side by side, by their keys.
    cdef int[::1] root, nodes, node_key, node_lists, node_entries, plain_at, plain
    # Pairs, what is filed under them, and phrases.
    cdef int[::1] pairs_at, pair_need, pair_filed, filed_at, filed, filed_phrases, phrases, parts
    # States and classes.
    cdef int[::1] states, ways, lists, gaps, class_at, class_keys
    # Of each entry: the number of its mask's name, or -1; and whether it is the mask.
    cdef int[::1] masked, is_mask

    def __init__(self, compiled, number_words):
        self.key_of = compiled.keys
        self.entries = compiled.entries
        self.number_words = number_words
        self.longest = compiled.longest
        self.key_count = 1 + max(max(compiled.keys.values(), default=0), max(compiled.plain, default=0), _highest(compiled))
        self._lay_tree(compiled)
        self._lay_pairs(compiled)
        self._lay_states(compiled)
        masks = {}
        for entry in self.entries:
            if entry.kind == "mask":
                masks.setdefault(entry.name, len(masks))
        self.masked = array("i", [masks.get(entry.name, -1) for entry in self.entries])
        self.is_mask = array("i", [entry.kind == "mask" for entry in self.entries])

    def _lay_tree(self, compiled):
        nodes, keys, children = [], [], []
        roots = array("i", [-1]) * self.key_count
        for key, node in sorted(compiled.tree.items()):
            roots[key] = len(nodes)
            nodes.append(node)
            keys.append(key)
        for node in nodes:  # grows behind: children come after all that were there before
            children.append(len(nodes))
            for key, child in sorted((node.next or {}).items()):
                nodes.append(child)
                keys.append(key)
        children.append(len(nodes))
        lists_at, self.node_lists = _rows([node.lists for node in nodes])
        entries_at, self.node_entries = _rows([node.entries for node in nodes])
        self.root, self.node_key, self.nodes = roots, array("i", keys or [0]), _table(zip(children, lists_at, entries_at))
        self.plain_at, self.plain = _rows([compiled.plain.get(key, ()) for key in range(self.key_count)])

    def _lay_pairs(self, compiled):
        under = [sorted(compiled.pairs.get(key, {}).items()) for key in range(self.key_count)]
        self.pairs_at, self.pair_need = _rows([[need for need, _ in row] for row in under])
        self.pair_filed = array("i", [filed for row in under for _, filed in row] or [0])
        self.filed_at, _ = _rows(compiled.filed, flat=False)
        filed = [one for row in compiled.filed for one in row]
        phrases_at, self.filed_phrases = _rows([phrases for _, _, phrases in filed])
        self.filed = _table((low, high, at) for (low, high, _), at in zip([*filed, (0, 0, ())], phrases_at))
        near_at, _ = _rows([phrase.near for phrase in compiled.phrases], flat=False)
        numbers = [*((phrase.entry, phrase.start) for phrase in compiled.phrases), (0, 0)]
        self.phrases = _table((entry, start, at) for (entry, start), at in zip(numbers, near_at))
        self.parts = _table(part for phrase in compiled.phrases for part in phrase.near)

    def _lay_states(self, compiled):
        nodes = compiled.nodes
        words_at, _ = _rows([node.words for node in nodes], flat=False)
        lists_at, _ = _rows([node.lists for node in nodes], flat=False)
        gaps_at, _ = _rows([node.gaps for node in nodes], flat=False)
        self.states = _table(zip([*(node.accepts for node in nodes), False], words_at, lists_at, gaps_at))
        self.ways = _table(way for node in nodes for way in node.words)
        self.lists = _table(way for node in nodes for way in node.lists)
        self.gaps = _table(way for node in nodes for way in node.gaps)
        self.class_at, self.class_keys = _rows([sorted(keys) for keys in compiled.classes])

    def find(self, list words not None):
        """All mentions in words as the lexicon spells them, masked ones removed, in order of place."""
        cdef _Text text = self.prepare(words)
        cdef int first
        for first in range(0, text.count, _WINDOW):
            self.find_in(text, first, first + _WINDOW)
        return self.settle(text)

    cdef _Text prepare(self, list words):
        cdef _Text text = _Text(<int>len(words), self.key_count)
        cdef int i
        cdef str word
        for i in range(text.count):
            word = words[i]
            text.keys[i] = self.key_of.get(word, -1)
            text.owners[i] = self.key_of.get(word[: len(word) - 2], -1) if word.endswith("'s") else -1
            text.stops[i] = word in _STOPS
        for i in range(text.count):
            text.arcs_at.push(<int>text.arc_name.size)
            word = words[i]
            if word in self.number_words or word[0].isdigit():
                text.arc_name.push(_NUMBER)
                text.arc_end.push(i + 1)
            if text.keys[i] >= 0:
                self.walk(text, i, i + 1, self.root[text.keys[i]], True)
            if text.owners[i] >= 0:
                self.walk(text, i, i + 1, self.root[text.owners[i]], True)
        text.arcs_at.push(<int>text.arc_name.size)
        return text

    cdef int walk(self, _Text text, int first, int after, int node, bint listed) except -1:
        """Go down the tree with the words behind `first`, and take what ends on the way."""
        cdef int i, k, name
        while node >= 0:
            for i in range(self.nodes[NODE * node + ENTRIES], self.nodes[NODE * (node + 1) + ENTRIES]):
                text.accept(first, after, self.node_entries[i])
            if listed:
                for i in range(self.nodes[NODE * node + LISTS], self.nodes[NODE * (node + 1) + LISTS]):
                    name = self.node_lists[i]
                    text.arc_name.push(name)
                    text.arc_end.push(after)
                    for k in range(self.plain_at[name], self.plain_at[name + 1]):
                        text.accept(first, after, self.plain[k])
            if after >= text.count or self.nodes[NODE * node + CHILDREN] == self.nodes[NODE * (node + 1) + CHILDREN]:
                break
            # "last night's" says "last night"; but an item of a list is owned by its first word only
            if text.owners[after] >= 0:
                self.walk(text, first, after + 1, self.child(node, text.owners[after]), False)
            node = self.child(node, text.keys[after])
            after += 1
        return 0

    cdef int child(self, int node, int key) except -2:
        if key < 0:
            return -1
        return _search(self.node_key, self.nodes[NODE * node + CHILDREN], self.nodes[NODE * (node + 1) + CHILDREN], key)

    cdef int find_in(self, _Text text, int first, int limit) except -1:
        """Find the phrases of several parts that begin at tokens from `first` up to but not including `limit`."""
        cdef int i, k, key, need, place, end = min(limit + self.longest, text.count)
        cdef Py_ssize_t h, h2
        text.clear()
        for i in range(first, end):
            text.stand(text.keys[i], i)
            for k in range(text.arcs_at.at(i), text.arcs_at.at(i + 1)):
                text.stand(text.arc_name.at(k), i)
            text.stand(text.owners[i], i)
        for h in range(text.here.size):
            key = text.here.at(h)
            i, k = self.pairs_at[key], self.pairs_at[key + 1]
            if k - i <= 4 * text.here.size:
                for place in range(i, k):
                    if text.head[self.pair_need[place]]:
                        self.file(text, key, self.pair_need[place], self.pair_filed[place], limit)
            else:
                for h2 in range(text.here.size):
                    need = text.here.at(h2)
                    place = _search(self.pair_need, i, k, need)
                    if place >= 0:
                        self.file(text, key, need, self.pair_filed[place], limit)
        return 0

    cdef int file(self, _Text text, int key, int need, int filed, int limit) except -1:
        """Try what is filed under two keys that both stand in the window."""
        cdef int i, k, low, high, one, two, anchor
        for i in range(self.filed_at[filed], self.filed_at[filed + 1]):
            low, high = self.filed[FILED * i + LOW], self.filed[FILED * i + HIGH]
            one = text.head[key]
            while one:
                anchor = text.place.at(one - 1)
                two = text.head[need]
                while two and not low <= text.place.at(two - 1) - anchor <= high:
                    two = text.chain.at(two - 1)
                if two:
                    for k in range(self.filed[FILED * i + PHRASES], self.filed[FILED * (i + 1) + PHRASES]):
                        self.attempt(text, self.filed_phrases[k], anchor, limit)
                one = text.chain.at(one - 1)
        return 0

    cdef int attempt(self, _Text text, int phrase, int anchor, int limit) except -1:
        """Match a phrase from wherever it could begin; nowhere when it lacks a part."""
        cdef int n, c, low, high, one, place, number, begin = self.phrases[PHRASE * phrase + PARTS], end = self.phrases[PHRASE * (phrase + 1) + PARTS]
        cdef int slot = (phrase * 31 + anchor) % TRIED
        cdef bint there, last
        if text.tried_phrase[slot] == phrase + 1 and text.tried_place[slot] == anchor:
            return 0
        text.tried_phrase[slot], text.tried_place[slot] = phrase + 1, anchor
        if begin == end and anchor < limit:
            self.match(text, phrase, self.phrases[PHRASE * phrase + START], anchor, anchor)
        for n in range(begin, end):
            number = self.parts[PART * n + CLASS]
            low, high = anchor + self.parts[PART * n + NEAREST], anchor + self.parts[PART * n + FARTHEST]
            there, last = False, n == end - 1
            for c in range(self.class_at[number], self.class_at[number + 1]):
                one = text.head[self.class_keys[c]]
                while one and not (there and not last):
                    place = text.place.at(one - 1)
                    one = text.chain.at(one - 1)
                    if low <= place <= high:
                        there = True
                        if last and place < limit:
                            self.match(text, phrase, self.phrases[PHRASE * phrase + START], place, place)
            if not there:
                break
        return 0

    cdef int match(self, _Text text, int phrase, int node, int first, int place) except -1:
        """Add every way the rest of the phrase matches from `place`, being in this state."""
        cdef Py_ssize_t gaps = text.open_gaps.size
        cdef int i, k, key, owner, number, place2
        # A gap with nothing behind it (what follows is optional) is no part of the mention; the match without it stands.
        if self.states[STATE * node + ACCEPTS] and not (gaps and text.open_gaps.at(gaps - 1) == place):
            text.accept(first, place, self.phrases[PHRASE * phrase + ENTRY])
        if place >= text.count:
            return 0
        key, owner = text.keys[place], text.owners[place]
        for i in range(self.states[STATE * node + WAYS], self.states[STATE * (node + 1) + WAYS]):
            number = self.ways[WAY * i + THROUGH]
            if self.holds(number, key) or self.holds(number, owner):
                self.match(text, phrase, self.ways[WAY * i + NEXT], first, place + 1)
        for i in range(self.states[STATE * node + LISTED], self.states[STATE * (node + 1) + LISTED]):
            for k in range(text.arcs_at.at(place), text.arcs_at.at(place + 1)):
                if text.arc_name.at(k) == self.lists[WAY * i + THROUGH]:
                    self.match(text, phrase, self.lists[WAY * i + NEXT], first, text.arc_end.at(k))
        for i in range(self.states[STATE * node + GAPS], self.states[STATE * (node + 1) + GAPS]):
            # Zero words first; the words skipped may not end a sentence.
            for place2 in range(place, min(place + self.gaps[WAY * i + THROUGH], text.count - 1) + 1):
                if place2 > place:
                    text.open_gaps.push(place)
                    text.open_gaps.push(place2)
                self.match(text, phrase, self.gaps[WAY * i + NEXT], first, place2)
                text.open_gaps.size = gaps
                if text.stops[place2]:
                    break
        return 0

    cdef bint holds(self, int number, int key) except -1:
        """Whether a class holds a key."""
        return key >= 0 and _search(self.class_keys, self.class_at[number], self.class_at[number + 1], key) >= 0

    cdef list settle(self, _Text text):
        """Drop what a mask covers, and of nested mentions of one entry keep the longest."""
        cdef list kept = []
        cdef int[::1] reach = _zeros(<int>len(self.entries))
        cdef list masks = []
        cdef Py_ssize_t i, k
        cdef Match *found = text.found.data
        cdef Match match
        qsort(found, text.found.size, sizeof(Match), _by_place)
        for i in range(text.found.size):
            if self.is_mask[found[i].entry]:
                masks.append((self.masked[found[i].entry], found[i].first, found[i].after))
        for i in range(text.found.size):
            match = found[i]
            if match.after <= reach[match.entry]:
                continue
            if self.is_mask[match.entry] or (masks and self.hidden(match, masks)):
                continue
            reach[match.entry] = match.after
            gaps = _gaps(text, match)
            # Of several that are alike but for where their gaps stand the reference takes the first.
            k = i + 1
            while k < text.found.size and _by_place(&found[k], &found[i]) == 0:
                gaps = min(gaps, _gaps(text, found[k]))
                k += 1
            kept.append(Mention(self.entries[match.entry], match.first, match.after, gaps))
        return kept

    cdef bint hidden(self, Match match, list masks) except -1:
        cdef int number, first, after
        if self.masked[match.entry] < 0:
            return False
        for number, first, after in masks:
            if number == self.masked[match.entry] and first <= match.first and match.after <= after:
                return True
        return False


cdef tuple _gaps(_Text text, Match match):
    cdef int i
    if not match.count:
        return ()
    return tuple([(text.gaps.at(i), text.gaps.at(i + 1)) for i in range(match.start, match.start + match.count, 2)])


cdef int _search(int[::1] sorted_numbers, int low, int high, int wanted) except -2:
    """Where a number stands between two places, or -1."""
    cdef int middle, number
    while low < high:
        middle = (low + high) // 2
        number = sorted_numbers[middle]
        if number == wanted:
            return middle
        if number < wanted:
            low = middle + 1
        else:
            high = middle
    return -1


cdef array _zeros(int count):
    return clone(_TEMPLATE, max(count, 1), zero=True)


def _rows(rows, flat=True):
    """Where each row begins, with one more for the end; and all rows behind one another."""
    at, numbers, count = array("i", [0]), array("i"), 0
    for row in rows:
        if flat:
            numbers.extend(row)
        count += len(row)
        at.append(count)
    return at, numbers or array("i", [0])


def _table(records):
    """Records of numbers behind one another."""
    return array("i", [number for record in records for number in record] or [0])


def _highest(compiled):
    """The highest key that stands anywhere in the tree or in a class."""
    highest, nodes = NUMBER, [*compiled.tree.items()]
    for key, node in nodes:
        highest = max(highest, key, *node.lists)
        nodes.extend((node.next or {}).items())
    return max(highest, *(max(keys, default=0) for keys in compiled.classes), 0, 0)
