"""Evidence is marked where it stands in the text that was kept."""

from typing import Any

from guardrail.dashboard.highlight import Segment, group, highlight, locate


def finding(text: str, start: int, turn: int = 0, concept: str = "chest_pain", cues: tuple[Any, ...] = (), **other: str) -> dict[str, Any]:
    usual = {"polarity": "present", "time": "current", "subject": "patient"}
    return {"concept": concept, "turn": turn, "start": start, "end": start + len(text), "text": text, "cues": list(cues), **usual, **other}


def test_evidence_stands_at_its_offsets() -> None:
    found = highlight(["I have chest pain"], [finding("chest pain", 7)], [])

    assert found == [[Segment("I have "), Segment("chest pain", "evidence", "chest pain")]]


def test_redaction_moves_the_words_and_the_mark_follows() -> None:
    found = highlight(["[name] has chest pain, and said so"], [finding("chest pain", 30)], [])

    assert found[0] == [Segment("[name] has "), Segment("chest pain", "evidence", "chest pain"), Segment(", and said so")]


def test_words_that_were_not_kept_are_not_marked() -> None:
    assert highlight(["[number]"], [finding("07700", 0)], []) == [[Segment("[number]")]]


def test_a_cue_and_what_it_changed_are_both_marked() -> None:
    cue = {"kind": "negated", "text": "no", "start": 7, "end": 9}

    found = highlight(["I have no chest pain"], [], [finding("chest pain", 10, cues=(cue,), polarity="absent")])

    assert [(s.text, s.kind, s.title) for s in found[0] if s.kind] == [
        ("no", "cue", "cue: negated"),
        ("chest pain", "finding", "chest pain, absent"),
    ]


def test_turns_count_the_chatbots_messages_and_texts_do_not() -> None:
    found = highlight(["hello", "my chest pain is back"], [finding("chest pain", 3, turn=3)], [])

    assert [s.kind for s in found[0]] == [""]
    assert [s.text for s in found[1] if s.kind] == ["chest pain"]


def test_marking_changes_no_text() -> None:
    text = "chest pain and more chest pain"
    marks = [finding("chest pain", 0), finding("pain and", 6, concept="other"), finding("chest pain", 20)]

    assert "".join(s.text for s in highlight([text], marks, marks)[0]) == text


def test_the_nearest_place_is_taken() -> None:
    assert locate("pain, pain, pain", "pain", 7) == 6
    assert locate("pain", "ache", 0) is None
    assert locate("pain", "", 0) is None


def test_concepts_of_one_place_are_one_row() -> None:
    rows = group(
        [finding("numb", 0, concept="a"), finding("numb", 0, concept="b"), finding("numb", 0, concept="c", polarity="absent")], {"a": "A"}
    )

    assert [(r["concepts"], r["counts"]) for r in rows] == [(["A", "b"], True), (["c"], False)]
