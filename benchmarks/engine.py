"""Time of the engine by length of text, growth with the number of phrases, time to load, memory of a worker.

Every text is read once and never before, so nothing is cached; figures are medians of CPU time. Run on an idle machine:

    python benchmarks/engine.py [--rules FOLDER]

The first line says which form of the inner loops was measured: in Python, or compiled (`GUARDRAIL_COMPILE=1 pip install --editable .`).
"""

import argparse
import gc
import json
import random
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import process_time

import yaml

from guardrail.app import load_guard
from guardrail.engine.compiled import COMPILED
from guardrail.engine.guard import Guard
from guardrail.engine.lexicon import Entry, Lexicon, LexiconBuilder
from guardrail.engine.model import Conversation, Message, Role
from guardrail.engine.normalize import tokenize
from guardrail.engine.phrases import PhraseError
from guardrail.packs.load import shipped_rules

CORPUS = Path(__file__).parent.parent / "corpus" / "train"
LONG_CHARS = 50_000
TARGETS = {"30 words": 150, "200 words": 800, "50 KB of prose": 60_000, "50 KB without a space": 60_000}
_CHILD = """
import sys, time
from pathlib import Path
started = time.perf_counter()
from guardrail.app import load_guard
imported = time.perf_counter()
guard = load_guard(Path(sys.argv[1]))
loaded = time.perf_counter()
pss = next(line.split()[1] for line in open("/proc/self/smaps_rollup") if line.startswith("Pss:"))
print(imported - started, loaded - imported, int(pss) / 1024)
"""


def messages() -> list[str]:
    """The texts of the training corpus, in an order that is always the same."""
    texts = [
        json.loads(line)["text"]
        for path in sorted(CORPUS.glob("*.jsonl"))
        if path.name != "replies.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines()
        if '"text"' in line
    ]
    random.Random(1).shuffle(texts)
    return texts


def texts_of(words: int, count: int, source: Iterator[str]) -> list[str]:
    """So many texts of so many words each, cut from messages that are used once."""
    out: list[str] = []
    while len(out) < count:
        parts: list[str] = []
        while len(parts) < words:
            parts += next(source).split()
        out.append(" ".join(parts[:words]))
    return out


def median_us(guard: Guard, texts: list[str]) -> float:
    times: list[float] = []
    for text in texts:
        conversation = Conversation((Message(Role.USER, text),))
        started = process_time()
        guard.review(conversation)
        times.append(process_time() - started)
    return statistics.median(times) * 1e6


def measured(rules: Path) -> Iterator[tuple[str, float]]:
    guard = Guard(load_guard(rules).knowledge, cache_messages=0)
    gc.collect()
    gc.freeze()  # as the server does
    source = iter(messages())
    median_us(guard, texts_of(30, 50, source))  # the first messages pay for imports and tables
    yield "30 words", median_us(guard, texts_of(30, 200, source))
    yield "200 words", median_us(guard, texts_of(200, 40, source))
    prose = " ".join(messages())
    letters = random.Random(2)
    yield "50 KB of prose", median_us(guard, [prose[i * LONG_CHARS : (i + 1) * LONG_CHARS] for i in range(3)])
    solid = ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=LONG_CHARS)) for _ in range(3)]
    yield "50 KB without a space", median_us(guard, solid)


def growth(rules: Path) -> tuple[int, float, float]:
    """Phrases of the packs, and microseconds to find them in 30 words, alone and beside as many more of the same words."""
    texts = [tokenize(t) for t in texts_of(30, 150, iter(messages()))]
    lists: dict[str, list[str]] = {}
    for path in sorted((rules / "lists").glob("*.yaml")):
        lists |= yaml.safe_load(path.read_text(encoding="utf-8"))
    phrases: list[str] = []
    for path in sorted(rules.glob("*/concepts/*.yaml")):
        for concept in yaml.safe_load(path.read_text(encoding="utf-8")).values():
            found = concept.get("phrases", ())
            phrases += found if isinstance(found, list) else [p for group in found.values() for p in group]
    one = _lexicon(lists, phrases)
    two = _lexicon(lists, phrases + [_turned(p) for p in phrases])
    return len(phrases), *(_find_us(lexicon, texts) for lexicon in (one, two))


def _lexicon(lists: dict[str, list[str]], phrases: list[str]) -> Lexicon:
    builder = LexiconBuilder({name: [str(i) for i in items] for name, items in lists.items()})
    for i, phrase in enumerate(phrases):
        try:
            builder.add(phrase, Entry("concept", f"c{i}"))
        except PhraseError:
            continue  # a phrase turned round may be none
    return builder.build()


def _turned(phrase: str) -> str:
    """The parts of a phrase from last to first: the same words, another thing said."""
    parts: list[str] = []
    depth = 0
    for mark in re.findall(r"[()]\??|[^\s()]+", phrase):
        if depth or (mark.startswith(")") and parts):
            parts[-1] += " " + mark
        else:
            parts.append(mark)
        depth += (mark[0] == "(") - (mark[0] == ")")
    return " ".join(reversed(parts))


def _find_us(lexicon: Lexicon, texts: list) -> float:  # type: ignore[type-arg]  # of Tokens
    times: list[float] = []
    for tokens in texts:
        started = process_time()
        lexicon.find(tokens)
        times.append(process_time() - started)
    return statistics.median(times) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=Path, default=shipped_rules())
    rules = parser.parse_args().rules
    print("compiled\n" if COMPILED else "in Python\n")
    print("| text, never seen before | median us | target |\n|---|---|---|")
    for name, time_us in measured(rules):
        print(f"| {name} | {time_us:,.0f} | {TARGETS[name]:,} |", flush=True)
    count, one, two = growth(rules)
    print(f"\nfinding {count:,} phrases in 30 words: {one:,.0f} us; with as many more of the same words: {two:,.0f} us ({two / one:.2f}x)")
    child = subprocess.run([sys.executable, "-c", _CHILD, str(rules)], capture_output=True, check=True, text=True)
    imported, loaded, memory = map(float, child.stdout.split())
    print(f"import {imported:.2f} s, load {loaded:.2f} s (target 1.5 s together), memory of a worker {memory:.0f} MB (target 120 MB)")


if __name__ == "__main__":
    main()
