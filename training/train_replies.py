"""Train the reader of replies: `python training/train_replies.py [--also FILE ...]` writes rules/replies/weights.npz.

Reads the replies of corpus/train/replies*.jsonl and of the files given with --also. Where a reply's lines say which
sentences are at fault (`spans`), those teach; where only the whole reply is labelled, the sentence that the weights of the
round before find worst is taken for it. One logistic regression an issue, thresholds on held-out replies (five folds).
Needs scikit-learn; takes half a minute.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Message, Role
from guardrail.engine.normalize import fold
from guardrail.engine.reply import Edit, ReplyGuard
from guardrail.engine.sentences import FIRST_WORD, ID_BITS, SentenceScorer, fact_feature, features
from guardrail.packs.load import load, shipped_rules

HERE = Path(__file__).parent
WORD = re.compile(r"[^\W_]+")
HEADS = (
    "dose_instruction",
    "stop_start_medication",
    "interaction_reassurance",
    "diagnosis_claim",
    "false_reassurance",
    "delay_advice",
    "fabricated_reasoning",
    "image_interpretation",
    "impersonates_clinician",
    "self_harm_facilitation",
    "personal_history",
    "has_disclaimer",
)
# In how many of the replies without any issue a head may speak, on held-out replies. An issue is often another one too (what
# delays also reassures), so that being right about which one matters less than leaving clean replies alone.
ALLOWED_CLEAN = 0.004
# There missing is worse: a reply that is cut for nothing still ends with the crisis line.
ALLOWED_IN_A_CRISIS = 0.03
# Issues that only a red flag makes one: their rules ask for it, and they are learnt from replies to one.
ON_A_RED_FLAG = ("false_reassurance", "delay_advice")
# Issues that are looked for only where the patient speaks of dying or of hurting themselves; learnt from all replies.
IN_A_CRISIS = ("self_harm_facilitation",)
# A sentence is held from where it leans: so low that of the sentences at fault only this share never does, unless more than
# that share of clean ones would.
MISSED, HELD = 0.06, 0.06
REGULARISATION = 2.0
# Weights below are left out: no sentence is decided by them.
SMALLEST = 0.04
UNITS = """mg mgs mcg ml mls g gram grams milligram milligrams unit units iu tablet tablets pill pills capsule capsules puff puffs drop
    drops teaspoon teaspoons tsp spoonful spoonfuls dose doses sachet sachets caplet caplets patch patches gummy gummies"""
TIMES = """hour hours hourly day days daily week weeks weekly month months minute minutes night nights morning mornings evening evenings
    bedtime noon lunchtime tomorrow tonight today"""
NUMBERS = """one two three four five six seven eight nine ten twelve fifteen twenty thirty forty half quarter double twice once couple
    another"""
# A feature counts that stands in so many sentences: rarer ones add little, and every one costs memory that has to be near.
SEEN = 5
# Words whose class would say less than they do.
OWN = """i you he she it we they the a an and or but not no is are was be to of in on at for with your my this that can could may might
    should will would have has had do does did if as from so me doctor pharmacist"""


@dataclass(frozen=True)
class Row:
    """One sentence: the words of it, the facts of its conversation, and the heads it is for, where that is known."""

    reply: int
    words: Sequence[str]
    facts: frozenset[str]
    heads: frozenset[str] | None


@dataclass(frozen=True)
class Reply:
    issues: frozenset[str]
    facts: frozenset[str]
    source: str
    marked: bool
    crisis: bool


class Splitter(ReplyGuard):
    """Takes a reply apart as the reply guard does, and reviews nothing."""

    def user(self) -> frozenset[str]:
        """What the patient's message holds."""
        return self._situation(self._replies)[0] if self._replies else frozenset()

    @property
    def sentences(self) -> list[tuple[int, int, list[str]]]:
        return self.__dict__.setdefault("found", [])

    def _close(self, unit: str, start: int, end: int, edits: list[Edit]) -> bool:
        words = [fold(w) for w in WORD.findall(unit[start:end])]
        if words:
            self.sentences.append((self._base + start, self._base + end, words))
        self._hold, self._hot, self._read, self._left, self._count, self._last_word = -1, False, False, 0, 0, ""
        return False


