"""The trained reader of replies: sums by word, leaning, and evidence."""

import math

from guardrail.engine.sentences import FIRST_WORD, Sentence, SentenceScorer, fact_feature, features

TAKE, TWO, CLASS = FIRST_WORD, FIRST_WORD + 1, FIRST_WORD + 2
WORDS = {"take": (TAKE, TAKE), "two": (TWO, CLASS), "three": (FIRST_WORD + 3, CLASS)}

NONE = (0, 0)


def scorer(leans: float = 0.5) -> SentenceScorer:
    single = features(NONE, NONE, (TAKE, TAKE))[0]
    pair = next(f for f in features(NONE, (TAKE, TAKE), (TWO, CLASS)) if f not in features(NONE, NONE, (TWO, CLASS)))
    weights = {single: ((0, 1.0),), pair: ((0, 2.0),), fact_feature("red_flag"): ((1, 4.0),)}
    return SentenceScorer(("dose", "calm"), WORDS, weights, (-1.0, -3.0), (1.5, 0.5), (leans, 0.0))


def read(sentence: Sentence, *words: str) -> list[bool]:
    return [sentence.add(w) for w in words]


def test_a_sentence_leans_before_it_is_said_and_is_said_at_its_end() -> None:
    sentence = scorer().begin()

    assert read(sentence, "take", "two", "tablets") == [False, True, True]
    assert sentence.said() == ["dose"]
    assert sentence.near() == ["dose"]


def test_words_of_a_class_share_its_weight() -> None:
    shared = dict(scorer().weights)
    of_class = next(f for f in features(NONE, (TAKE, TAKE), (0, CLASS)) if f not in features(NONE, NONE, (0, CLASS)))
    one = SentenceScorer(("dose",), WORDS, {**shared, of_class: ((0, 5.0),)}, (0.0,), (4.0,), (0.0,))
    sentence = one.begin()

    read(sentence, "take", "three")

    assert sentence.said() == ["dose"]


def test_what_is_known_of_the_conversation_counts_from_the_start() -> None:
    assert scorer().begin(["red_flag"]).said() == ["calm"]
    assert scorer().begin([]).said() == []


def test_a_head_that_nothing_follows_from_does_not_hold() -> None:
    sentence = scorer().begin((), heeded=["calm"])

    assert read(sentence, "take", "two") == [False, False]
    assert sentence.leans[0] == math.inf
    assert sentence.said() == ["dose"]


def test_evidence_is_the_words_that_weigh_most() -> None:
    sentence = scorer().begin()
    read(sentence, "please", "take", "two", "now")

    assert sentence.evidence("dose") == [1, 2]


def test_an_unknown_word_has_no_features() -> None:
    assert features((TAKE, TAKE), (TAKE, TAKE), NONE) == []


def test_two_words_beside_each_other_are_not_the_two_with_a_word_between() -> None:
    beside, apart = features(NONE, (TAKE, TAKE), (TWO, TWO)), features((TAKE, TAKE), NONE, (TWO, TWO))

    assert beside != apart
    assert len(set(beside) | set(apart)) == 3


def test_what_is_the_same_for_word_and_class_counts_once() -> None:
    found = features((TAKE, TAKE), (TWO, CLASS), (TAKE, TAKE))

    assert len(found) == len(set(found))


def test_the_sums_are_those_of_the_features() -> None:
    weights = {f: ((0, float(f % 7)), (1, 1.0)) for f in features((TAKE, TAKE), (TWO, CLASS), (FIRST_WORD + 3, CLASS))}
    one = SentenceScorer(("dose", "calm"), WORDS, weights, (-1.0, 0.0), (0.0, 0.0), (0.0, 0.0))
    sentence = one.begin()
    read(sentence, "take", "two", "three")

    found = [f for i in range(2, 5) for f in features(*sentence.words[i - 2 : i + 1])]
    assert sentence.sums == [-1.0 + sum(float(f % 7) for f in found if f in weights), float(sum(f in weights for f in found))]
