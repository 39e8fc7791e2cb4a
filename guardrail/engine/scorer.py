"""A trained second reader beside the rules: it may only raise a decision, and shows the words that made it.

A linear model over what a message says. Features are: each word (with its letter groups and its coarse and fine class of
words like it), pairs of words up to four apart and triples, in words and in classes, never across a sentence; and the
concepts the lexicon found there and that count. Their weights are added up and divided by the root of their number.

Every window of up to three sentences is scored and the highest counts, so that reassurance written before or after a red
flag cannot hide it. Because the model is linear, the words shown as evidence are exactly what the score is made of.

Not a calibrated probability, and never a reason to lower anything. How the weights are made: `training/`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from guardrail.engine.normalize import STOPS

HEADS = ("emergency", "urgent", "crisis", "medication")
MEDICATION = HEADS.index("medication")
# How far below its threshold a head may be for a text to lean its way: reached by about one quiet message in eight, and by
# nearly all emergencies. A hint, a phrase too loose to count alone, counts where the text leans.
LEAN = 1.5
REACH = 4  # pairs further apart added nothing on held-out folds
WINDOW = 3  # sentences
LONGEST_SENTENCE = 30  # words; dictated text has no stops, and one window must not dilute a red flag in it
TABLE_BITS = 18
GROUP_MASK = (1 << 17) - 1
SMALLEST_WINDOW = 60.0  # features; a window of two words must not outscore a whole message by being short
SHOWN_WORDS = 6
_SHIFT = np.uint64(64 - TABLE_BITS)
A, B, C = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
FOLD = np.uint64(29)
# One salt for each view (word, coarse class, fine class) and each distance, so that equal ids never share a feature.
SALT = np.uint64(0xD6E8FEB86659FD93)
_DISTANCES = np.arange(1, REACH + 1)[:, None]
_NO_SENTENCE = np.full(REACH, -1)
LAST = (*range(1, REACH + 1),) * 3 + (2, 2)
"""For each row of `pair_features`, how far from its first token its last one stands."""
_SALTS = (np.arange(1, 3 * (REACH + 2) + 1, dtype=np.uint64) * SALT).reshape(REACH + 2, 3, 1)
_PAIR_SALTS = _SALTS[1 : REACH + 1].transpose(1, 0, 2)


@dataclass(frozen=True, slots=True)
class Score:
    """A head over its threshold: how far, and the tokens that speak most for it."""

    head: str
    value: float
    first: int
    after: int
    words: tuple[tuple[int, float], ...]
    """Tokens by contribution, highest first."""


class Leans(NamedTuple):
    """Whether a text comes near to danger of any kind, and near to being about medication."""

    danger: bool
    medication: bool


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words with their coarse and fine class. Word and class ids start at 1; 0 is a word not seen in training."""

    ids: Mapping[str, int]
    views: NDArray[np.uint64]
    """Shape (3, words + 1): word id, coarse class, fine class."""

    def look_up(self, words: Sequence[str]) -> tuple[list[int], NDArray[np.uint64]]:
        """Ids, and views of shape (3, n). An unseen word keeps an identity by its spelling; numbers share one by length."""
        get = self.ids.get
        ids = [get(w, 0) for w in words]
        views = self.views.take(ids, axis=1)
        for i, known in enumerate(ids):
            if known == 0:
                views[:, i] = unseen(words[i])
        return ids, views


def unseen(word: str) -> tuple[int, int, int]:
    if word[0].isdigit():
        shape = len(word.split(".")[0].split("/")[0].split(",")[0]) + (10 if "." in word else 20 if "/" in word else 0)
        return (900_000 + shape, 900_000 + shape, 900_000 + shape)
    # Class of an unseen word: its ending says most of what can be said (plural, -ing, -ly).
    ending = sum(ord(c) << (8 * i) for i, c in enumerate(word[-3:])) & 0xFFFFFF
    return (1_000_000 + ending * 31 + len(word), 900_100, 2_000_000 + ending)


def sentences_of(words: Sequence[str]) -> NDArray[np.int64]:
    """For each token the number of its sentence; long ones are cut."""
    number, length, out = 0, 0, []
    for word in words:
        if length >= LONGEST_SENTENCE:
            number, length = number + 1, 0
        out.append(number)
        length += 1
        if word in STOPS:
            number, length = number + 1, 0
    return np.asarray(out, dtype=np.int64)


