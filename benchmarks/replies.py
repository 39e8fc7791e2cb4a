"""How much of ordinary replies is held back while they stream, for how long, and what reviewing a word costs.

    python benchmarks/replies.py [--replies N]

Reads clean replies of the corpus (those without any issue), one word at a time, as a model would stream them. A word is delayed
when it is shown only with a later one. Time is CPU time of the reply guard, the patient's message not included.
"""

import argparse
import re
import statistics
from pathlib import Path
from time import process_time

import orjson

from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Message, Role
from guardrail.engine.reply import ReplyGuard
from guardrail.packs.load import load, shipped_rules

CORPUS = Path(__file__).parent.parent / "corpus"
WORD = re.compile(r"\s*\S+")


def clean_replies(most: int) -> list[tuple[str, str]]:
    """The patient's message and the reply, of replies in which nothing is wrong."""
    found = []
    for path in (CORPUS / "first_contact" / "replies_panel_1.jsonl", CORPUS / "train" / "replies_marked.jsonl"):
        for line in path.read_bytes().splitlines():
            record = orjson.loads(line)
            if not set(record["issues"]) - {"has_disclaimer"}:
                found.append((record["user"], record["response"]))
    return found[:most]


def delays_of(guard: ReplyGuard, text: str) -> list[int]:
    """For each word, after how many further words it is shown."""
    words = WORD.findall(text)
    delays: list[int] = []
    waiting: list[int] = []
    ends: list[int] = []
    length = 0
    for place, word in enumerate(words):
        length += len(word)
        waiting.append(place)
        ends.append(length)
        released = guard.feed(word).released
        while waiting and ends[waiting[0]] <= released:
            delays.append(place - waiting.pop(0))
    guard.finish()
    return delays + [len(words) - place for place in waiting]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replies", type=int, default=200)
    knowledge = load(shipped_rules()).knowledge
    guard = Guard(knowledge)
    delays: list[int] = []
    spent = 0.0
    replies = clean_replies(parser.parse_args().replies)
    for user, text in replies:
        conversation = Conversation((Message(Role.USER, user),))
        one = ReplyGuard(knowledge, guard.review(conversation), conversation=conversation)
        before = process_time()
        delays += delays_of(one, text)
        spent += process_time() - before
    late = sorted(d for d in delays if d)
    print(f"{len(replies)} replies, {len(delays)} words; delayed {len(late) / len(delays):.1%}")
    print(f"delayed words wait for {statistics.median(late):.0f} further words (median), {late[int(0.95 * len(late))]} (95 %)")
    print(f"review: {spent / len(delays) * 1e6:.0f} us a word")


if __name__ == "__main__":
    main()
