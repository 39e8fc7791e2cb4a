"""Train the scorer: `python training/train_scorer.py [--also DIR ...] [--check DIR]` writes rules/scorer/weights.npz.

Reads every message of corpus/train and of the folders given with --also (JSONL in the same format). Four logistic
regressions on the features of `guardrail.engine.scorer`, then one threshold a head: the lowest at which no more than a
set share of quiet messages is raised, on messages the weights have not seen (five folds). Prints those held-out figures.
Needs scikit-learn; takes about two minutes.
"""

import argparse
import json
from bisect import bisect_right
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from scipy.sparse import csr_matrix, diags
from sklearn.linear_model import LogisticRegression

from guardrail.check import read_item
from guardrail.engine.conversation import current_turns, together
from guardrail.engine.guard import Guard
from guardrail.engine.languages import ENGLISH
from guardrail.engine.model import Conversation, Decision, Topic, Urgency
from guardrail.engine.scorer import (
    GROUP_MASK,
    HEADS,
    SMALLEST_WINDOW,
    TABLE_BITS,
    Scorer,
    Vocabulary,
    Weights,
    letter_groups,
    pair_features,
    sentences_of,
    word_features,
)
from guardrail.packs.load import load, shipped_rules

T = TypeVar("T")
HERE = Path(__file__).parent
# Share of quiet messages each head may raise on its own. Half of them are near misses written to be hard, so that everyday
# ones are raised less often; a stricter share was tried and lost one emergency in thirty that phrases do not know.
ALLOWED = {"emergency": 0.012, "urgent": 0.025, "crisis": 0.018, "medication": 0.025}
REGULARISATION = 2.0  # C of the regressions; flat between 0.5 and 4 on held-out folds
PAIRS, GROUPS = 1 << TABLE_BITS, GROUP_MASK + 1
JOINED = 300  # long quiet texts, put together of short ones


@dataclass(frozen=True)
class Row:
    words: Sequence[str]
    concepts: tuple[str, ...]
    at: tuple[int, ...]
    by_rules: tuple[bool, bool, bool, bool]
    """What the phrases alone say, for each head."""
    labels: tuple[bool, bool, bool, bool]
    quiet: tuple[bool, bool, bool, bool]
    source: str
    glossed: bool


def rows_of(folder: Path, source: str, guard: Guard) -> list[Row]:
    """The messages of a folder, with the concepts the packs find in them; conversations as the guard puts them together."""
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if "triage" not in record:
                continue
            conversation, _ = read_item({key: record[key] for key in ("text", "messages") if record.get(key) is not None})
            decision = guard.review(conversation)
            words, concepts, at = as_scored(conversation, guard, decision)
            if not words:
                continue
            by_rules = (
                decision.urgency is Urgency.EMERGENCY,
                decision.urgency >= Urgency.URGENT,
                Topic.CRISIS in decision.topics,
                Topic.MEDICATION in decision.topics,
            )
            calm = record["triage"] in ("routine", "none")
            labels = (record["triage"] == "emergency", not calm, bool(record["crisis"]), bool(record["medication"]))
            quiet = (calm, calm, not record["crisis"], not record["medication"])
            glossed = not str(record.get("lang", "en")).startswith("en")
            kind = "turns" if "messages" in record else str(record.get("lang", "en")).split("-")[0]
            rows.append(Row(words, concepts, at, by_rules, labels, quiet, source if kind == "en" else f"{source}:{kind}", glossed))
    return rows


def as_scored(conversation: Conversation, guard: Guard, decision: Decision) -> tuple[Sequence[str], tuple[str, ...], tuple[int, ...]]:
    """The words the second reader reads of a conversation, and the concepts that count with the token each begins at."""
    messages = conversation.messages
    last = messages[-1]
    if len(messages) > 1:
        joined = together(messages, finished(guard.readings(conversation)), current_turns(messages))
        if joined is not None:
            return joined.words, tuple(c for c, _ in joined.counting), tuple(t for _, t in joined.counting)
    tokens = guard.knowledge.lexicon.read(last.text)
    languages = guard.knowledge.languages
    if (language := languages.of(tokens.words)) != ENGLISH:
        tokens = languages.in_english(tokens, language)
    counting = [f for f in decision.findings if f.assertion.counts and f.turn == len(messages) - 1]
    starts = list(tokens.starts)
    return tokens.words, tuple(f.concept for f in counting), tuple(bisect_right(starts, f.start) - 1 for f in counting)


