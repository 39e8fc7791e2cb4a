"""Trained weights: the second reader's (`rules/scorer/weights.npz`) and the reader's of replies (`rules/replies/weights.npz`)."""

from pathlib import Path

import numpy as np

from guardrail.engine.compiled import Scorer
from guardrail.engine.scorer import HEADS, Vocabulary, Weights
from guardrail.engine.sentences import SentenceScorer
from guardrail.errors import Problem

ARRAYS = frozenset({"words", "classes", "own", "groups", "pairs", "concepts", "concept_weights", "bias", "thresholds", "heads"})


def read_scorer(path: Path, name: str, problems: list[Problem]) -> Scorer | None:
    """The scorer, or None with a problem when the file is not what this version understands."""
    remedy = "train it again with training/train_scorer.py, or remove the file to run on rules alone"
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {key: data[key] for key in data.files}
    except (OSError, ValueError) as error:
        problems.append(Problem(name, 1, 1, f"cannot be read: {error}", remedy))
        return None
    if set(arrays) != ARRAYS or tuple(arrays["heads"]) != HEADS:
        problems.append(Problem(name, 1, 1, "was made by another version", remedy))
        return None
    words = arrays["words"].tolist()
    classes = np.concatenate([np.zeros((1, 2), dtype=np.uint64), arrays["classes"].astype(np.uint64)])
    views = np.stack([np.arange(len(words) + 1, dtype=np.uint64), classes[:, 0], classes[:, 1]])
    concept_weights = arrays["concept_weights"].astype(np.float32)
    weights = Weights(
        own=arrays["own"],
        groups=arrays["groups"],
        pairs=arrays["pairs"],
        concepts={c: concept_weights[i] for i, c in enumerate(arrays["concepts"].tolist())},
        bias=arrays["bias"],
        thresholds=arrays["thresholds"],
    )
    return Scorer(Vocabulary({w: i for i, w in enumerate(words, 1)}, views), weights)


def read_sentence_scorer(path: Path, read_bytes: list[bytes], problems: list[Problem]) -> SentenceScorer | None:
    """The reader of replies, or None where the pack has none; what was read is added to `read_bytes`."""
    if not path.is_file():
        return None
    read_bytes.append(path.read_bytes())
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {key: data[key] for key in data.files}
        heads: tuple[str, ...] = tuple(arrays["heads"].tolist())
        ids = zip(*arrays["ids"].T.tolist(), strict=True)
        places, columns = arrays["weights"].nonzero()
        values = arrays["weights"].astype(np.float64)[places, columns].tolist()
        same: dict[tuple[int, float], tuple[int, float]] = {}  # weights are rounded, so that few of them differ
        listed: dict[int, list[tuple[int, float]]] = {}
        for feature, *weight in zip(arrays["features"][places].tolist(), columns.tolist(), values, strict=True):
            pair = weight[0], weight[1]
            listed.setdefault(feature, []).append(same.setdefault(pair, pair))
        return SentenceScorer(
            heads=heads,
            words=dict(zip(arrays["words"].tolist(), ids, strict=True)),
            weights={feature: tuple(pairs) for feature, pairs in listed.items()},
            bias=tuple(arrays["bias"].tolist()),
            thresholds=tuple(arrays["thresholds"].tolist()),
            leans=tuple(arrays["leans"].tolist()),
        )
    except (OSError, ValueError, KeyError) as error:
        remedy = "train it again with training/train_replies.py, or remove the file to run on the phrases alone"
        problems.append(Problem(path.name, 1, 1, f"cannot be read: {error}", remedy))
        return None
