"""English with the general vocabulary alone: what the engine's tests read, whatever the other packs say."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from guardrail.engine.guard import Guard
from guardrail.engine.knowledge import Knowledge
from guardrail.engine.model import Conversation, Decision, Finding, Message, Role
from guardrail.packs.load import load, shipped_rules


@cache
def general_knowledge() -> Knowledge:
    """The shipped languages and lists with the one pack that has no rules."""
    with TemporaryDirectory() as folder:
        return load(copy_general(Path(folder))).knowledge


def copy_general(folder: Path) -> Path:
    """A rules folder with what is shipped for all packs, and the general vocabulary."""
    shipped = shipped_rules()
    rules = folder / "rules"
    rules.mkdir()
    for name in ("policy.yaml", "contacts.yaml"):
        shutil.copy(shipped / name, rules / name)
    for name in ("languages", "lists", "general"):
        shutil.copytree(shipped / name, rules / name)
    return rules


def read(text: str) -> tuple[Finding, ...]:
    return general_guard().review(Conversation((Message(Role.USER, text),))).findings


@cache
def general_guard() -> Guard:
    return Guard(general_knowledge())


def talk(*turns: str, guard: Guard | None = None) -> Decision:
    """The decision after these turns; each begins with who speaks: "user: ...", "assistant: ...", "tool: ..."."""
    messages = tuple(Message(Role(who), text) for who, _, text in (t.partition(": ") for t in turns))
    return (guard or general_guard()).review(Conversation(messages))


@dataclass(frozen=True, slots=True)
class Marked:
    """A stretch of a marked sentence and what is expected of the mentions in it."""

    start: int
    end: int
    expected: str


def unmark(marked: str) -> tuple[str, list[Marked]]:
    """ "no [fever]{absent}, [cough]" -> the plain text, and each bracketed stretch; without a word it counts."""
    return _plain(marked), list(_stretches(marked))


def _plain(marked: str) -> str:
    out, rest = "", marked
    while rest:
        before, mark, after = rest.partition("[")
        out += before
        if not mark:
            break
        inside, _, rest = after.partition("]")
        out += inside
        if rest.startswith("{"):
            rest = rest.partition("}")[2]
    return out


def _stretches(marked: str) -> Iterator[Marked]:
    place, rest = 0, marked
    while "[" in rest:
        before, _, after = rest.partition("[")
        inside, _, rest = after.partition("]")
        expected = "counts"
        if rest.startswith("{"):
            expected, _, rest = rest[1:].partition("}")
        place += len(before)
        yield Marked(place, place + len(inside), expected)
        place += len(inside)