def joined(rows: Sequence[Row], count: int) -> list[Row]:
    """Long harmless talk, of which little is written: two to five quiet English messages one after the other.

    Without them a long story about nothing reads like danger, because it says so much.
    """
    chance = np.random.default_rng(1)
    pool = [r for r in rows if r.quiet[0] and r.quiet[2] and not r.glossed and not r.source.endswith(":turns")]
    out = []
    for _ in range(count):
        words: list[str] = []
        concepts: list[str] = []
        at: list[int] = []
        medication = False
        for row in (pool[i] for i in chance.choice(len(pool), chance.integers(2, 6), replace=False)):
            concepts += row.concepts
            at += [len(words) + i for i in row.at]
            words += [*row.words, "."]
            medication |= row.labels[3]
        labels = (False, False, False, medication)
        out.append(Row(words, tuple(concepts), tuple(at), labels, labels, (True, True, True, not medication), "joined", False))
    return out


def finished(steps: Generator[None, None, T]) -> T:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result


def vocabulary() -> Vocabulary:
    ids, coarse, fine = {}, [0], [0]
    for number, line in enumerate((HERE / "word_classes.tsv").read_text(encoding="utf-8").splitlines(), 1):
        word, a, b = line.split("\t")
        ids[word] = number
        coarse.append(int(a))
        fine.append(int(b))
    views = np.array([range(len(coarse)), [100_000 + c for c in coarse], [200_000 + f for f in fine]], dtype=np.uint64)
    return Vocabulary(ids, views)


def matrix(rows: Sequence[Row], words: Vocabulary, concepts: Mapping[str, int]) -> csr_matrix:
    """One row a message: every feature at every place, the whole scaled as the scorer scales a window."""
    indices: list[int] = []
    values, starts = [], [0]
    for row in rows:
        _, views = words.look_up(row.words)
        index, there = pair_features(views, sentences_of(row.words))
        pairs = index[there]
        indices.extend(word_features(views).ravel())
        indices.extend(pairs)
        indices.extend(PAIRS + g for w in row.words for g in letter_groups(w))
        indices.extend(PAIRS + GROUPS + concepts[c] for c in row.concepts if c in concepts)
        size = max(len(row.words) + len(pairs) + len(row.concepts), SMALLEST_WINDOW)
        values.append(np.full(len(indices) - starts[-1], 1 / np.sqrt(size)))
        starts.append(len(indices))
    found = csr_matrix((np.concatenate(values), indices, starts), shape=(len(rows), PAIRS + GROUPS + len(concepts)))
    found.sum_duplicates()
    return found


def rarity(features: csr_matrix) -> np.ndarray:
    """Rare features speak louder; those seen once or twice say nothing that generalises."""
    seen = np.bincount(features.indices, minlength=features.shape[1])
    weight: np.ndarray = np.log(features.shape[0] / (1 + seen)) + 1
    weight[seen < 2] = 0
    return weight


