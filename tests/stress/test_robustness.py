"""Lost and raised are counted of what was right as written; and what `guardrail stress` prints and writes."""

import json
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner, Result

from guardrail.cli import main
from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Message, Role, Urgency
from guardrail.packs.load import load
from guardrail.stress.labelled import Labelled
from guardrail.stress.perturb import Perturbation
from guardrail.stress.robustness import can_be_perturbed, labelled_cases, mistakes, never_lost, rows, stress, whole
from guardrail.stress.statistics import Share
from tests.conftest import SMALL_RULES

CORPUS = """
{"id": "e1", "text": "I have chest pain", "triage": "emergency"}
{"id": "e2", "text": "my arm hurts", "triage": "emergency"}
{"id": "u1", "text": "a rash", "triage": "urgent"}
{"id": "q1", "text": "hello <b>there</b>", "triage": "none"}
{"id": "q2", "text": "hello, is a rash bad", "triage": "routine"}
{"id": "t1", "messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": "chest pain"}], "triage": "emergency"}
{"id": "m1", "text": "no chest pain", "span": "chest pain", "assertion": "absent"}
"""


def to(text: str) -> Perturbation:
    """Whatever was said becomes this."""

    def change(_: str, __: Random) -> str:
        return text

    return Perturbation(f"to_{text.replace(' ', '_')}", "writing", "for tests", change)


def item(id_: str, text: str, triage: Urgency | None = None) -> Labelled:
    return Labelled(id_, "message", Conversation((Message(Role.USER, text),)), {}, triage=triage)


def test_what_was_recognised_and_is_not_any_more_is_lost(small_guard: Guard) -> None:
    perturbation = to("hello")
    items = [item("a", "chest pain", Urgency.EMERGENCY), item("b", "my arm", Urgency.EMERGENCY), item("c", "a rash", Urgency.URGENT)]

    pairs = [pair for of_item in stress(small_guard, items, [perturbation], 0) for pair in of_item]
    (row,) = rows(pairs, [perturbation])

    assert (row.before, row.after, row.lost, row.urgent_lost) == (Share(1, 2), Share(0, 2), Share(1, 1), Share(1, 1))
    assert [pair.after.mistakes for pair in pairs] == [("emergency_missed",), (), ("urgent_missed",)]
    assert never_lost(pairs) == Share(0, 1)
    assert whole(pairs).lost == row.lost


def test_what_was_quiet_and_is_not_any_more_is_raised(small_guard: Guard) -> None:
    perturbation = to("a rash")
    items = [item("a", "hello", Urgency.NONE), item("b", "chest pain", Urgency.ROUTINE), item("c", "a rash or two", Urgency.NONE)]

    (row,) = rows([pair for of_item in stress(small_guard, items, [perturbation], 0) for pair in of_item], [perturbation])

    assert row.raised == Share(0, 2)
    assert row.urgent_raised == Share(1, 1)


def test_without_a_label_a_message_is_held_to_what_is_decided_as_written(small_guard: Guard) -> None:
    perturbation = to("hello")

    (row,) = rows(
        [pair for of_item in stress(small_guard, [item("a", "chest pain")], [perturbation], 0) for pair in of_item], [perturbation]
    )

    assert row.lost == Share(1, 1)


def test_who_is_sent_to_help_at_the_first_message_is_not_lost_at_the_second(small_guard: Guard) -> None:
    perturbation = Perturbation("turns", "position", "for tests", lambda text, chance: ("chest pain", "and a hat"))

    ((pair,),) = stress(small_guard, [item("a", "chest pain and a hat", Urgency.EMERGENCY)], [perturbation], 0)

    assert pair.after.decision.urgency is Urgency.EMERGENCY
    assert pair.after.mistakes == ()


def test_what_adds_to_the_matter_is_not_tried_on_quiet_messages(small_guard: Guard) -> None:
    adds = Perturbation("adds", "addition", "for tests", lambda text, chance: text + " and chest pain", raises=True)

    assert [list(found) for found in stress(small_guard, [item("a", "hello", Urgency.NONE)], [adds], 0)] == [[]]


