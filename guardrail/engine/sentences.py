"""A trained reader of replies: what is wrong with a sentence, told word by word while it is written.

A linear model over the words of one sentence, in their order: each word, its class of words like it ("ibuprofen" is a
medicine, "four" a number), pairs and triples of both, and what is known of the conversation. Its sums only ever grow by the
next word, so that the reply guard can hold a sentence as soon as it leans towards an issue, and judge it at its end. Because
it is linear, the words shown as evidence are exactly what the score is made of.

How the weights are made: `training/train_replies.py`. Not done here: what follows from an issue (`replies`, `reply`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

FACTS = ("red_flag", "emergency", "crisis", "medication", "image", "health")
"""What may be known of the conversation, in the order of their features."""
_ID_BITS = 18
_START, _NUMBER = 1, 2
_FIRST_FACT = 3
FIRST_WORD = _FIRST_FACT + len(FACTS)
"""Ids below are taken; words and classes share the others."""
# One salt a kind of feature, so that equal ids never share one.
_ONE, _PAIR, _SKIP, _THREE, _WIDE = (k << (3 * _ID_BITS) for k in range(1, 6))
_NOTHING_BEFORE = ((_START, _START), (0, 0), (0, 0))
"""What stands before the first word, the nearest first."""

Weights = Mapping[int, tuple[tuple[int, float], ...]]
"""Feature -> (head, weight) pairs; most features speak for one or two heads only."""


@dataclass(frozen=True, slots=True)
class SentenceScorer:
    """Trained weights. `thresholds` and `leans` are one a head: above the first it is said, above the second it may become so."""

    heads: tuple[str, ...]
    words: Mapping[str, tuple[int, int]]
    """Word -> its own id and that of its class."""
    weights: Weights
    bias: tuple[float, ...]
    thresholds: tuple[float, ...]
    leans: tuple[float, ...]

    def begin(self, facts: Iterable[str] = (), heeded: Iterable[str] | None = None) -> "Sentence":
        """An empty sentence in a conversation of which these facts are known; it leans towards `heeded` heads only, or any."""
        leans = list(self.leans)
        if heeded is not None:
            leans = [lean if head in heeded else math.inf for head, lean in zip(self.heads, leans, strict=True)]
        sums = list(self.bias)
        for fact in facts:
            for head, weight in self.weights.get(fact_feature(fact), ()):
                sums[head] += weight
        return Sentence(self, sums, leans)


@dataclass(slots=True)
class Sentence:
    """One sentence as it grows."""

    scorer: SentenceScorer
    sums: list[float]
    leans: list[float]
    last: tuple[tuple[int, int], ...] = _NOTHING_BEFORE
    words: list[tuple[int, int]] = field(default_factory=list)
    leaning: bool = False

    def add(self, word: str) -> bool:
        """Take the next word, folded; whether the sentence leans towards an issue now."""
        scorer = self.scorer
        own = word_ids(word, scorer.words)
        self.words.append(own)
        sums, weights = self.sums, scorer.weights
        moved = False
        for feature in features(own, self.last):
            for head, weight in weights.get(feature, ()):
                sums[head] += weight
                moved = True
        self.last = (own, self.last[0], self.last[1])
        if moved:
            self.leaning = any(map(float.__gt__, sums, self.leans))
        return self.leaning

    def said(self) -> list[str]:
        """The heads that are over their thresholds."""
        scorer = self.scorer
        return [h for h, value, threshold in zip(scorer.heads, self.sums, scorer.thresholds, strict=True) if value > threshold]

    def near(self) -> list[str]:
        """The heads that the sentence leans towards."""
        scorer = self.scorer
        return [h for h, value, lean in zip(scorer.heads, self.sums, scorer.leans, strict=True) if value > lean]

    def evidence(self, head: str, most: int = 4) -> list[int]:
        """The places of the words that speak most for a head, in order."""
        scorer = self.scorer
        number = scorer.heads.index(head)
        shares: list[tuple[float, int]] = []
        last = _NOTHING_BEFORE
        for place, own in enumerate(self.words):
            share = sum(w for f in features(own, last) for h, w in scorer.weights.get(f, ()) if h == number)
            shares.append((share, place))
            last = (own, last[0], last[1])
        best = sorted((s for s in shares if s[0] > 0), reverse=True)[:most]
        return sorted(place for _, place in best)


def word_ids(word: str, known: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """A word's own id and that of its class; numbers share one, and words not seen in training have none."""
    if word[0].isdigit():
        return (_NUMBER, _NUMBER)
    return known.get(word, (0, 0))


def fact_feature(fact: str) -> int:
    """The feature of a fact of the conversation."""
    return _ONE | (_FIRST_FACT + FACTS.index(fact))


def features(own: tuple[int, int], last: Sequence[tuple[int, int]]) -> list[int]:
    """The features that a word adds behind the three before it. Its class counts beside the word itself."""
    found: list[int] = []
    for view in (0, 1):
        word = own[view]
        if not word:
            continue
        one, two, three = last[0][view], last[1][view], last[2][view]
        found.append(_ONE | word)
        if one:
            found.append(_PAIR | one << _ID_BITS | word)
        if two:
            found.append(_SKIP | two << _ID_BITS | word)
            if one:
                found.append(_THREE | two << 2 * _ID_BITS | one << _ID_BITS | word)
        if three:
            found.append(_WIDE | three << _ID_BITS | word)
        if own[0] == own[1] and one == last[0][1 - view] and two == last[1][1 - view] and three == last[2][1 - view]:
            break  # the same in both views: say it once
    return found
