"""A trained reader of replies: what is wrong with a sentence, told word by word while it is written.

A linear model over the words of one sentence, in their order: each word, its class of words like it ("ibuprofen" is a
medicine, "four" a number), each with the one before it and the one before that, and what is known of the conversation. Its
sums only ever grow by the next word, so that the reply guard can hold a sentence as soon as it leans towards an issue, and
judge it at its end. Because it is linear, the words shown as evidence are exactly what the score is made of.

How the weights are made: `training/train_replies.py`. Not done here: what follows from an issue (`replies`, `reply`).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

FACTS = ("red_flag", "emergency", "crisis", "medication", "image", "health")
"""What may be known of the conversation, in the order of their features."""
ID_BITS = 14
"""Ids of words and classes are below 1 << ID_BITS, so that every feature is a small number, which is looked up quickest."""
_START, _NUMBER = 1, 2
_FIRST_FACT = 3
FIRST_WORD = _FIRST_FACT + len(FACTS)
"""Ids below are taken; words and classes share the others."""
# A feature of one word is its id; of two, the id of the earlier above it, marked when a word stands between them.
_APART = 1 << (2 * ID_BITS)
_UNKNOWN = (0, 0)
_DIGITS = (_NUMBER, _NUMBER)
_BEGIN = (_START, _START)

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
    alone: Mapping[tuple[int, int], tuple[tuple[int, float], ...]] = field(init=False)
    """What a word and its class weigh together, whatever stands before them: they always come together."""

    def __post_init__(self) -> None:
        alone = {ids: _together(ids, self.weights) for ids in (*set(self.words.values()), _DIGITS)}
        object.__setattr__(self, "alone", {ids: weights for ids, weights in alone.items() if weights})

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
    words: list[tuple[int, int]] = field(default_factory=lambda: [_UNKNOWN, _BEGIN])
    """Behind the two that stand before the first."""
    leaning: bool = False

    def add(self, word: str) -> bool:
        """Take the next word, folded; whether the sentence leans towards an issue now."""
        scorer = self.scorer
        sums = self.sums
        words = self.words
        ids = word_ids(word, scorer.words)
        alone = scorer.alone.get(ids)
        moved = alone is not None
        if alone is not None:
            for head, weight in alone:
                sums[head] += weight
        weights = scorer.weights
        for feature in pairs(words[-2], words[-1], ids):
            found = weights.get(feature)
            if found is not None:
                moved = True
                for head, weight in found:
                    sums[head] += weight
        words.append(ids)
        if moved:
            self.leaning = False
            for value, lean in zip(sums, self.leans, strict=True):
                if value > lean:
                    self.leaning = True
                    break
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
        weights = scorer.weights
        words = self.words
        shares: list[tuple[float, int]] = []
        for place in range(2, len(words)):
            found = features(words[place - 2], words[place - 1], words[place])
            shares.append((sum(w for f in found for h, w in weights.get(f, ()) if h == number), place - 2))
        best = sorted((s for s in shares if s[0] > 0), reverse=True)[:most]
        return sorted(place for _, place in best)


def word_ids(word: str, known: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """A word's own id and that of its class; numbers share one, and words not seen in training have none."""
    return known.get(word) or (_DIGITS if word[0].isdigit() else _UNKNOWN)


def fact_feature(fact: str) -> int:
    """The feature of a fact of the conversation."""
    return _FIRST_FACT + FACTS.index(fact)


def _together(ids: tuple[int, int], weights: Weights) -> tuple[tuple[int, float], ...]:
    """The sums of a word's weights and its class's."""
    sums: dict[int, float] = {}
    for feature in set(ids):
        for head, weight in weights.get(feature, ()):
            sums[head] = sums.get(head, 0.0) + weight
    return tuple(sums.items())


def features(second: tuple[int, int], first: tuple[int, int], word: tuple[int, int]) -> list[int]:
    """The features that a word adds behind the two before it, the nearest last. Its class counts beside the word itself."""
    return [*sorted({*word} - {0}), *pairs(second, first, word)]


def pairs(second: tuple[int, int], first: tuple[int, int], word: tuple[int, int]) -> list[int]:
    """The features of a word and one before it."""
    found: list[int] = []
    own, group = word
    if own:
        if first[0]:
            found.append(first[0] << ID_BITS | own)
        if second[0]:
            found.append(_APART | second[0] << ID_BITS | own)
    if group:
        # What is the same in both views is said once.
        same = group == own
        if first[1] and not (same and first[0] == first[1]):
            found.append(first[1] << ID_BITS | group)
        if second[1] and not (same and second[0] == second[1]):
            found.append(_APART | second[1] << ID_BITS | group)
    return found
