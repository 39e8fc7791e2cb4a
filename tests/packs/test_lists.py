"""Lists that take in other lists, findings that are merely mentioned, texts with an action of their own."""

from pathlib import Path
from shutil import copytree

import pytest

from guardrail.engine.guard import Guard
from guardrail.engine.model import Action, Conversation, Decision, Message, Role
from guardrail.errors import PackError
from guardrail.packs.load import load

SMALL_RULES = Path(__file__).parent.parent / "small_rules"


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return Path(copytree(SMALL_RULES, tmp_path / "rules"))


def add(rules: Path, path: str, text: str) -> None:
    target = rules / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def review(rules: Path, text: str) -> Decision:
    return Guard(load(rules).knowledge).review(Conversation((Message(Role.USER, text),)))


def rule(when: str, extra: str = "") -> str:
    return (
        f"title: Pair\nwhy: A test.\ntier: M1\ntopics: [medication]\nwhen: {when}\n{extra}"
        "sources: [{name: none, grade: U}]\nworse_mistake: missing\n"
    )


CASES = "fires: [take zebrin]\nquiet: [hello]\n"


def test_a_list_may_take_in_another_list(rules: Path) -> None:
    add(rules, "lists/made.yaml", 'inner: [zebrin]\nouter: ["{inner}", yakin]\n')
    add(rules, "small/concepts/made.yaml", 'made: {title: Made, phrases: ["{outer}"]}\n')
    add(rules, "small/rules/made.yaml", rule("made"))
    add(rules, "small/tests/made.yaml", CASES)

    assert [h.rule for h in review(rules, "take zebrin").hits] == ["made"]


@pytest.mark.parametrize(
    ("lists", "problem"),
    [
        ('outer: ["{innr}"]\ninner: [zebrin]\n', 'unknown list "innr"; did you mean "inner"?'),
        ('outer: ["{inner}"]\ninner: ["{outer}"]\n', 'list "outer" contains itself; take one of the two out'),
    ],
)
def test_a_list_that_cannot_be_taken_in_is_named(rules: Path, lists: str, problem: str) -> None:
    add(rules, "lists/made.yaml", lists)

    with pytest.raises(PackError) as raised:
        load(rules)

    assert problem in str(raised.value)


def test_a_mentioned_finding_may_be_denied(rules: Path) -> None:
    add(rules, "small/concepts/made.yaml", "made: {title: Made, phrases: [zebrin]}\n")
    add(rules, "small/rules/made.yaml", rule("{finding: made, when: mentioned}"))
    add(rules, "small/rules/counted.yaml", rule("made"))
    add(rules, "small/tests/made.yaml", CASES)
    add(rules, "small/tests/counted.yaml", CASES)
    cues = "no: {kind: negated, direction: forward, reach: 6, phrases: [not]}\nlight: {kind: light, phrases: [a]}\n"
    add(rules, "languages/en/cues.yaml", cues)

    assert [h.rule for h in review(rules, "not zebrin").hits] == ["made"]


def test_a_rules_own_text_may_answer_where_its_tier_annotates(rules: Path) -> None:
    add(rules, "small/concepts/made.yaml", "made: {title: Made, phrases: [zebrin]}\n")
    add(rules, "small/rules/made.yaml", rule("made", "answer: pharmacist\n"))
    add(rules, "small/tests/made.yaml", CASES)
    policy = rules / "policy.yaml"
    policy.write_text(policy.read_text(encoding="utf-8") + "answers: {pharmacist: answer}\n", encoding="utf-8")

    assert review(rules, "take zebrin").action is Action.ANSWER