def read(paths: Sequence[Path], guard: Guard) -> tuple[list[Reply], list[Row]]:
    replies: list[Reply] = []
    rows: list[Row] = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            conversation = Conversation((Message(Role.USER, record["user"]),))
            splitter = Splitter(guard.knowledge, guard.review(conversation), conversation=conversation)
            facts = splitter.facts()
            crisis = "crisis" in facts or "crisis_hint" in splitter.user()
            replies.append(Reply(frozenset(record["issues"]), facts, path.stem, "spans" in record, crisis))
            splitter.feed(record["response"])
            splitter.finish()
            for start, end, words in splitter.sentences:
                marked = None
                if "spans" in record:
                    marked = frozenset(h for a, b, h in record["spans"] if a < end and start < b)
                rows.append(Row(len(replies) - 1, words, facts, marked))
    return replies, rows


def asked(reply: Reply, head: str) -> bool:
    """Whether a head is asked about a reply."""
    return teaches(reply, head) and (head not in IN_A_CRISIS or reply.crisis)


def teaches(reply: Reply, head: str) -> bool:
    """Whether a head learns from a reply."""
    if head == "personal_history":
        return reply.marked
    return head not in ON_A_RED_FLAG or "red_flag" in reply.facts


def word_classes(rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    """Every word with its own id, if it is seen often enough, and its class's.

    Classes are medicines, numbers, units and times first, else those of word_classes.tsv.
    """
    classes: dict[str, str] = {}
    for line in (HERE / "word_classes.tsv").read_text(encoding="utf-8").splitlines():
        word, _, fine = line.split("\t")
        classes[word] = f"class {fine}"
    for names in yaml.safe_load((shipped_rules() / "lists" / "drugs.yaml").read_text(encoding="utf-8")).values():
        for name in names:
            if WORD.fullmatch(name) and len(name) > 4:
                classes[fold(name)] = "a medicine"
    for name, listed in (("a unit", UNITS), ("a time", TIMES), ("a number", NUMBERS)):
        classes.update(dict.fromkeys(listed.split(), name))
    for word in OWN.split():
        classes[word] = word
    seen = Counter(w for row in rows for w in row.words)
    ids: dict[str, int] = {"a number": 2}
    for name in (*sorted(set(classes.values())), *sorted(w for w, n in seen.items() if n >= SEEN)):
        ids.setdefault(name, FIRST_WORD + len(ids))
    assert max(ids.values()) < 1 << ID_BITS, "more words than features have room for: raise SEEN"
    own = {w: ids[w] for w, n in seen.items() if n >= SEEN and not w[0].isdigit()}
    return {w: (own.get(w, 0), ids[classes[w]] if w in classes else 0) for w in (*classes, *(own.keys() - classes.keys()))}


def found_in(row: Row, words: dict[str, tuple[int, int]]) -> list[int]:
    """The features of a sentence, each as often as it occurs."""
    sentence = SentenceScorer((), words, {}, (), (), ()).begin()
    out = [fact_feature(f) for f in row.facts]
    for word in row.words:
        sentence.add(word)
        out += features(*sentence.words[-3:])
    return out


def matrix(listed: Sequence[Sequence[int]], columns: dict[int, int]) -> csr_matrix:
    indices: list[int] = []
    starts = [0]
    for found in listed:
        indices.extend(columns[f] for f in found if f in columns)
        starts.append(len(indices))
    out = csr_matrix((np.ones(len(indices)), indices, starts), shape=(len(listed), len(columns)))
    out.sum_duplicates()
    return out


def fit(x: csr_matrix, rows: Sequence[Row], replies: Sequence[Reply], used: np.ndarray, head: str) -> LogisticRegression:
    """Sentences that are marked teach first; then, of every reply known only as a whole, its worst sentence."""
    known = np.array([i for i in used if rows[i].heads is not None])
    model = LogisticRegression(C=REGULARISATION, solver="liblinear", intercept_scaling=10.0)
    model.fit(x[known], [head in (rows[i].heads or ()) for i in known])
    weak: dict[int, list[int]] = {}
    for i in used:
        if rows[i].heads is None:
            weak.setdefault(rows[i].reply, []).append(i)
    for _ in range(2):
        score = model.decision_function(x)
        chosen, answers = list(known), [head in (rows[i].heads or ()) for i in known]
        for reply, places in weak.items():
            if head in replies[reply].issues:
                chosen.append(max(places, key=lambda i: score[i]))
                answers.append(True)
            else:
                chosen += places
                answers += [False] * len(places)
        model.fit(x[chosen], answers)
    return model


def best_balance(scores: np.ndarray, has: np.ndarray) -> float:
    """The threshold of the best harmonic mean of precision and recall."""
    order = np.argsort(-scores)
    right = np.cumsum(has[order])
    place = int(np.argmax(2 * right / (np.arange(1, len(order) + 1) + has.sum())))
    return float(scores[order[place]]) - 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--also", type=Path, action="append", default=[], help="further files of labelled replies")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE.parent / "rules" / "replies" / "weights.npz")
    chosen = parser.parse_args()
    guard = Guard(load(shipped_rules()).knowledge)
    replies, rows = read([*sorted((HERE.parent / "corpus" / "train").glob("replies*.jsonl")), *chosen.also], guard)
    words = word_classes(rows)
    listed = [found_in(r, words) for r in rows]
    seen = Counter(f for found in listed for f in set(found))
    columns = {f: i for i, f in enumerate(f for f, n in seen.items() if n >= SEEN)}
    x = matrix(listed, columns)
    print(f"{len(replies)} replies, {len(rows)} sentences, {len(columns)} features", flush=True)
    fold = np.random.default_rng(0).integers(0, chosen.folds, len(replies))
    mine = np.array([fold[r.reply] for r in rows])
    of_reply = np.array([r.reply for r in rows])
    sources = sorted({r.source for r in replies})
    coefficients, bias, thresholds, leans = [], [], [], []
    for head in HEADS:
        held = np.full(len(rows), -np.inf)
        for k in range(chosen.folds):
            model = fit(x, rows, replies, np.array([i for i in np.flatnonzero(mine != k) if teaches(replies[rows[i].reply], head)]), head)
            held[mine == k] = model.decision_function(x[mine == k])
        worst = np.full(len(replies), -np.inf)
        np.maximum.at(worst, of_reply, held)
        judged = np.array([asked(r, head) for r in replies])
        has = np.array([head in r.issues for r in replies])
        quiet = np.array([not r.issues - {"has_disclaimer"} for r in replies]) & ~has & judged
        allowed = ALLOWED_IN_A_CRISIS if head in IN_A_CRISIS else ALLOWED_CLEAN
        threshold = max(best_balance(worst[judged], has[judged]), float(np.quantile(worst[quiet], 1 - allowed)))
        clean = np.array([not replies[r.reply].issues for r in rows])
        marked = np.array([head in (r.heads or ()) for r in rows])
        lean = min(float(np.quantile(held[marked], MISSED)), threshold - 1.0)
        lean = max(lean, float(np.quantile(held[clean], 1 - HELD)))
        share = (held[clean] > lean).mean(), (held[marked] > lean).mean()
        print(f"{head:26} threshold {threshold:6.2f} leans {lean:6.2f}: {share[0]:.3f} of clean, {share[1]:.2f} of marked", end="")
        for source in sources:
            here = np.array([r.source == source for r in replies])
            if (has & here).any():
                over = (worst > threshold) & judged
                print(f" | {source} {over[has & here].mean():.2f} of {(has & here).sum()}, {over[~has & here].sum()} wrongly", end="")
        model = fit(x, rows, replies, np.array([i for i, r in enumerate(rows) if teaches(replies[r.reply], head)]), head)
        coefficients.append(model.coef_[0])
        bias.append(float(model.intercept_[0]))
        lean = max(lean, bias[-1] + 0.5)  # a sentence that has said nothing leans nowhere
        over = (worst > threshold) & judged
        right = over[has].sum() / max(1, over.sum())
        print(f" | all: recall {over[has].mean():.2f} right {right:.2f} clean {over[quiet].mean():.4f}", flush=True)
        thresholds.append(threshold)
        leans.append(lean)
    table = np.stack(coefficients, axis=1)
    table[np.abs(table) < SMALLEST] = 0
    kept = np.flatnonzero(np.abs(table).max(axis=1) > 0)
    names = np.array(list(columns))[kept]
    used = {i for name in names.tolist() for i in (name % (1 << ID_BITS), (name >> ID_BITS) % (1 << ID_BITS))}
    words = {w: ids for w, (own, group) in words.items() if any(ids := (own * (own in used), group * (group in used)))}
    np.savez_compressed(
        chosen.out,
        heads=np.array(HEADS),
        words=np.array(list(words)),
        ids=np.array(list(words.values()), dtype=np.uint16),
        features=names.astype(np.int32),
        weights=table[kept].astype(np.float16),
        bias=np.array(bias),
        thresholds=np.array(thresholds),
        leans=np.array(leans),
    )
    print(f"{chosen.out.name}: {chosen.out.stat().st_size / 1e6:.1f} MB, {len(kept)} features")


if __name__ == "__main__":
    main()
