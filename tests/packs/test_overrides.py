"""What a site changes without editing packs: applied last, named, dated, and never by accident less than the packs say."""

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it has no stubs
import pytest
from click.testing import CliRunner

from guardrail.cli import main
from guardrail.engine.guard import Guard
from guardrail.engine.model import Action, Conversation, Decision, Message, Role, Urgency
from guardrail.errors import PackError
from guardrail.packs.lint import advise
from guardrail.packs.load import Loaded, load
from guardrail.packs.schema import schemas
from guardrail.packs.source import parse
from tests.conftest import SMALL_RULES

TODAY = date(2026, 12, 1)
WHY = "reason: Agreed on in the rounds, owner: Dr Example, expires: "
LATER, GONE = WHY + '"2027-06-30"', WHY + '"2026-11-30"'

Write = Callable[..., Path]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    shutil.copytree(SMALL_RULES, folder)
    return folder


@pytest.fixture
def write(rules: Path) -> Write:
    def write(*overrides: str, name: str = "site.yaml", folder: Path | None = None) -> Path:
        path = (folder or rules / "overrides.d") / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"- {{{override}}}\n" for override in overrides), encoding="utf-8")
        return path

    return write


def loaded(rules: Path, overrides: Path | None = None) -> Loaded:
    return load(rules, None, overrides=overrides, today=TODAY)


def decide(rules: Path, text: str, country: str | None = None) -> Decision:
    return Guard(loaded(rules).knowledge).review(Conversation((Message(Role.USER, text),), country))


def problems(rules: Path) -> list[str]:
    with pytest.raises(PackError) as caught:
        loaded(rules)
    return [str(p) for p in caught.value.problems]


def test_a_rule_is_raised(rules: Path, write: Write) -> None:
    write(f"rule: rash, change: {{tier: E1}}, {LATER}")

    assert decide(rules, "a rash").urgency is Urgency.EMERGENCY


def test_a_rule_gets_another_text(rules: Path, write: Write) -> None:
    write(f"rule: rash, change: {{answer: pharmacist}}, {LATER}")

    assert "pharmacist" in (decide(rules, "a rash").answer or "")


def test_a_rule_is_put_in_shadow(rules: Path, write: Write) -> None:
    write(f"rule: rash, change: {{maturity: shadow}}, {LATER}")

    decision = decide(rules, "a rash")

    assert decision.urgency is Urgency.NONE
    assert [h.rule for h in decision.shadow_hits] == ["rash"]


def test_phrases_are_added_and_removed(rules: Path, write: Write) -> None:
    write(f"concept: rash, change: {{add: [came out in spots], remove: [a rash]}}, {LATER}")

    assert decide(rules, "he came out in spots").urgency is Urgency.URGENT
    assert decide(rules, "a rash").urgency is Urgency.NONE


def test_a_tier_gets_another_action(rules: Path, write: Write) -> None:
    write(f"policy: U1, change: {{action: answer}}, {LATER}")

    assert decide(rules, "a rash").action is Action.ANSWER


def test_a_countrys_lines_are_replaced_and_a_new_one_added(rules: Path, write: Write) -> None:
    line = '{number: "117", source: the site, checked: "2026-11-01", grade: "2"}'
    write(f"country: GB, change: {{emergency: {line}}}, {LATER}", f"country: XK, change: {{name: Kosovo, emergency: {line}}}, {LATER}")

    assert "117" in (decide(rules, "chest pain", "GB").answer or "")
    assert "117" in (decide(rules, "chest pain", "XK").answer or "")


@pytest.mark.parametrize(
    "override",
    [
        "rule: chest_pain, change: {maturity: shadow}",
        "rule: chest_pain, change: {maturity: retired}",
        "rule: chest_pain, change: {tier: U1}",
        "rule: chest_pain, change: {tier: E2}",
        "concept: chest_pain, change: {remove: [chest pain]}",
        "policy: E1, change: {action: annotate}",
    ],
)
def test_an_emergency_is_lowered_only_on_purpose(rules: Path, write: Write, override: str) -> None:
    write(f"{override}, {LATER}")

    (problem,) = problems(rules)

    assert problem.endswith("answers an emergency less than the pack does; if that is meant, say lowers_emergency: true")
    write(f"{override}, {LATER}, lowers_emergency: true")
    loaded(rules)


def test_every_problem_has_its_place(rules: Path, write: Write) -> None:
    write(
        f"rule: rahs, change: {{tier: E1}}, {LATER}",
        f"rule: rash, change: {{answer: phamacist}}, {LATER}",
        f"concept: rash, change: {{remove: [an rash]}}, {LATER}",
        f'concept: rash, change: {{add: ["{{spotz}}"]}}, {LATER}',
        f"country: XK, change: {{name: Kosovo}}, {LATER}",
    )

    assert problems(rules) == [
        'rules/overrides.d/site.yaml:1:4: unknown rule "rahs"; did you mean "rash"?',
        'rules/overrides.d/site.yaml:2:25: no answer text "phamacist" in English; did you mean "pharmacist"?',
        'rules/overrides.d/site.yaml:3:37: concept "rash" has no phrase "an rash"; did you mean "a rash"?',
        'rules/overrides.d/site.yaml:4:34: phrase "{spotz}": unknown list "spotz"',
        "rules/overrides.d/site.yaml:5:17: country XK is new and lacks emergency; add it",
    ]


