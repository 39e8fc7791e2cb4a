"""`guardrail explain`: a text and a recorded exchange, in one form."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from guardrail.audit.keys import TextKeys, add_text_key
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.audit.store import AuditStore
from guardrail.cli import main
from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Message, Role
from tests.conftest import SMALL_RULES

EXPLAINED = """
The patient wrote, with [evidence], {words that change what a mention means} and <what else was found>:
    I have [chest pain], {no} <a rash>

Why:
  Rule for chest_pain  [small/chest_pain]
    For tests.
    tier E1, live; worse mistake: missing
    source: Test (grade V)
    "chest pain": Pain in the chest; present, current, patient

Found, and did not count:
    "a rash": Rash; absent, current, patient, by "no" (negated)

What would have changed the result:
    without "chest pain" (evidence): NONE
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments, "--rules", str(SMALL_RULES)])


def test_a_text(small_guard: Guard) -> None:
    result = run("I have chest pain, no a rash", "--country", "GB")

    assert result.exit_code == 0
    assert result.output == (
        f"EMERGENCY, ambulance: answer\n{EXPLAINED}\n"
        "The patient is told:\n    This could be an emergency: call 999 now.\n\n"
        f"packs {small_guard.knowledge.revision}\n"
    )


def test_nothing_found() -> None:
    output = run("hello").output

    assert output.startswith("NONE, none: forward\n")
    assert "What would have changed the result:\n    there was nothing to leave out\n" in output


@pytest.fixture
def url(tmp_path: Path, small_guard: Guard) -> str:
    return f"sqlite:///{tmp_path}/audit.db"


def record(store: AuditStore, guard: Guard, text: str = "I have chest pain, no a rash") -> None:
    decision = guard.review(Conversation((Message(Role.USER, text),), "GB"))
    store.record(ExchangeRecord("id1", 1_700_000_000.0, "chat", Outcome.ANSWERED, decision, texts=(text,), turns=(0,)))
    store.close()


def test_a_recorded_exchange_is_explained_alike_and_that_is_recorded(url: str, small_guard: Guard) -> None:
    record(AuditStore(url), small_guard)

    result = run("id1", "--audit", url)

    assert result.output == (
        "exchange id1, 2023-11-14 22:13:20 UTC, answered\n"
        f"EMERGENCY, ambulance: answer\n{EXPLAINED}\npacks {small_guard.knowledge.revision}\n"
    )
    lines = [json.loads(line) for line in CliRunner().invoke(main, ["audit", "export", "--audit", url]).output.splitlines()]
    assert {line["entry"]["action"]: line["entry"]["exchange"] for line in lines if line["kind"] == "access"}["opened"] == "id1"


def test_an_encrypted_one_needs_the_keys(url: str, small_guard: Guard, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    add_text_key(keys)
    record(AuditStore(url, text="encrypted", keys=TextKeys.read(keys)), small_guard)

    closed = run("id1", "--audit", url).output
    opened = run("id1", "--audit", url, "--text-keys", str(keys)).output

    assert "The text is not kept, or is encrypted (--text-keys).\n" in closed
    assert "  Rule for chest_pain  [small/chest_pain]\n    For tests.\n" in closed
    assert "    cannot be told: the text is not kept, or not shown to you\n" in closed
    assert EXPLAINED in opened


def test_an_exchange_that_is_not_there(url: str, small_guard: Guard) -> None:
    record(AuditStore(url), small_guard)

    result = run("id2", "--audit", url)

    assert result.exit_code == 2
    assert 'there is no exchange "id2"' in result.output


def test_a_text_though_a_record_is_named(url: str, small_guard: Guard) -> None:
    record(AuditStore(url), small_guard)

    assert run("a rash", "--audit", url, "--text").output.startswith("URGENT, same day clinician: annotate\n")
