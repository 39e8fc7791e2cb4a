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
_A, _B, _C = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
# One salt for each view (word, coarse class, fine class) and each distance, so that equal ids never share a feature.
_NONE: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
_PAIRS_KEPT_TO = 256  # tokens; the pairs of longer texts are not worth their memory
_SALTS = (np.arange(1, 3 * (REACH + 2) + 1, dtype=np.uint64) * np.uint64(0xD6E8FEB86659FD93)).reshape(REACH + 2, 3, 1)


@dataclass(frozen=True, slots=True)
class Score:
    """A head over its threshold: how far, and the tokens that speak most for it."""

    head: str
    value: float
    first: int
    after: int
    words: tuple[tuple[int, float], ...]
    """Tokens by contribution, highest first."""


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
        views = self.views[:, ids]
        for i, known in enumerate(ids):
            if known == 0:
                views[:, i] = _unseen(words[i])
        return ids, views


def _unseen(word: str) -> tuple[int, int, int]:
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
    hashed: NDArray[np.int64] = ((views * _A + _SALTS[0]) * _B >> _SHIFT).astype(np.int64)
    return hashed


def pair_features(
    views: NDArray[np.uint64], sentences: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Hashed pairs and triples of a text: (index into the table, first token, last token), all of shape (features,)."""
    count = views.shape[1]
    # Numpy's cost is in the number of its calls, so all distances go through each step together.
    first, last, salts = _pairs_in(count) if count <= _PAIRS_KEPT_TO else _pairs_in.__wrapped__(count)
    same = sentences[first] == sentences[last]
    first, last, salts = first[same], last[same], salts[:, same]
    hashed = (((views * _A)[:, first] ^ ((views * _B)[:, last] + salts)) * _C >> _SHIFT).ravel().astype(np.int64)
    if count < 3:
        return hashed, np.concatenate((first, first, first)), np.concatenate((last, last, last))
    begin = np.flatnonzero(sentences[:-2] == sentences[2:])
    words = views[:2]
    mixed = (words[:, begin] * _A) ^ (words[:, begin + 1] * _B + _SALTS[REACH + 1][:2]) ^ (words[:, begin + 2] * _C)
    threes = ((mixed ^ (mixed >> np.uint64(29))) * _B >> _SHIFT).ravel().astype(np.int64)
    end = begin + 2
    return (
        np.concatenate((hashed, threes)),
        np.concatenate((first, first, first, begin, begin)),
        np.concatenate((last, last, last, end, end)),
    )


@lru_cache(maxsize=512)
def _pairs_in(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """All pairs of tokens of a text of this length that are near enough, nearest first, with the salts of their distances."""
    distances = range(1, min(REACH, count - 1) + 1)
    if not distances:
        return _NONE, _NONE, np.zeros((3, 0), dtype=np.uint64)
    first = np.concatenate([np.arange(count - d) for d in distances])
    distance = np.repeat(np.fromiter(distances, dtype=np.int64), [count - d for d in distances])
    return first, first + distance, _SALTS[distance, :, 0].T.copy()


def letter_groups(word: str) -> list[int]:
    """Indices of the groups of three to five letters of a word with its ends marked: what typing errors leave standing."""
    if not word[0].isalpha():
        return []
    marked = f"<{word[:24]}>"
    return [crc32(marked[i : i + n].encode("utf-8", "surrogatepass")) & GROUP_MASK for n in (3, 4, 5) for i in range(len(marked) - n + 1)]


@dataclass(frozen=True, slots=True)
class Weights:
    """What training made. `own` is (words + 1, heads): a known word's own features added up; `groups` and `pairs` are hashed."""

    own: NDArray[np.float32]
    groups: NDArray[np.float32]
    pairs: NDArray[np.float32]
    concepts: Mapping[str, NDArray[np.float32]]
    bias: NDArray[np.float32]
    thresholds: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Scored:
    """The windows of a text with their scores, and every feature's contribution with the tokens it stands on."""

    values: NDArray[np.float64]
    spans: list[tuple[int, int]]
    sentences: NDArray[np.int64]
    found: NDArray[np.float32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]


class Scorer:
    """Scores texts with trained weights."""

    def __init__(self, vocabulary: Vocabulary, weights: Weights) -> None:
        self.vocabulary = vocabulary
        self._weights = weights

    def scores(self, words: Sequence[str], concepts: Sequence[tuple[str, int]] = ()) -> NDArray[np.float64]:
        """The highest score of any window, for each head, less its threshold: above 0 counts.

        `concepts` are the counting mentions, each with its first token.
        """
        if not words:
            return np.full(len(HEADS), -np.inf)
        best: NDArray[np.float64] = self._windows(words, concepts).values.max(axis=0) - self._weights.thresholds
        return best

    def review(self, words: Sequence[str], concepts: Sequence[tuple[str, int]] = (), since: int = 0) -> tuple[list[Score], bool]:
        """The heads that are over their thresholds, with their evidence; and whether the text leans towards danger at all.

        With `since`, only what the tokens from there on have a part in.
        """
        if not words:
            return [], False
        scored = self._windows(words, concepts)
        if since:
            first = scored.sentences[since]
            scored.values[[end <= first for _, end in scored.spans]] = -np.inf
        over = scored.values.max(axis=0) - self._weights.thresholds
        leans = bool((over[:MEDICATION] > -LEAN).any())
        return [self._score(int(head), scored) for head in np.flatnonzero(over > 0)], leans

    def _own(self, words: Sequence[str], ids: Sequence[int]) -> NDArray[np.float32]:
        own = self._weights.own[ids]
        for i, known in enumerate(ids):
            if known == 0 and (groups := letter_groups(words[i])):
                own[i] = self._weights.groups[groups].sum(axis=0)
        return own

    def _windows(self, words: Sequence[str], concepts: Sequence[tuple[str, int]]) -> _Scored:
        weights = self._weights
        ids, views = self.vocabulary.look_up(words)
        sentences = sentences_of(words)
        index, first, last = pair_features(views, sentences)
        place = np.arange(len(words))
        parts, firsts, lasts = [self._own(words, ids), weights.pairs[index]], [place, first], [place, last]
        known = [(weights.concepts[c], t) for c, t in concepts if c in weights.concepts]
        if known:
            parts.append(np.stack([w for w, _ in known]))
            firsts.append(np.array([t for _, t in known]))
            lasts.append(firsts[-1])
        found, first, last = np.concatenate(parts), np.concatenate(firsts), np.concatenate(lasts)
        count = int(sentences[-1]) + 1
        if count == 1:
            totals = found.sum(axis=0, dtype=np.float64)[None, :]
            sizes = np.array([len(found)], dtype=np.float64)
        else:
            owner = sentences[first]
            totals = np.stack([np.bincount(owner, found[:, h], count) for h in range(found.shape[1])], axis=1)
            sizes = np.bincount(owner, minlength=count).astype(np.float64)
        spans = [(i, i + n) for n in range(1, min(WINDOW, count) + 1) for i in range(count - n + 1)]
        if count > WINDOW:
            spans.append((0, count))  # the whole text stands last, however many sentences it has
        sums = np.vstack([np.zeros((1, totals.shape[1])), totals.cumsum(axis=0)])
        lengths = np.concatenate([[0.0], sizes.cumsum()])
        starts, ends = [s for s, _ in spans], [e for _, e in spans]
        size = np.maximum(lengths[ends] - lengths[starts], SMALLEST_WINDOW)
        values = (sums[ends] - sums[starts]) / np.sqrt(size)[:, None] + weights.bias
        # What a message is about is told by the whole of it; only the heads that can raise danger look at each window.
        whole = len(spans) - 1
        values[:whole, MEDICATION] = -np.inf
        return _Scored(values, spans, sentences, found, first, last)

    def _score(self, head: int, scored: _Scored) -> Score:
        window = int(scored.values[:, head].argmax())
        start, end = scored.spans[window]
        sentences = scored.sentences
        tokens = np.flatnonzero((sentences >= start) & (sentences < end))
        inside = (sentences[scored.first] >= start) & (sentences[scored.first] < end)
        first, last, share = scored.first[inside], scored.last[inside], scored.found[inside, head].astype(np.float64)
        paired = first != last
        share[paired] /= 2
        each = np.bincount(first, share, len(sentences)) + np.bincount(last[paired], share[paired], len(sentences))
        ranked = sorted(((int(t), float(each[t])) for t in tokens if each[t] > 0), key=lambda x: -x[1])[:SHOWN_WORDS]
        over = float(scored.values[window, head] - self._weights.thresholds[head])
        return Score(HEADS[head], over, int(tokens[0]), int(tokens[-1]) + 1, tuple(ranked))