@pytest.mark.parametrize(
    ("expected", "decided", "found"),
    [
        (Urgency.EMERGENCY, Urgency.URGENT, ("emergency_missed",)),
        (Urgency.EMERGENCY, Urgency.EMERGENCY, ()),
        (Urgency.URGENT, Urgency.EMERGENCY, ()),
        (Urgency.URGENT, Urgency.ROUTINE, ("urgent_missed",)),
        (Urgency.ROUTINE, Urgency.URGENT, ("urgent_raised",)),
        (Urgency.NONE, Urgency.EMERGENCY, ("emergency_raised", "urgent_raised")),
        (Urgency.NONE, Urgency.ROUTINE, ()),
    ],
)
def test_mistakes(expected: Urgency, decided: Urgency, found: tuple[str, ...]) -> None:
    assert mistakes(expected, decided) == found


def test_the_cases_of_packs_are_labelled_with_the_urgency_of_their_rules() -> None:
    found = {i.id: i.triage for i in labelled_cases(load(SMALL_RULES)) if can_be_perturbed(i)}

    assert found["chest_pain:fires:1"] is Urgency.EMERGENCY
    assert found["rash:fires:1"] is Urgency.URGENT
    assert found["chest_pain:quiet:1"] is None


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text(CORPUS, encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["stress", *map(str, arguments), "--rules", str(SMALL_RULES)])


def test_the_table(corpus: Path) -> None:
    result = run(corpus, "--only", "spaced_letters", "--only", "adds_time")

    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert result.exit_code == 0
    assert "; 5 messages, seed 0; intervals are 95 %" in lines[1]
    assert "spaced_letters 1/2 1/2 0/1 0.0 % (0.0 to 79.3) - 0/2 0.0 % (0.0 to 65.8) 0/1" in lines
    assert "adds_time 1/2 1/2 0/1 0.0 % (0.0 to 79.3) 0/1 - -" in lines
    assert "emergencies that no perturbation loses: 100.0 % (1/1, 20.7 to 100.0)" in lines


def test_files_and_the_page(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    result = run(corpus, "--only", "typo_dropped", "--only", "adds_symptom", "--only", "other_negated", "--out", out)

    assert result.exit_code == 0, result.output
    lost = [json.loads(line) for line in (out / "lost.jsonl").read_text().splitlines()]
    results = json.loads((out / "results.json").read_text())
    page = (out / "report.html").read_text(encoding="utf-8")
    assert [p["name"] for p in results["perturbations"]] == ["typo_dropped", "other_negated", "adds_symptom", "all"]
    assert all(line["mistakes"] == ["emergency_missed"] and line["written"]["urgency"] == "emergency" for line in lost)
    assert "<h1>Stress</h1>" in page
    assert "<b>there" not in page
    assert "src=" not in page


def test_what_is_lost_is_shown_beside_what_was_written(corpus: Path, tmp_path: Path) -> None:
    corpus.write_text('{"id": "e1", "text": "I have chest pain. A lot.", "triage": "emergency"}\n')
    out = tmp_path / "out"

    result = run(corpus, "--out", out)

    page = (out / "report.html").read_text(encoding="utf-8")
    found = len((out / "lost.jsonl").read_text().splitlines())
    assert result.exit_code == 0
    assert f"Examples ({found} of {found})" in page
    assert page.count(">as it was written</summary>") == found > 0


def test_a_sample_is_repeatable(corpus: Path) -> None:
    first, again = (run(corpus, "--sample", 2, "--seed", 3).output for _ in range(2))

    assert first == again
    assert "; 2 messages, seed 3;" in first


def test_without_a_corpus_the_cases_of_the_packs_are_taken() -> None:
    assert "; 6 messages, seed 0;" in run("--only", "markup").output


def test_they_are_listed() -> None:
    lines = [" ".join(line.split()) for line in run("--list").output.splitlines()]

    assert "quoted markup all in quotation marks" in lines
    assert "adds_plan addition adds a plan (English only) (may raise)" in lines


def test_an_unknown_one_is_an_error(corpus: Path) -> None:
    result = run(corpus, "--only", "telepathy")

    assert result.exit_code == 2
    assert "there is no perturbation telepathy; --list names them" in result.output
