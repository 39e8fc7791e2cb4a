"""What a run writes: figures, mistakes with their evidence, a page, and what changed against an earlier run."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from guardrail.cli import main
from guardrail.stress.page import Piece, marked
from tests.conftest import SMALL_RULES

CORPUS = """\
{"id": "e1", "text": "I have chest pain <b>now</b>", "triage": "emergency", "style": "plain", "why": "plain"}
{"id": "e2", "text": "my arm is numb", "triage": "emergency", "style": "terse"}
{"id": "q1", "text": "a rash <script>alert()</script>", "triage": "routine", "medication": false, "style": "plain"}
{"id": "q2", "text": "hello", "triage": "none", "medication": false, "style": "plain"}
{"id": "m1", "text": "no chest pain", "span": "chest pain", "assertion": "absent"}
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text(CORPUS, encoding="utf-8")
    return path


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments), "--rules", str(SMALL_RULES)])


def test_figures_are_printed_with_intervals(corpus: Path) -> None:
    result = evaluate(corpus)

    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert result.exit_code == 0
    assert "emergency recognised as emergency 50.0 % (1/2, 9.5 to 90.5)" in lines
    assert "urgent or above raised on routine or none 50.0 % (1/2, 9.5 to 90.5)" in lines
    assert "mentions: assertion right 100.0 % (1/1, 20.7 to 100.0)" in lines
    assert "emergency 1 0 0 1" in lines
    assert "by style" in result.output
    assert "time per message: median" in result.output


def test_mistakes_are_written_with_their_evidence(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    evaluate(corpus, "--out", out)

    (miss,) = [json.loads(line) for line in (out / "misses.jsonl").read_text().splitlines()]
    (alarm,) = [json.loads(line) for line in (out / "alarms.jsonl").read_text().splitlines()]
    assert (miss["id"], miss["mistakes"], miss["rules"]) == ("e2", ["emergency_missed"], [])
    assert (alarm["id"], alarm["mistakes"], alarm["urgency"]) == ("q1", ["urgent_raised"], "urgent")
    assert alarm["rules"][0]["evidence"][0]["text"] == "a rash"
    results = json.loads((out / "results.json").read_text())
    assert results["items"] == {"e1": [], "e2": ["emergency_missed"], "q1": ["urgent_raised"], "q2": [], "m1": []}


def test_the_page_marks_evidence_and_escapes_what_patients_wrote(corpus: Path, tmp_path: Path) -> None:
    evaluate(corpus, "--out", tmp_path / "out")

    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")

    assert '<mark class="acted" title="rash">a rash</mark> &lt;script&gt;alert()&lt;/script&gt;' in page
    assert "<script>alert" not in page
    assert '<option value="urgent_raised">urgent raised (1)</option>' in page
    assert "src=" not in page


def test_against_an_earlier_run(corpus: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    evaluate(corpus, "--out", before)
    changed = json.loads((before / "results.json").read_text())
    changed["items"] = {"e1": ["emergency_missed"], "e2": [], "q1": [], "q2": ["urgent_raised"], "gone": []}
    (before / "results.json").write_text(json.dumps(changed))

    result = evaluate(corpus, "--against", before, "--out", tmp_path / "after")

    assert "newly missed: 1\n    e2  emergency\n" in result.output
    assert "newly caught: 1\n    e1  emergency\n" in result.output
    assert "newly raised: 1\n    q1  urgent\n" in result.output
    assert "no longer raised: 1\n    q2  urgent\n" in result.output
    assert "(1 items only in this run, 1 items only in that run)" in result.output


def test_bad_files_end_with_two(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "x"}\n', encoding="utf-8")

    result = evaluate(bad)

    assert result.exit_code == 2
    assert "bad.jsonl:1: has no label" in result.output


def test_an_earlier_run_that_is_none_ends_with_two(corpus: Path, tmp_path: Path) -> None:
    result = evaluate(corpus, "--against", tmp_path)

    assert result.exit_code == 2
    assert "name the --out folder of an earlier run" in result.output


def test_rules_only_says_so(corpus: Path) -> None:
    assert ", rules only\n" in evaluate(corpus, "--rules-only").output


def test_overlapping_spans_are_cut_where_they_begin_and_end() -> None:
    assert marked("my chest pain now", [(3, 13, "pain", True), (3, 8, "chest", False)]) == [
        Piece("my "),
        Piece("chest", "pain; chest", True),
        Piece(" pain", "pain", True),
        Piece(" now"),
    ]
