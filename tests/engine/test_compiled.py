"""The compiled inner loops find what the Python finds, to the last bit; the Python is the reference.

Every text is read by both at once. Texts are the corpus and random ones, dense with words of the packs.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from guardrail.engine import finder, scorer
from guardrail.engine.compiled import COMPILED
from guardrail.engine.finder import Compiled, Mention
from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Message, Role
from guardrail.engine.scorer import Leans, Score, Vocabulary, Weights
from guardrail.packs.load import load, shipped_rules

CORPUS = Path(__file__).parent.parent.parent / "corpus"

pytestmark = pytest.mark.skipif(not COMPILED, reason="not compiled here: GUARDRAIL_COMPILE=1 pip install --editable .")


class BothFinders:
    """Finds with both forms, and insists on the same."""

    def __init__(self, compiled: Compiled, number_words: frozenset[str]) -> None:
        from guardrail.engine._finder import Finder

        self.words = list(compiled.keys)
        self.reference, self.compiled = finder.Finder(compiled, number_words), Finder(compiled, number_words)
        self.read = 0

    def find(self, words: list[str]) -> list[Mention]:
        found = self.reference.find(words)
        assert self.compiled.find(words) == found, words
        self.read += 1
        return found


class BothScorers(scorer.Scorer):
    """Scores with both forms, and insists on the same."""

    def __init__(self, vocabulary: Vocabulary, weights: Weights) -> None:
        from guardrail.engine._scorer import Scorer

        super().__init__(vocabulary, weights)
        self.compiled = Scorer(vocabulary, weights)
        self.over = 0

    def review(
        self, words: Sequence[str], concepts: Sequence[tuple[str, int]] = (), since: int = 0, glossed: bool = False
    ) -> tuple[list[Score], Leans]:
        scored = super().review(words, concepts, since, glossed)
        assert self.compiled.review(words, concepts, since, glossed) == scored, words
        self.over += len(scored[0])
        return scored


@pytest.fixture(scope="module")
def both() -> tuple[Guard, list[BothFinders]]:
    made: list[BothFinders] = []

    def make(compiled: Compiled, number_words: frozenset[str]) -> BothFinders:
        made.append(BothFinders(compiled, number_words))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("guardrail.engine.lexicon.Finder", make)
        patch.setattr("guardrail.packs.weights.Scorer", BothScorers)
        return Guard(load(shipped_rules()).knowledge, cache_messages=0), made


def conversations() -> list[Conversation]:
    """Every third of the corpus."""
    read = []
    for path in sorted(CORPUS.glob("*/*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines()[::3]:
            entry = json.loads(line)
            turns = entry.get("messages") or [{"role": "user", "content": entry.get("text") or entry.get("response", "")}]
            read.append(Conversation(tuple(Message(Role(t["role"]), t["content"]) for t in turns)))
    return read


def test_the_corpus_reads_the_same(both: tuple[Guard, list[BothFinders]]) -> None:
    guard, finders = both
    replies = guard.knowledge.replies
    assert replies is not None
    for conversation in conversations():
        guard.review(conversation)
        replies.lexicon.find(guard.knowledge.lexicon.read(conversation.messages[-1].text))

    assert all(f.read > 4000 for f in finders)
    assert isinstance(guard.knowledge.scorer, BothScorers)
    assert guard.knowledge.scorer.over > 1000


def test_random_texts_of_the_packs_words_read_the_same(both: tuple[Guard, list[BothFinders]]) -> None:
    guard, finders = both
    chance = random.Random(7)
    marks = [".", ",", "\n", "'s", "3", "38.5", "２", "zzyzx", "naïve", "心", "_"]
    for words in (f.words for f in finders):
        common = chance.sample(words, 300)
        for length in (0, 1, 2, 5, 30, 95, 96, 97, 200, 700) * 12:
            text = " ".join(chance.choice(chance.choice((words, common, common, marks))) for _ in range(length))
            guard.review(Conversation((Message(Role.USER, text.replace(" 's", "'s")),)))


def test_a_letter_is_read_the_same_wherever_sentences_are_cut(both: tuple[Guard, list[BothFinders]]) -> None:
    guard, _ = both
    scores = guard.knowledge.scorer
    assert scores is not None
    words = ["chest", "pain", ".", *["left", "arm", "numb"] * 25, "!", "."]
    for since in range(len(words)):
        scores.review(words, [("chest_pain", 0), ("no_such_concept", 1)], since, glossed=bool(since % 2))
