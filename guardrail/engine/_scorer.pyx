# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=False, annotation_typing=False, cdivision=True
"""`scorer` compiled: the same sums in the same order, so that they are the same to the last bit. The Python is the reference."""

import numpy as np

from guardrail.engine import scorer as reference
from guardrail.engine.normalize import STOPS

from cpython.array cimport array, clone
from libc.math cimport INFINITY, sqrt
from libc.string cimport memcpy

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define fetch_ahead(address) __builtin_prefetch(address)
    #else
    #define fetch_ahead(address)
    #endif
    """
    void fetch_ahead(const void *address) nogil

cdef enum:
    HEADS = 4
    REACH = 4
    VIEWS = 3
    ROWS = 14  # pairs of three views at four distances, triples of two views
    WINDOW = 3
assert (len(reference.HEADS), reference.REACH, len(reference.LAST), reference.WINDOW) == (HEADS, REACH, ROWS, WINDOW)

cdef frozenset _STOPS = STOPS
cdef int _MEDICATION = reference.MEDICATION
cdef int _LONGEST = reference.LONGEST_SENTENCE
cdef double _SMALLEST = reference.SMALLEST_WINDOW
cdef double _LEAN = reference.LEAN
cdef int _SHIFT = 64 - reference.TABLE_BITS
cdef unsigned long long _A = int(reference.A), _B = int(reference.B), _C = int(reference.C), _SALT = int(reference.SALT)
cdef int _FOLD = int(reference.FOLD)
cdef array _DOUBLES = array("d"), _FLOATS = array("f"), _INTS = array("i"), _WORDS = array("Q")


cdef inline float _wide(unsigned short half) noexcept:
    """A number of half precision. Its bits, moved to their places, say it times 2**-112; so too for the smallest."""
    cdef unsigned int bits = (half & 0x7FFF) << 13
    cdef float value
    memcpy(&value, &bits, 4)
    value *= 5.192296858534828e33
    return -value if half & 0x8000 else value


cdef inline unsigned long long _salt(int row, int view) noexcept:
    return <unsigned long long>(3 * row + view + 1) * _SALT


cdef class _Text:
    """The windows of a text with their scores, and what each token weighs."""

    cdef int count, sentences
    cdef int[::1] sentence, begins, sizes
    cdef unsigned long long[::1] views
    cdef double[::1] single, sums
    cdef int[::1] features
    cdef float[::1] paired
    cdef double[HEADS] best
    cdef int[HEADS] start, end

    def __init__(self, int count):
        self.count = count
        self.sentence, self.begins = clone(_INTS, count, False), clone(_INTS, count + 1, False)
        self.sizes = clone(_INTS, count + 1, True)
        self.views = clone(_WORDS, VIEWS * count, False)
        self.single, self.sums = clone(_DOUBLES, HEADS * count, False), clone(_DOUBLES, HEADS * (count + 1), True)
        self.features = clone(_INTS, ROWS * count, False)
        self.paired = clone(_FLOATS, ROWS * HEADS * count, True)


class Scorer(reference.Scorer):
    """Scores texts with trained weights, which must be of half precision."""

    def __init__(self, vocabulary, weights):
        super().__init__(vocabulary, weights)
        self._sums = _Sums(vocabulary, weights, self._rows)

    def review(self, words, concepts=(), since=0, glossed=False):
        if not words:
            return [], reference.Leans(False, False)
        return self._sums.review(list(words), concepts, since, glossed)


cdef class _Sums:
    cdef dict ids, rows
    cdef const unsigned long long[:, ::1] views
    cdef const unsigned short[:, ::1] own, groups, pairs
    cdef const float[:, ::1] concepts, thresholds
    cdef const float[::1] bias

    def __init__(self, vocabulary, weights, rows):
        self.ids = vocabulary.ids
        self.views = vocabulary.views
        self.rows = rows
        self.own, self.groups, self.pairs = (table.view(np.uint16) for table in (weights.own, weights.groups, weights.pairs))
        concepts = np.array(list(weights.concepts.values()), dtype=np.float32)
        self.concepts = concepts.reshape(len(rows), HEADS)
        self.bias, self.thresholds = weights.bias, weights.thresholds

    def review(self, list words, concepts, int since, bint glossed):
        cdef _Text text = _Text(<int>len(words))
        cdef int head
        cdef double[HEADS] over
        cdef bint danger = False
        self.cut(text, words)
        self.look_up(text, words)
        self.pair(text)
        for concept, token in concepts:
            row = self.rows.get(concept)
            if row is not None:
                self.add_concept(text, row, token)
        self.windows(text, text.begins[text.sentence[since]] if since else 0)
        scores = []
        for head in range(HEADS):
            over[head] = text.best[head] - self.thresholds[glossed, head]
            danger = danger or (head < _MEDICATION and over[head] > -_LEAN)
            if over[head] > 0:
                start, end = text.start[head], text.end[head]
                scores.append(reference.Score(reference.HEADS[head], over[head], start, end, self.evidence(text, head, start, end)))
        return scores, reference.Leans(danger, over[_MEDICATION] > -_LEAN)

    cdef int cut(self, _Text text, list words) except -1:
        """For each token the number of its sentence, and the first token of each; long sentences are cut."""
        cdef int i, number = 0, length = 0
        text.begins[0] = 0
        for i in range(text.count):
            if length >= _LONGEST:
                number, length = number + 1, 0
            if not length:
                text.begins[number] = i
            text.sentence[i] = number
            length += 1
            if words[i] in _STOPS:
                number, length = number + 1, 0
        text.sentences = text.sentence[text.count - 1] + 1
        text.begins[text.sentences] = text.count
        return 0

    cdef int look_up(self, _Text text, list words) except -1:
        """What each word weighs by itself, and its views."""
        cdef int i, known, view, head
        cdef float[HEADS] sums
        for i in range(text.count):
            known = self.ids.get(words[i], 0)
            for head in range(HEADS):
                text.single[HEADS * i + head] = _wide(self.own[known, head])
            if known:
                for view in range(VIEWS):
                    text.views[VIEWS * i + view] = self.views[view, known]
                continue
            for view, number in enumerate(reference.unseen(words[i])):
                text.views[VIEWS * i + view] = number
            groups = reference.letter_groups(words[i])
            if groups:
                for head in range(HEADS):
                    sums[head] = 0
                for group in groups:
                    for head in range(HEADS):
                        sums[head] += _wide(self.groups[<int>group, head])
                for head in range(HEADS):
                    text.single[HEADS * i + head] = sums[head]
        return 0

    cdef int pair(self, _Text text) except -1:
        """What the pairs and triples weigh that begin at each token. All are asked for before the first is read: memory is slow."""
        cdef int i, view, distance, head
        cdef unsigned long long first, mixed
        text.features[:] = -1
        for i in range(text.count):
            text.sizes[i] = 1
            for distance in range(1, REACH + 1):
                if i + distance >= text.count or text.sentence[i + distance] != text.sentence[i]:
                    break
                for view in range(VIEWS):
                    first = text.views[VIEWS * i + view] * _A
                    mixed = (first ^ (text.views[VIEWS * (i + distance) + view] * _B + _salt(distance, view))) * _C >> _SHIFT
                    self.ask(text, REACH * view + distance - 1, i, mixed)
                    if distance == 2 and view < 2:
                        mixed = first ^ (text.views[VIEWS * (i + 1) + view] * _B + _salt(REACH + 1, view))
                        mixed ^= text.views[VIEWS * (i + 2) + view] * _C
                        self.ask(text, VIEWS * REACH + view, i, (mixed ^ (mixed >> _FOLD)) * _B >> _SHIFT)
        for i in range(ROWS * text.count):
            if text.features[i] >= 0:
                for head in range(HEADS):
                    text.paired[HEADS * i + head] = _wide(self.pairs[text.features[i], head])
        return 0

    cdef inline int ask(self, _Text text, int row, int token, unsigned long long feature) except -1:
        text.sizes[token] += 1
        text.features[row * text.count + token] = <int>feature
        fetch_ahead(&self.pairs[<Py_ssize_t>feature, 0])
        return 0

    cdef int add_concept(self, _Text text, int row, int token) except -1:
        cdef int head
        text.sizes[token] += 1
        for head in range(HEADS):
            text.single[HEADS * token + head] += self.concepts[row, head]
        return 0

    cdef int windows(self, _Text text, int since) except -1:
        """The best window of each head; with `since` only of those that end behind that token."""
        cdef int i, row, head, first, after, start, end, sentences
        cdef double total, size, value
        cdef long long length = 0
        cdef array lengths = clone(_INTS, text.count + 1, True)
        cdef int[::1] up_to = lengths
        for i in range(text.count):
            up_to[i + 1] = up_to[i] + text.sizes[i]
            for head in range(HEADS):
                total = 0
                for row in range(ROWS):
                    total += text.paired[(row * text.count + i) * HEADS + head]
                # Sums up to each token, so that a window is a difference.
                text.sums[HEADS * (i + 1) + head] = text.sums[HEADS * i + head] + (text.single[HEADS * i + head] + total)
        for head in range(HEADS):
            text.best[head] = -INFINITY
            text.start[head], text.end[head] = 0, text.begins[1] if text.sentences > 0 else text.count
        for sentences in range(1, min(WINDOW, text.sentences) + 1):
            for first in range(text.sentences - sentences + 1):
                self.window(text, up_to, first, first + sentences, since)
        if text.sentences > WINDOW:
            self.window(text, up_to, 0, text.sentences, since)
        return 0

    cdef int window(self, _Text text, int[::1] up_to, int first, int after, int since) except -1:
        cdef int head, start = text.begins[first], end = text.begins[after]
        cdef double value, root = sqrt(max(<double>(up_to[end] - up_to[start]), _SMALLEST))
        if since and end <= since:
            return 0
        for head in range(HEADS):
            # What a message is about is told by the whole of it; only the heads that can raise danger look at each window.
            if head == _MEDICATION and after - first < text.sentences:
                continue
            value = (text.sums[HEADS * end + head] - text.sums[HEADS * start + head]) / root + self.bias[head]
            if value > text.best[head]:
                text.best[head], text.start[head], text.end[head] = value, start, end
        return 0

    cdef tuple evidence(self, _Text text, int head, int start, int end):
        """The tokens of a window that speak most. Half of a pair is the word's that begins it, half the other's."""
        cdef int i, row, distance, count = end - start
        cdef double total
        cdef array weights = clone(_DOUBLES, count, True)
        cdef double[::1] each = weights
        for i in range(count):
            total = 0
            for row in range(ROWS):
                total += <double>text.paired[(row * text.count + start + i) * HEADS + head] / 2
            each[i] = text.single[HEADS * (start + i) + head] + total
        for row in range(ROWS):
            distance = reference.LAST[row]
            for i in range(distance, count):
                each[i] += <double>text.paired[(row * text.count + start + i - distance) * HEADS + head] / 2
        ranked = sorted([(start + i, each[i]) for i in range(count) if each[i] > 0], key=_less)
        return tuple(ranked[: reference.SHOWN_WORDS])


def _less(pair):
    return -pair[1]
