"""Advice stands at its place, and packs without a blemish get none."""

import shutil
from datetime import date
from pathlib import Path

import pytest

from guardrail.packs.lint import advise, reading_grade
from guardrail.packs.load import load, shipped_rules
from tests.conftest import SMALL_RULES

TODAY = date(2026, 12, 1)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A copy of the small rules with enough cases to be without blemish."""
    folder = tmp_path / "rules"
    shutil.copytree(SMALL_RULES, folder)
    for name in ("chest_pain", "how_much", "rash"):
        phrase = {"chest_pain": "chest pain", "how_much": "how much ibuprofen", "rash": "a rash"}[name]
        (folder / "small" / "tests" / f"{name}.yaml").write_text(
            f'fires: ["{phrase}", "now {phrase}", "again {phrase}"]\nquiet: ["no {phrase}", "hello", "thanks"]\n'
        )
    return folder


def advice(folder: Path) -> list[str]:
    return sorted(map(str, advise(load(folder), TODAY)))


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_nothing_to_advise(rules: Path) -> None:
    assert advice(rules) == []


def test_a_text_that_is_hard_to_read(rules: Path) -> None:
    hard = "Immediate gastroenterological consultation is unconditionally recommended notwithstanding any symptomatic amelioration"
    append(rules / "languages" / "en" / "answers.yaml", f'  lecture: "{hard}"\n')

    found = advice(rules)

    assert len(found) == 1
    assert found[0].startswith("rules/languages/en/answers.yaml:20:3: needs school grade ")


def test_a_missing_translation(rules: Path) -> None:
    folder = rules / "languages" / "es"
    shutil.copytree(rules / "languages" / "en", folder)
    path = folder / "answers.yaml"
    path.write_text(path.read_text().replace('  pharmacist: "Please ask a pharmacist."\n', ""))

    assert advice(rules) == ["rules/languages/es/answers.yaml:1:1: has no answers pharmacist: they are shown in English; translate them"]


def test_an_expired_pack(rules: Path) -> None:
    append(rules / "small" / "pack.yaml", 'expires: "2026-11-30"\n')

    assert advice(rules) == ["rules/small/pack.yaml:4:1: expired on 2026-11-30; have it reviewed again"]


def test_a_number_not_looked_up_for_a_year(rules: Path) -> None:
    path = rules / "contacts.yaml"
    path.write_text(path.read_text().replace("2026-11-22", "2025-11-22", 1))

    assert advice(rules) == ["rules/contacts.yaml:3:46: was last checked on 2025-11-22; look the number up again and date it"]


def test_what_nobody_uses(rules: Path) -> None:
    append(rules / "small" / "concepts" / "small.yaml", 'spare:\n  title: Spare\n  phrases: ["spare"]\n')
    (rules / "lists" / "spare.yaml").write_text("spare_words: [a, b]\n")

    assert advice(rules) == [
        'rules/lists/spare.yaml:1:1: no phrase uses the list "spare_words"; use it or remove it',
        'rules/small/concepts/small.yaml:10:1: no rule uses the concept "spare"; use it or remove it',
    ]


def test_a_not_condition(rules: Path) -> None:
    path = rules / "small" / "rules" / "rash.yaml"
    path.write_text(path.read_text().replace("when: rash", "when: {all: [rash, {not: chest_pain}]}"))

    assert advice(rules) == [
        "rules/small/rules/rash.yaml:5:21: uses a not condition, so more text can lower the decision; put the exception into the concept"
    ]


def test_a_phrase_that_stands_twice(rules: Path) -> None:
    path = rules / "small" / "concepts" / "small.yaml"
    path.write_text(path.read_text().replace('["a rash"]', '["a rash", "A  rash"]\n  not: ["a rash"]'))

    found = advice(rules)

    assert found == [
        'rules/small/concepts/small.yaml:10:9: the exception "a rash" hides the phrase of line 9; remove one',
        'rules/small/concepts/small.yaml:9:23: "A  rash" stands already in line 9; remove one',
    ]


def test_few_cases(rules: Path) -> None:
    (rules / "small" / "tests" / "rash.yaml").write_text('fires: ["a rash"]\nquiet: ["no rash", "x", "y"]\n')

    assert advice(rules) == ["rules/small/tests/rash.yaml:1:1: has only 1 cases; add some to make 3, in different voices"]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("Call 999 now.", 0, 3),
        ("Please ask a pharmacist. They can help.", 0, 4),
        ("", 0, 0),
        ("Comprehensive multidisciplinary evaluation.", 20, 60),
    ],
)
def test_reading_grade(text: str, low: float, high: float) -> None:
    assert low <= max(reading_grade(text), 0) <= high


def test_no_shipped_text_is_hard_to_read() -> None:
    found = [str(p) for p in advise(load(shipped_rules()), TODAY) if "school grade" in p.message]

    assert found == []
