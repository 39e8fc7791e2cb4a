"""Compiled phrases kept between starts: used when they fit, passed over when anything about them is odd."""

import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from guardrail.engine.finder import Compiled
from guardrail.engine.guard import Guard
from guardrail.engine.lexicon import Entry, Lexicon, LexiconBuilder
from guardrail.engine.model import Conversation, Message, Role
from guardrail.engine.normalize import tokenize
from guardrail.packs import cache
from guardrail.packs.load import load

RULES = Path(__file__).parent.parent / "small_rules"


def compiled() -> Compiled:
    builder = LexiconBuilder({"chest": ["chest", "breast bone"], "pain": ["pain+", "hurt+"]}, ["two"], ["the"])
    for phrase, name in (("{pain} & {chest}", "chest_pain"), ("{chest}", "chest"), ("short of (breath|air)", "breathless")):
        builder.add(phrase, Entry("concept", name))
    return builder.compile()


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def rules_found(folder: Path, kept: Path) -> list[str]:
    decision = Guard(load(folder, kept).knowledge).review(Conversation((Message(Role.USER, "I have chest pain"),)))
    return [hit.rule for hit in decision.hits]


def test_what_is_kept_finds_the_same(tmp_path: Path) -> None:
    made = compiled()
    tokens = tokenize("my breast bone really hurts and I am short of air, chest pain")

    cache.write(tmp_path, "key", made)
    read = cache.read(tmp_path, "key")

    assert read is not None
    assert read == made
    found = Lexicon(read, frozenset({"two"}), frozenset({"the"})).find(tokens)
    assert [m.entry.name for m in found] == ["chest_pain", "chest", "breathless", "chest_pain", "chest"]
    assert found == Lexicon(made, frozenset({"two"}), frozenset({"the"})).find(tokens)


def test_a_second_load_reads_what_the_first_kept(tmp_path: Path) -> None:
    first = rules_found(RULES, tmp_path)
    before = only_file(tmp_path).stat().st_mtime_ns

    second = rules_found(RULES, tmp_path)

    assert first == second == ["chest_pain"]
    assert only_file(tmp_path).stat().st_mtime_ns == before


def test_a_changed_phrase_is_compiled_anew(tmp_path: Path) -> None:
    rules, kept = tmp_path / "rules", tmp_path / "kept"
    shutil.copytree(RULES, rules)
    before = rules_found(rules, kept)
    (path,) = (rules / "small" / "concepts").iterdir()
    path.write_text(path.read_text(encoding="utf-8").replace('"chest pain"', '"elbow pain"'), encoding="utf-8")

    after = rules_found(rules, kept)

    assert (before, after) == (["chest_pain"], [])
    assert len(list(kept.iterdir())) == 2


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def open_to_others(path: Path) -> None:
    path.chmod(0o666)


def of_another_shape(path: Path) -> None:
    body = msgspec.msgpack.encode({"keys": []})
    path.write_bytes(sha256(body).digest() + body)


@pytest.mark.parametrize("spoil", [damaged, cut_short, open_to_others, of_another_shape])
def test_what_cannot_be_trusted_is_passed_over(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    cache.write(tmp_path, "key", compiled())
    spoil(only_file(tmp_path))

    assert cache.read(tmp_path, "key") is None


def test_a_folder_that_cannot_be_used_stops_nothing(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")

    assert rules_found(RULES, in_the_way / "kept") == ["chest_pain"]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for number in range(14):
        cache.write(tmp_path, f"key{number}", compiled())

    assert len(list(tmp_path.iterdir())) == 12
    assert cache.read(tmp_path, "key13") is not None