def fit(features: csr_matrix, rows: Sequence[Row], weight: np.ndarray, words: Vocabulary, concepts: Mapping[str, int]) -> Weights:
    scale = rarity(features)
    scaled = features @ diags(scale)
    columns, bias = [], []
    for head in range(len(HEADS)):
        # Urgent messages are neither: the emergency head learns emergencies against quiet ones, so that it can be strict.
        used = np.array([r.labels[head] or r.quiet[head] for r in rows])
        answers = np.array([r.labels[head] for r in rows])[used]
        model = LogisticRegression(C=REGULARISATION, solver="liblinear", intercept_scaling=10.0)
        model.fit(scaled[used], answers, sample_weight=weight[used])
        columns.append(model.coef_[0] * scale)
        bias.append(model.intercept_[0])
    found = np.stack(columns, axis=1).astype(np.float32)
    pairs, groups, known = found[:PAIRS], found[PAIRS : PAIRS + GROUPS], found[PAIRS + GROUPS :]
    own = np.zeros((words.views.shape[1], len(HEADS)), dtype=np.float32)
    single = word_features(words.views)
    for word, number in words.ids.items():
        own[number] = pairs[single[:, number]].sum(axis=0) + groups[letter_groups(word)].sum(axis=0)
    by_concept = {c: known[i] for c, i in concepts.items()}
    return Weights(own, groups, pairs, by_concept, np.array(bias, dtype=np.float32), np.zeros((2, len(HEADS)), np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--also", type=Path, action="append", default=[], help="further folders of labelled messages")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE.parent / "rules" / "scorer" / "weights.npz")
    chosen = parser.parse_args()
    knowledge = replace(load(shipped_rules()).knowledge, scorer=None)
    guard = Guard(knowledge)
    rows = rows_of(HERE.parent / "corpus" / "train", "train", guard)
    for folder in chosen.also:
        rows += rows_of(folder, folder.name, guard)
    rows += joined(rows, JOINED)
    print(f"{len(rows)} messages read", flush=True)
    words = vocabulary()
    concepts = {c: i for i, c in enumerate(sorted({c for r in rows for c in r.concepts}))}
    features = matrix(rows, words, concepts)
    weight = np.array([1.0 if r.source == "train" else 2.0 for r in rows])
    fold = np.random.default_rng(0).integers(0, chosen.folds, len(rows))
    held = np.zeros((len(rows), len(HEADS)))
    for k in range(chosen.folds):
        known = np.flatnonzero(fold != k)
        scorer = Scorer(words, fit(features[known], [rows[i] for i in known], weight[known], words, concepts))
        for i in np.flatnonzero(fold == k):
            held[i] = scorer.scores(rows[i].words, tuple(zip(rows[i].concepts, rows[i].at, strict=True)))
        print(f"fold {k + 1} of {chosen.folds}", flush=True)
    thresholds = np.zeros((2, len(HEADS)), dtype=np.float32)
    glossed = np.array([r.glossed for r in rows])
    for head, name in enumerate(HEADS):
        quiet = np.array([r.quiet[head] for r in rows])
        for kind, here in enumerate((~glossed, glossed)):
            if (quiet & here).any():
                thresholds[kind, head] = np.quantile(held[quiet & here, head], 1 - ALLOWED[name])
        needed = thresholds[glossed.astype(int), head]
        for source in sorted({r.source for r in rows}):
            here = np.array([r.source == source for r in rows])
            true, calm = np.array([r.labels[head] for r in rows]) & here, quiet & here
            if not true.any() or not calm.any():
                continue
            by_rules, by_score = np.array([r.by_rules[head] for r in rows]), held[:, head] > needed
            print(f"{name:10} {source:8} {true.sum():5} true {calm.sum():5} quiet", end="")
            for label, found in (("phrases", by_rules), ("held-out score", by_score), ("either", by_rules | by_score)):
                print(f" | {label} {found[true].mean():.3f} raised {found[calm].mean():.4f}", end="")
            print()
    weights = fit(features, rows, weight, words, concepts)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        chosen.out,
        words=np.array(list(words.ids)),
        classes=words.views[1:, 1:].T.astype(np.uint32),
        own=weights.own.astype(np.float16),
        groups=weights.groups.astype(np.float16),
        pairs=weights.pairs.astype(np.float16),
        concepts=np.array(list(weights.concepts)),
        concept_weights=np.stack(list(weights.concepts.values())).astype(np.float16),
        bias=weights.bias,
        thresholds=thresholds,
        heads=np.array(HEADS),
    )
    print(f"{chosen.out.name}: {chosen.out.stat().st_size / 1e6:.1f} MB, {len(rows)} messages")


if __name__ == "__main__":
    main()
