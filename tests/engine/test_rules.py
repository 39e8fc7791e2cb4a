"""Conditions compiled to functions: what makes them hold, with the evidence, and what they cannot do without."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from guardrail.engine.model import Assertion, Cue, Finding, Polarity, Quantity, Subject, Time
from guardrail.engine.rules import Condition, FindingIndex, compile_condition, needed_names

CONDITION: TypeAdapter[Condition] = TypeAdapter(Condition)
DENIED = Assertion(polarity=Polarity.ABSENT)
PAST = Assertion(time=Time.PAST)
TOLD = Assertion(subject=Subject.NOBODY, cues=(Cue("fiction", "novel", 0, 5),))


def said(concept: str, start: int = 0, assertion: Assertion | None = None, turn: int = 0) -> Finding:
    return Finding(concept, turn, start, start + 5, concept, assertion or Assertion())


def measured(kind: str, value: float) -> Finding:
    return Finding(kind, 0, 0, 2, str(value), quantity=Quantity(kind, value, ""))


def evidence(condition: Any, *findings: Finding) -> list[str] | None:
    held = compile_condition(CONDITION.validate_python(condition))(FindingIndex(findings))
    return None if held is None else [f.concept for f in held]


@pytest.mark.parametrize(
    ("condition", "findings", "expected"),
    [
        ("pain", [said("pain")], ["pain"]),
        ("pain", [said("pain", assertion=DENIED)], None),
        ({"finding": "pain", "when": "any"}, [said("pain", assertion=DENIED)], ["pain"]),
        ({"finding": "pain", "when": "past"}, [said("pain", assertion=PAST)], ["pain"]),
        ({"finding": "pain", "when": "past"}, [said("pain")], None),
        ({"finding": "pain", "when": "mentioned"}, [said("pain", assertion=PAST)], ["pain"]),
        ({"finding": "pain", "when": "mentioned"}, [said("pain", assertion=TOLD)], None),
        ({"all": ["pain", "sweat"]}, [said("pain"), said("sweat")], ["pain", "sweat"]),
        ({"all": ["pain", "sweat"]}, [said("pain")], None),
        ({"any": ["pain", "sweat", "pallor"]}, [said("pallor"), said("pain")], ["pain", "pallor"]),
        ({"any": ["pain", {"all": ["sweat", "pallor"]}]}, [said("sweat"), said("pallor")], ["sweat", "pallor"]),
        ({"any": ["pain"]}, [], None),
        ({"not": "pain"}, [said("sweat")], []),
        ({"not": "pain"}, [said("pain")], None),
        ({"at_least": 2, "of": ["pain", "sweat", "pallor"]}, [said("pain"), said("pallor")], ["pain", "pallor"]),
        ({"at_least": 2, "of": ["pain", "sweat", "pallor"]}, [said("pain"), said("pain", 9)], None),
        ({"within": 20, "all": ["pain", "sweat"]}, [said("pain"), said("sweat", 10)], ["pain", "sweat"]),
        ({"within": 20, "all": ["pain", "sweat"]}, [said("pain"), said("sweat", 30)], None),
        ({"within": 20, "all": ["pain", "sweat"]}, [said("pain"), said("sweat", 10, turn=2)], None),
        ({"quantity": "pulse", "at_least": 130}, [measured("pulse", 130)], ["pulse"]),
        ({"quantity": "pulse", "below": 130}, [measured("pulse", 130)], None),
    ],
)
def test_a_condition_holds_with_its_evidence(condition: Any, findings: list[Finding], expected: list[str] | None) -> None:
    assert evidence(condition, *findings) == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("pain", [{"pain"}]),
        ({"all": ["pain", {"any": ["sweat", "pallor"]}]}, [{"pain"}, {"sweat", "pallor"}]),
        ({"all": ["pain", {"not": "sweat"}]}, [{"pain"}]),
        ({"any": ["pain", {"all": ["sweat", {"any": ["pallor", "chills"]}]}]}, [{"pain", "sweat"}]),
        ({"any": ["pain", {"not": "sweat"}]}, []),
        ({"at_least": 2, "of": ["pain", {"quantity": "pulse", "below": 40}]}, [{"pain", "pulse"}]),
        ({"not": "pain"}, []),
    ],
)
def test_what_a_condition_cannot_do_without(condition: Any, expected: list[set[str]]) -> None:
    assert list(map(set, needed_names(CONDITION.validate_python(condition)))) == expected
