"""The commands: what they print, and with which exit code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from guardrail.cli import main
from tests.conftest import SMALL_RULES

SMALL = ["--rules", str(SMALL_RULES)]


def run(*arguments: str, given: bytes | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=given)


def test_check_shows_decision_and_evidence() -> None:
    result = run("check", "I have chest pain, a rash", "--country", "GB", *SMALL)

    assert result.exit_code == 0
    assert result.output.startswith("EMERGENCY, ambulance: answer\n\nRule for chest_pain  [small/chest_pain]\n")
    assert '    "chest pain" (characters 7-17): Pain in the chest\n' in result.output
    assert "The patient is told:\n    This could be an emergency: call 999 now.\n" in result.output


def test_check_shows_what_a_mention_was_taken_for() -> None:
    result = run("check", "no chest pain", *SMALL)

    assert result.output.startswith("NONE: forward\n\nFound, and no rule holds:\n")
    assert '"chest pain" (characters 3-13): Pain in the chest, absent, because of "no"' in result.output


def test_check_as_json() -> None:
    result = run("check", "I have chest pain", "--json", *SMALL)

    answer = json.loads(result.output)
    assert answer["urgency"] == "emergency"
    assert answer["rules"] == [{"id": "chest_pain", "title": "Rule for chest_pain"}]
    assert answer["reply"] is None


def lines(result: Result) -> list[Any]:
    return [orjson.loads(line) for line in result.output.splitlines()]


def test_check_lines_keep_their_order_and_their_form(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    items = [
        {"id": "a", "text": "I have chest pain", "country": "gb"},
        {
            "id": 2,
            "messages": [
                {"role": "user", "content": "no chest pain"},
                {"role": "assistant", "content": "ok"},
                {"role": "user", "content": "hi"},
            ],
        },
        {"id": "c", "text": "hello", "response": "Drink water."},
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, items)) + b"\n\n")

    result = run("check", "--jsonl", str(path), *SMALL)
    first, second, third = lines(result)

    assert result.exit_code == 0
    assert first == {
        "id": "a",
        "urgency": "emergency",
        "destination": "ambulance",
        "topics": ["acute"],
        "action": "answer",
        "answer": "This could be an emergency: call 999 now.",
        "rules": [{"id": "chest_pain", "title": "Rule for chest_pain"}],
        "findings": [
            {
                "concept": "chest_pain",
                "turn": 0,
                "start": 7,
                "end": 17,
                "text": "chest pain",
                "polarity": "present",
                "time": "current",
                "subject": "patient",
                "cues": [],
            }
        ],
        "reply": None,
    }
    assert (second["id"], second["urgency"]) == (2, "none")
    assert second["findings"][0]["polarity"] == "absent"
    assert second["findings"][0]["cues"][0]["text"] == "no"
    assert third["reply"]["action"] in ("pass", "annotate")
    assert third["reply"]["issues"] == []
    assert third["reply"]["text"].startswith("Drink water.")


def test_a_bad_line_becomes_an_error_and_the_rest_goes_on() -> None:
    given = b'{"id": 1}\nnot json\n{"id": 3, "text": 4}\n{"id": 4, "text": "x", "txt": "y"}\n[]\n{"id": 6, "text": "hello"}\n'

    result = run("check", "--jsonl", "-", *SMALL, given=given)
    found = lines(result)

    assert result.exit_code == 1
    assert [line["id"] for line in found] == [1, None, 3, 4, None, 6]
    assert ["error" in line for line in found] == [True, True, True, True, True, False]
    assert found[0]["error"] == 'line 1: needs either "text" or "messages"'
    assert found[3]["error"].startswith('line 4: unknown field "txt"')


def test_lines_are_answered_as_they_come() -> None:
    command = [sys.executable, "-m", "guardrail", "check", "--jsonl", "-", *SMALL]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(b'{"id": %d, "text": "hello"}\n' % number)
            process.stdin.flush()
            assert orjson.loads(process.stdout.readline())["id"] == number
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["check", "text", "--jsonl", "-"],
        ["check", "--jsonl", "/no/such/file"],
        ["serve", "--port", "many"],
        ["serve", *SMALL],
        ["serve", "--upstream", "nonsense", *SMALL],
        ["serve", "--config", "/no/such/file"],
        ["test", "no_such_pack", *SMALL],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output


def test_broken_packs_are_1_and_say_where(tmp_path: Path) -> None:
    result = run("check", "x", "--rules", str(tmp_path))

    assert result.exit_code == 1
    assert "is not a folder of rule packs" in result.output


def test_settings_can_be_listed() -> None:
    result = run("serve", "--help-settings")

    assert result.exit_code == 0
    assert "\nfirst_byte_seconds (default: 120.0)\n    Time until the upstream begins to answer.\n" in result.output


def test_the_cases_of_packs_are_run() -> None:
    result = run("test", *SMALL)

    assert (result.exit_code, result.output) == (0, "6 cases, 0 failed\n")
    assert run("test", "rash", *SMALL).output == "2 cases, 0 failed\n"


def test_a_failed_case_names_its_place(tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "rules"
    shutil.copytree(SMALL_RULES, folder)
    (folder / "small" / "tests" / "rash.yaml").write_text('fires: ["hello"]\nquiet:\n  - "a rash"\nknown_miss: ["a rash"]\n')

    result = run("test", "rash", "--rules", str(folder))

    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "rules/small/tests/rash.yaml:1:9: rash did not fire: 'hello'",
        "rules/small/tests/rash.yaml:3:5: rash fired: 'a rash'",
        "rules/small/tests/rash.yaml:4:14: known_miss no longer holds: move it to fires",
        "2 cases, 2 failed, 1 known ones got better",
    ]


def test_lint_gives_advice_and_counts_it() -> None:
    result = run("lint", *SMALL)

    assert result.exit_code == 1
    assert result.output.splitlines()[-1].endswith("pieces of advice")


def test_schemas_are_written(tmp_path: Path) -> None:
    result = run("schema", str(tmp_path / "schemas"))

    assert result.exit_code == 0
    written = {path.name: json.loads(path.read_text()) for path in (tmp_path / "schemas").iterdir()}
    assert {"rule.schema.json", "concepts.schema.json", "tests.schema.json", "pack.schema.json"} <= written.keys()
    assert "when" in written["rule.schema.json"]["properties"]


def test_packs_are_listed() -> None:
    result = run("packs", *SMALL)

    assert "small                1.0.0       3 rules  Small (not yet reviewed by a clinician)" in result.output


def test_version() -> None:
    assert run("--version").output.startswith("guardrail, version ")