def word_features(views: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Hashed features of single words, shape (3, n): the word and its two classes. Only training needs them one by one."""
    hashed: NDArray[np.int64] = ((views * A + _SALTS[0]) * B >> _SHIFT).astype(np.int64)
    return hashed


def pair_features(views: NDArray[np.uint64], sentences: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Hashed pairs and triples of a text, shape (14, n): for each token those that begin there, and whether they are there at all.

    Rows: distances 1 to REACH of the words, of their coarse and of their fine classes; then triples of words and of coarse
    classes. None reaches beyond its sentence. `LAST` says how far off the last token of each row stands.
    """
    count = views.shape[1]
    # Numpy's cost is in the number of its calls, so all distances go through each step together; `take` is the quicker look-up.
    behind = np.arange(count) + _DISTANCES
    room = np.zeros((3, REACH), dtype=np.uint64)
    first, second = views * A, np.concatenate((views * B, room), axis=1).take(behind, axis=1)
    pairs = (first[:, None] ^ (second + _PAIR_SALTS)) * C >> _SHIFT
    third = np.concatenate((views[:2] * C, room[:2]), axis=1).take(behind[1], axis=1)
    mixed = first[:2] ^ (second[:2, 0] + _SALTS[REACH + 1][:2]) ^ third
    threes = (mixed ^ (mixed >> FOLD)) * B >> _SHIFT
    same = np.concatenate((sentences, _NO_SENTENCE)).take(behind) == sentences
    there = np.concatenate((same, same, same, same[1:2], same[1:2]))
    return np.concatenate((pairs.reshape(3 * REACH, count), threes)).astype(np.int64), there


def letter_groups(word: str) -> list[int]:
    """Indices of the groups of three to five letters of a word with its ends marked: what typing errors leave standing."""
    if not word[0].isalpha():
        return []
    marked = f"<{word[:24]}>"
    return [crc32(marked[i : i + n].encode("utf-8", "surrogatepass")) & GROUP_MASK for n in (3, 4, 5) for i in range(len(marked) - n + 1)]


@dataclass(frozen=True, slots=True)
class Weights:
    """What training made, in half precision: what a text looks up is scattered, and shall fit into a processor's cache.

    `own` is (words + 1, heads): a known word's own features added up; `groups` and `pairs` are hashed.
    """

    own: NDArray[np.float16] | NDArray[np.float32]
    groups: NDArray[np.float16] | NDArray[np.float32]
    pairs: NDArray[np.float16] | NDArray[np.float32]
    concepts: Mapping[str, NDArray[np.float32]]
    bias: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    """Shape (2, heads): for English, and for the languages read through a glossary."""


@dataclass(frozen=True, slots=True)
class _Scored:
    """The windows of a text with their scores, and what each token weighs."""

    values: NDArray[np.float64]
    """Shape (windows, heads)."""
    starts: NDArray[np.int64]
    """First token of each window; `ends` the token after its last."""
    ends: NDArray[np.int64]
    single: NDArray[np.float64]
    """Shape (n, heads): a word by itself, with the concepts that begin there."""
    paired: NDArray[np.float32]
    """Shape (14, n, heads): pairs and triples, at their first token."""


class Scorer:
    """Scores texts with trained weights."""

    def __init__(self, vocabulary: Vocabulary, weights: Weights) -> None:
        self.vocabulary = vocabulary
        self._weights = weights
        self._rows = {concept: row for row, concept in enumerate(weights.concepts)}
        self._concepts = np.array(list(weights.concepts.values())) if weights.concepts else np.zeros((0, len(HEADS)))

    def scores(self, words: Sequence[str], concepts: Sequence[tuple[str, int]] = ()) -> NDArray[np.float64]:
        """The highest score of any window, for each head, less its threshold: above 0 counts.

        `concepts` are the counting mentions, each with its first token.
        """
        if not words:
            return np.full(len(HEADS), -np.inf)
        best: NDArray[np.float64] = self._windows(words, concepts).values.max(axis=0) - self._weights.thresholds[0]
        return best

    def review(
        self, words: Sequence[str], concepts: Sequence[tuple[str, int]] = (), since: int = 0, glossed: bool = False
    ) -> tuple[list[Score], Leans]:
        """The heads that are over their thresholds, with their evidence; and where the text leans.

        With `since`, only what the tokens from there on have a part in. `glossed` says that the words were another language's.
        """
        if not words:
            return [], Leans(False, False)
        scored = self._windows(words, concepts)
        if since:
            sentences = sentences_of(words)
            scored.values[scored.ends <= np.searchsorted(sentences, sentences[since])] = -np.inf
        thresholds = self._weights.thresholds[int(glossed)]
        over = scored.values.max(axis=0) - thresholds
        leans = Leans(bool((over[:MEDICATION] > -LEAN).any()), bool(over[MEDICATION] > -LEAN))
        return [self._score(int(head), float(over[head]), scored) for head in np.flatnonzero(over > 0)], leans

    def _own(self, words: Sequence[str], ids: Sequence[int]) -> NDArray[np.float64]:
        own = self._weights.own.take(ids, axis=0).astype(np.float64)
        for i, known in enumerate(ids):
            if known == 0 and (groups := letter_groups(words[i])):
                own[i] = self._weights.groups.take(groups, axis=0).astype(np.float32).sum(axis=0)
        return own

    def _windows(self, words: Sequence[str], concepts: Sequence[tuple[str, int]]) -> _Scored:
        weights = self._weights
        ids, views = self.vocabulary.look_up(words)
        sentences = sentences_of(words)
        index, there = pair_features(views, sentences)
        paired = weights.pairs.take(index, axis=0).astype(np.float32)
        paired[~there] = 0
        single = self._own(words, ids)
        sizes = there.sum(axis=0) + 1
        rows = [(row, token) for concept, token in concepts if (row := self._rows.get(concept)) is not None]
        if rows:
            of_concepts, tokens = np.array(rows).T
            np.add.at(single, tokens, self._concepts.take(of_concepts, axis=0))
            np.add.at(sizes, tokens, 1)
        # Sums up to each token, so that a window is a difference.
        sums = np.zeros((len(words) + 1, len(HEADS)))
        (single + paired.sum(axis=0, dtype=np.float64)).cumsum(axis=0, out=sums[1:])
        lengths = np.concatenate((_ZERO, sizes.cumsum()))
        count = int(sentences[-1]) + 1
        bounds = np.searchsorted(sentences, np.arange(count + 1))
        first, after = _spans(count) if count <= _SPANS_KEPT_TO else _spans.__wrapped__(count)
        starts, ends = bounds.take(first), bounds.take(after)
        size = np.maximum(lengths[ends] - lengths[starts], SMALLEST_WINDOW)
        values = (sums[ends] - sums[starts]) / np.sqrt(size)[:, None] + weights.bias
        # What a message is about is told by the whole of it; only the heads that can raise danger look at each window.
        values[:-1, MEDICATION] = -np.inf
        return _Scored(values, starts, ends, single, paired)

    def _score(self, head: int, over: float, scored: _Scored) -> Score:
        window = int(scored.values[:, head].argmax())
        start, end = int(scored.starts[window]), int(scored.ends[window])
        # Half of a pair is the word's that begins it, half the other's.
        halves = scored.paired[:, start:end, head].astype(np.float64) / 2
        each = scored.single[start:end, head] + halves.sum(axis=0)
        for row, distance in zip(halves, LAST, strict=True):
            each[distance:] += row[:-distance]
        ranked = sorted(((start + i, weight) for i, weight in enumerate(each.tolist()) if weight > 0), key=lambda x: -x[1])[:SHOWN_WORDS]
        return Score(HEADS[head], over, start, end, tuple(ranked))


_ZERO = np.zeros(1, dtype=np.int64)
_SPANS_KEPT_TO = 64  # sentences; those of longer texts are not worth their memory


@lru_cache(maxsize=_SPANS_KEPT_TO)
def _spans(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The windows of so many sentences: of one, two and three of them, and last the whole text."""
    spans = [(i, i + n) for n in range(1, min(WINDOW, count) + 1) for i in range(count - n + 1)]
    if count > WINDOW:
        spans.append((0, count))
    first, after = np.array(spans).T
    return first, after