def test_the_form_is_checked_with_places_too(rules: Path, write: Write) -> None:
    write(
        f"rule: rash, change: {{}}, {LATER}",
        f"rule: rash, change: {{teir: E1}}, {LATER}",
        f"rule: rash, change: {{tier: E7}}, {LATER}",
        f"fule: rash, change: {{tier: E1}}, {LATER}",
    )

    found = problems(rules)

    assert found[:2] == [
        "rules/overrides.d/site.yaml:1:16: changes nothing",
        'rules/overrides.d/site.yaml:2:25: unknown key "teir"; remove it',
    ]
    assert found[2].startswith('rules/overrides.d/site.yaml:3:25: "E7" is not allowed here; use ')
    assert found[3] == "rules/overrides.d/site.yaml:4:3: is not an override; name a rule, a concept, a policy (tier) or a country"


def test_who_why_and_until_when_cannot_be_left_out(rules: Path, write: Write) -> None:
    write("rule: rash, change: {tier: E1}")

    assert problems(rules) == [
        'rules/overrides.d/site.yaml:1:3: lacks "expires"; add "expires:"',
        'rules/overrides.d/site.yaml:1:3: lacks "owner"; add "owner:"',
        'rules/overrides.d/site.yaml:1:3: lacks "reason"; add "reason:"',
    ]


def test_a_day_is_a_day(rules: Path, write: Write) -> None:
    write(f"rule: rash, change: {{tier: E1}}, {WHY} next spring")

    (problem,) = problems(rules)

    assert '"next spring" is not a day; write it like 2027-06-30' in problem


def test_one_thing_is_overridden_once(rules: Path, write: Write) -> None:
    write(f"rule: rash, change: {{tier: E1}}, {LATER}", name="a.yaml")
    write(f"rule: rash, change: {{tier: E2}}, {LATER}", name="b.yaml")

    assert problems(rules) == [
        'rules/overrides.d/b.yaml:1:4: rule "rash" is overridden at rules/overrides.d/a.yaml:1:3 already; merge the two'
    ]


def test_what_quietens_ends_with_its_last_day_and_what_adds_stays(rules: Path, write: Write) -> None:
    write(
        f"rule: chest_pain, change: {{maturity: retired}}, lowers_emergency: true, {GONE}",
        f"concept: rash, change: {{add: [came out in spots], remove: [a rash]}}, {GONE}",
    )

    found = loaded(rules)
    guard = Guard(found.knowledge)
    urgencies = [
        guard.review(Conversation((Message(Role.USER, text),))).urgency for text in ("chest pain", "a rash", "he came out in spots")
    ]

    assert urgencies == [Urgency.EMERGENCY, Urgency.URGENT, Urgency.URGENT]
    assert [o.state for o in found.knowledge.overrides] == ["expired, not applied", "expired, not applied"]
    assert [str(a) for a in advise(found, TODAY) if "overrides.d" in str(a)] == [
        "rules/overrides.d/site.yaml:1:127: expired on 2026-11-30 and is no longer applied; renew it or take it out",
        "rules/overrides.d/site.yaml:2:125: expired on 2026-11-30 and is no longer applied; renew it or take it out",
    ]


def test_it_holds_on_its_last_day(rules: Path, write: Write) -> None:
    write(f'rule: rash, change: {{maturity: retired}}, {WHY} "2026-12-01"')

    assert decide(rules, "a rash").urgency is Urgency.NONE


def test_the_revision_tells_of_overrides_and_of_their_end(rules: Path, write: Write) -> None:
    without = loaded(rules).knowledge.revision
    write(f"rule: rash, change: {{maturity: shadow}}, {LATER}")
    with_it = loaded(rules).knowledge.revision
    after = load(rules, None, today=date(2027, 7, 1)).knowledge.revision

    assert len({without, with_it, after}) == 3


def test_a_folder_of_its_own_comes_after_that_of_the_packs(rules: Path, write: Write, tmp_path: Path) -> None:
    write(f"concept: rash, change: {{add: [came out in spots]}}, {LATER}")
    write(f"rule: rash, change: {{tier: E1}}, {LATER}", folder=tmp_path / "ours")

    found = loaded(rules, tmp_path / "ours").knowledge

    assert [(o.file, o.subject, o.change, o.owner) for o in found.overrides] == [
        ("rules/overrides.d/site.yaml", "concept rash", 'add "came out in spots"', "Dr Example"),
        ("ours/site.yaml", "rule rash", "tier E1", "Dr Example"),
    ]


def test_a_folder_that_is_not_there_is_a_problem(rules: Path, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="is not a folder of overrides"):
        loaded(rules, tmp_path / "nowhere")


def test_the_cases_of_a_retired_rule_are_not_run(rules: Path, write: Write) -> None:
    write(f"rule: rash, change: {{maturity: retired}}, {WHY} '2999-01-01'")

    result = CliRunner().invoke(main, ["test", "--rules", str(rules)])

    assert (result.exit_code, result.output) == (0, "4 cases, 0 failed\n")


def test_packs_lists_them(rules: Path, write: Write) -> None:
    write(f"rule: rash, change: {{maturity: shadow}}, {WHY} '2000-01-01'")

    result = CliRunner().invoke(main, ["packs", "--rules", str(rules)])

    assert "rule rash: maturity shadow  [rules/overrides.d/site.yaml]\n" in result.output
    assert "Agreed on in the rounds (Dr Example, until 2000-01-01, EXPIRED, NOT APPLIED)\n" in result.output


def test_the_schema_takes_what_loads_and_nothing_else(rules: Path, write: Write) -> None:
    schema = schemas()["overrides"]
    good = parse(write(f"rule: rash, change: {{tier: E1}}, {LATER}").read_text(), "good", [])
    bad = parse(write(f"rule: rash, change: {{teir: E1}}, {LATER}").read_text(), "bad", [])
    assert good is not None
    assert bad is not None

    jsonschema.validate(good.data, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad.data, schema)
