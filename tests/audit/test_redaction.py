"""Redaction, measured on labelled lines, and that docs/operations.md says what was measured."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from guardrail.audit.redaction import Span, find, redact

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs" / "operations.md"
_LABEL = re.compile(r"\[([^\]]*)\]\{(\w+)\}")


@dataclass(frozen=True)
class Figures:
    lines: int
    labels: int
    caught: int
    """Labels of which no letter is left."""
    marks: int
    right: int
    """Marks on something that was labelled."""

    def __str__(self) -> str:
        recall, precision = self.caught / self.labels, self.right / self.marks
        return f"{self.lines} | {self.caught} of {self.labels} ({recall:.0%}) | {self.right} of {self.marks} ({precision:.0%})"


def read_labels(line: str) -> tuple[str, list[Span]]:
    """`I am [Bob]{name}` as the text and where the labels stand in it."""
    text, spans, at = "", list[Span](), 0
    for match in _LABEL.finditer(line):
        text += line[at : match.start()]
        spans.append(Span(len(text), len(text) + len(match[1]), match[2]))
        text += match[1]
        at = match.end()
    return text + line[at:], spans


def measure(name: str) -> tuple[Figures, list[str]]:
    """The figures of a file, and the lines with something missed or marked without need."""
    lines = [line for line in (HERE / name).read_text("utf-8").splitlines() if not line.startswith("#")]
    labels = caught = marks = right = 0
    wrong = []
    for line in lines:
        text, wanted = read_labels(line)
        found = find(text)
        good = [w for w in wanted if set(range(w.start, w.end)) <= {i for f in found for i in range(f.start, f.end)}]
        hits = [f for f in found if any(f.start < w.end and w.start < f.end for w in wanted)]
        labels, caught, marks, right = labels + len(wanted), caught + len(good), marks + len(found), right + len(hits)
        if len(good) < len(wanted) or len(hits) < len(found):
            wrong.append(f"{line} -> {redact(text)}")
    return Figures(len(lines), labels, caught, marks, right), wrong


def test_every_known_form_is_caught_and_nothing_else() -> None:
    figures, wrong = measure("redaction_cases.txt")

    assert figures.labels > 100
    assert figures.caught / figures.labels >= 0.97, wrong
    assert figures.right / figures.marks >= 0.97, wrong


@pytest.mark.parametrize("name", ["redaction_cases.txt", "redaction_held_out.txt"])
def test_the_docs_say_what_was_measured(name: str) -> None:
    figures, wrong = measure(name)

    assert str(figures) in DOCS.read_text("utf-8"), f"docs/operations.md should say: {figures}\n" + "\n".join(wrong)


def test_marks_replace_what_they_cover_and_leave_the_rest() -> None:
    assert redact("I am Mr Canary Testname on 07700 900123") == "I am Mr [name] on [phone]"
    assert redact("my bp is 210/125") == "my bp is 210/125"
    assert redact("") == ""


def test_redaction_takes_time_in_proportion_to_the_text() -> None:
    """No pattern may try a stretch in many ways: a hostile text is read on the thread that keeps the record."""
    for piece in ("1 ", "a.", "1 a ", "my name is ", "Aa ", "case number ", "1-", "the 1st of ", "@a", "1 Main ", "a", "A.", "AB12 "):
        assert len(find(piece * 10_000)) <= 10_000  # would take minutes if the time grew with the square
