"""Reading labelled files: three kinds of lines, and every problem with its place."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from guardrail.check import read_item
from guardrail.engine.model import Conversation, Urgency
from guardrail.stress.labelled import Labelled, UnusableCorpus, read_corpus


def read(item: Mapping[str, Any]) -> Conversation:
    return read_item(item)[0]


def corpus(folder: Path, *lines: str) -> list[Labelled]:
    (folder / "some.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return read_corpus([folder], read)


def problems(folder: Path, *lines: str) -> str:
    with pytest.raises(UnusableCorpus) as raised:
        corpus(folder, *lines)
    return str(raised.value)


def test_a_message_keeps_its_labels_and_slices(tmp_path: Path) -> None:
    line = '{"id": "a", "text": "chest pain", "triage": "emergency", "crisis": false, "lang": "en", "category": "acs"}'

    (item,) = corpus(tmp_path, line, "")

    assert (item.kind, item.triage, item.medication, item.crisis) == ("message", Urgency.EMERGENCY, None, False)
    assert item.slices == {"lang": "en", "category": "acs", "file": "some.jsonl"}


def test_a_conversation_has_all_its_turns(tmp_path: Path) -> None:
    turns = '[{"role": "user", "content": "hello"}, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "a rash"}]'

    (item,) = corpus(tmp_path, f'{{"messages": {turns}, "triage": "urgent"}}')

    assert [m.text for m in item.conversation.messages] == ["hello", "yes?", "a rash"]
    assert item.id == "some.jsonl:1"


def test_a_mention_knows_its_place_and_whether_it_counts(tmp_path: Path) -> None:
    line = '{"text": "no chest pain", "span": "chest pain", "assertion": "%s"}'

    absent, other = corpus(tmp_path, line % "absent", line % "other_present")

    assert (absent.kind, absent.span, absent.counts) == ("mention", (3, 13), False)
    assert other.counts


def test_a_reply_keeps_its_issues(tmp_path: Path) -> None:
    (item,) = corpus(tmp_path, '{"user": "how much", "response": "Two.", "issues": ["dose_instruction"]}')

    assert (item.kind, item.response, item.issues) == ("reply", "Two.", frozenset({"dose_instruction"}))


def test_all_problems_are_listed_with_file_and_line(tmp_path: Path) -> None:
    said = problems(
        tmp_path,
        "not json",
        "[]",
        '{"text": "x"}',
        '{"text": "x", "triage": "grave"}',
        '{"text": "x", "medication": "yes"}',
        '{"triage": "none"}',
        '{"text": "x", "span": "y", "assertion": "absent"}',
        '{"text": "x", "span": "x", "assertion": "maybe"}',
        '{"user": "u", "response": "r", "issues": ["rude"]}',
        '{"user": "u", "response": "r"}',
        '{"id": "b", "text": "x", "triage": "none"}',
        '{"id": "b", "text": "x", "triage": "none"}',
    ).splitlines()

    assert [line.split(": ", 1)[0] for line in said] == [f"some.jsonl:{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12)]
    assert said[1] == "some.jsonl:2: is not an object"
    assert said[2] == "some.jsonl:3: has no label; add triage, medication or crisis"
    assert said[3] == 'some.jsonl:4: triage "grave" is not known; use one of none, routine, urgent, emergency'
    assert said[5] == 'some.jsonl:6: needs either "text" or "messages"'
    assert said[6] == 'some.jsonl:7: span "y" does not stand in the text; copy it as it is written there'
    assert said[-1] == 'some.jsonl:12: id "b" stands at some.jsonl:11 too; ids are unique over all files'


def test_an_empty_folder_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(UnusableCorpus, match="holds no"):
        read_corpus([tmp_path], read)
