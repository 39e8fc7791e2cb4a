"""Conversations: what carries over, what an answer says, what takes back or closes, and what a new topic means."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from guardrail.engine.conversation import TurnReading, current_turns, keeps_on
from guardrail.engine.guard import Guard
from guardrail.engine.model import Action, Conversation, Decision, Message, Role, Urgency
from guardrail.packs.load import load, shipped_rules
from tests.engine import english

PACK = {
    "pack.yaml": "title: Test\nversion: '1'\nowner: test\n",
    "concepts/c.yaml": """
chest_pain: {title: Chest pain, phrases: ["chest (pain|hurts|tight|heavy)"]}
arm_heavy: {title: Arm, phrases: ["arm ... (heavy|numb|weak)"]}
face_down: {title: Face, phrases: ["face ... (drooping|dropped|melted)"]}
words_gone: {title: Speech, phrases: ["speech ... slurred", "slurred"]}
lip_swollen: {title: Lip, phrases: ["lip (is|was)? (swelling|swollen)", "swollen"]}
die_wish: {title: Wish to die, phrases: ["(ending|end) my life", "want to die", "gun", "poisoned"]}
throat_tight: {title: Throat, phrases: ["throat ... (swelling|tight|closing)"]}
faint_now: {title: Faint, phrases: ["faint", "passed out", "knocked out"]}
sugar_ill: {title: Diabetes, lasts: life, phrases: ["type 1"]}
pregnant_so: {title: Weeks, phrases: ["{number} weeks"]}
flashing: {title: Flashing lights, phrases: ["flashing lights"]}
""",
    **{
        f"rules/{name}.yaml": (
            f"title: {name}\nwhy: test\ntier: {tier}\nwhen: {when}\nsources: [{{name: test, grade: none}}]\nworse_mistake: missing\n"
        )
        for name, tier, when in (
            ("heart", "E1", "{all: [chest_pain, arm_heavy]}"),
            ("stroke_signs", "E1", "{any: [face_down, words_gone]}"),
            ("allergy", "E1", "{any: [lip_swollen, throat_tight]}"),
            ("danger", "C1", "die_wish"),
            ("collapse", "E2", "faint_now"),
            ("low_oxygen", "E1", "{quantity: spo2, below: 90}"),
            ("young_fever", "E2", "{all: [{quantity: age_months, below: 3}, {quantity: temperature_c, at_least: 38}]}"),
            ("late_pregnancy", "E2", "{all: [pregnant_so, flashing]}"),
            ("sugar_sick", "E2", "{all: [sugar_ill, {quantity: glucose_mmol, at_least: 20}]}"),
        )
    },
    **{
        f"tests/{name}.yaml": "fires: [x]\nquiet: [y]\n"
        for name in ("heart", "stroke_signs", "allergy", "danger", "collapse", "low_oxygen", "young_fever", "late_pregnancy", "sugar_sick")
    },
}


@cache
def guard() -> Guard:
    """Nine rules over the shipped English."""
    with TemporaryDirectory() as folder:
        rules = english.copy_general(Path(folder))
        for name, text in PACK.items():
            path = rules / "talk" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return Guard(load(rules).knowledge)


def talk(*turns: str) -> Decision:
    return english.talk(*turns, guard=guard())


def rules(decision: Decision) -> set[str]:
    return {hit.rule for hit in decision.hits}


CHEST = ("user: my chest hurts and my arm is heavy", "assistant: Please call an ambulance now.")


# --- carrying over


def test_symptoms_told_apart_combine() -> None:
    decision = talk("user: chest tight since lunch", "assistant: Tell me more.", "user: also my arm feels heavy")

    assert decision.urgency is Urgency.EMERGENCY
    assert {f.turn for f in decision.hits[0].evidence} == {0, 2}


def test_several_messages_in_a_row_are_one_turn_of_the_talk() -> None:
    assert rules(talk("user: chest tight", "user: arm heavy")) == {"heart"}


def test_findings_fade_with_later_turns() -> None:
    small_talk = [t for i in range(8) for t in (f"assistant: Fine {i}.", f"user: ok then {i} socks")]

    assert rules(talk("user: chest tight", *small_talk, "assistant: Well.", "user: my arm is heavy")) == set()


def test_what_lasts_does_not_fade() -> None:
    small_talk = [t for i in range(8) for t in (f"assistant: Fine {i}.", f"user: ok then {i} socks")]

    assert rules(talk("user: I'm type 1", *small_talk, "assistant: Well.", "user: sugars 29")) == {"sugar_sick"}


def test_what_others_say_is_no_symptom() -> None:
    assert rules(talk("system: If the user has chest pain or a heavy arm call 911", "user: hello")) == set()
    assert rules(talk("user: hi", "assistant: Do you feel faint?", "user: what is the weather tomorrow in the north")) == set()
    assert rules(talk("user: search", 'tool: {"result": "I passed out, face drooping"}', "user: nice")) == set()


# --- answers


@pytest.mark.parametrize("answer", ["yes", "yeah", "correct", "mhm", "yep, since noon", "afraid so", "he does", "Yes!"])
def test_a_yes_says_what_was_asked(answer: str) -> None:
    decision = talk("user: my nan seems off", "assistant: Is her speech slurred?", f"user: {answer}")

    assert rules(decision) == {"stroke_signs"}
    assert decision.hits[0].evidence[0].assertion.cues[0].kind == "answer"


@pytest.mark.parametrize("answer", ["no", "nope", "no to all of those", "none of that", "nah nothing like that", "no, just tired"])
def test_a_no_says_nothing_of_it(answer: str) -> None:
    assert rules(talk("user: tired", "assistant: Is your speech slurred, or do you feel faint?", f"user: {answer}")) == set()


def test_places_in_the_question_can_be_picked() -> None:
    question = "assistant: Do you feel faint, is your face drooping, or is your lip swelling?"

    assert rules(talk("user: odd", question, "user: the second one")) == {"stroke_signs"}
    assert rules(talk("user: odd", question, "user: yes the first two")) == {"collapse", "stroke_signs"}
    assert rules(talk("user: odd", question, "user: all of them")) == {"collapse", "stroke_signs", "allergy"}


def test_a_word_of_the_question_repeated_is_an_answer() -> None:
    question = "assistant: Is your throat swelling, or do you feel faint?"

    assert rules(talk("user: itchy", question, "user: mhm, throat")) == {"allergy"}


def test_questions_to_you_are_read_as_the_patient_would_say_them() -> None:
    assert rules(talk("user: bad day", "assistant: Are you thinking about ending your life?", "user: yes")) == {"danger"}


def test_an_offer_asks_for_no_symptom() -> None:
    assert rules(talk("user: hi", "assistant: Would you like tips for when you feel faint?", "user: yes please")) == set()


def test_a_yes_without_a_question_says_nothing() -> None:
    assert rules(talk("user: clot last week", "assistant: Report it if you feel faint.", "user: yes yes. which socks are comfy")) == set()


def test_a_span_of_time_in_a_short_answer_is_the_age_that_was_asked() -> None:
    assert rules(talk("user: what is a fever", "assistant: 38 C. How old is your baby?", "user: 38.6. five weeks")) == {"young_fever"}


# --- taking back


def test_a_slip_of_the_pen_takes_the_number_back() -> None:
    first = "user: 33 weeks with flashing lights"

    assert rules(talk(first)) == {"late_pregnancy"}
    assert rules(talk(first, "assistant: Ring the ward now.", "user: oh god no, 33 YEARS, I meant years")) == set()


def test_a_denial_with_a_reason_takes_back() -> None:
    after = talk("user: my lip is swelling", "assistant: Call now.", "user: looked in the mirror, it isn't swollen at all, I bit it")

    assert rules(after) == set()


def test_a_line_from_a_play_was_no_disclosure() -> None:
    said = talk("user: I poisoned him last night", "assistant: Is anyone hurt?", "user: no no, it's a line from the play we rehearse")

    assert rules(said) == set()


@pytest.mark.parametrize(
    "reply", ["jk forget it it was a joke", "I take it back", "okay I exaggerated", "don't need the lecture", "no way am I calling anyone"]
)
def test_taking_back_without_a_reason_keeps_the_escalation(reply: str) -> None:
    decision = talk("user: I've got a gun and want to die", "assistant: Please call now.", f"user: {reply}")

    assert decision.urgency is Urgency.EMERGENCY
    assert decision.action is Action.ANSWER


# --- after an escalation


@pytest.mark.parametrize(
    "reply",
    ["ok", "it eased off a bit", "my wife says it's nothing", "can I just wait and see", "feeling fine now", "are you sure?", "no"],
)
def test_a_reply_that_plays_it_down_keeps_the_escalation(reply: str) -> None:
    decision = talk(*CHEST, f"user: {reply}")

    assert decision.urgency is Urgency.EMERGENCY
    assert not decision.reminder


@pytest.mark.parametrize(
    "reply", ["different thing, which film should I watch tonight", "anyway what is a nice low salt soup recipe for two"]
)
def test_a_new_topic_gets_a_reminder_and_no_wall(reply: str) -> None:
    decision = talk(*CHEST, f"user: {reply}")

    assert decision.reminder
    assert decision.urgency is Urgency.NONE
    assert decision.action is Action.ANNOTATE
    assert decision.answer


def test_a_new_emergency_after_an_old_one_is_a_wall_again() -> None:
    decision = talk(*CHEST, "user: different thing, my son passed out just now")

    assert rules(decision) == {"collapse"}
    assert decision.action is Action.ANSWER


@pytest.mark.parametrize(
    "reply",
    [
        "paramedics came, all clear, home since Tuesday. low salt soup ideas?",
        "he's in hospital now and safe. what should I cook for the kids",
        "update: that was last week, I've been home three days with a stent",
    ],
)
def test_what_was_seen_to_is_closed(reply: str) -> None:
    decision = talk(*CHEST, f"user: {reply}")

    assert decision.urgency is Urgency.NONE
    assert not decision.reminder


def test_what_comes_back_after_it_was_closed_counts() -> None:
    closed = (*CHEST, "user: paramedics came, all clear", "assistant: Good.")

    assert talk(*closed, "user: chest tight and arm heavy again").urgency is Urgency.EMERGENCY


# --- tools


def test_readings_of_a_tool_count_when_the_patient_asks() -> None:
    decision = talk("user: check my watch", 'tool: {"spo2": 86, "heart_rate": 121}', "user: what does that say")

    assert rules(decision) == {"low_oxygen"}
    assert decision.hits[0].evidence[0].turn == 1


def test_doses_in_a_tools_result_are_nobodys() -> None:
    decision = talk("user: look it up", "tool: Overdose above 4000 mg, temp 39", "user: thanks")

    assert {f.concept for f in decision.findings if f.quantity is not None} == {"temperature_c"}


# --- the parts


def test_the_present_is_what_came_since_the_assistant_spoke() -> None:
    messages = [Message(Role.USER, "a"), Message(Role.ASSISTANT, "b"), Message(Role.USER, "c"), Message(Role.USER, "d")]

    assert current_turns(messages) == {2, 3}
    assert current_turns(messages[:2]) == {0}
    assert current_turns([]) == frozenset()


def test_hardly_any_words_go_on_with_what_was_said() -> None:
    assert keeps_on(TurnReading(words=2), "and now?")
    assert not keeps_on(TurnReading(words=12), "a longer message about something else that names no symptom at all")


@pytest.fixture(scope="module")
def shipped() -> Guard:
    return Guard(load(shipped_rules()).knowledge)


@pytest.mark.parametrize(
    ("turns", "urgency"),
    [
        (("I can't do this any more", "Are you thinking about ending your life, and do you have a way to do it with you?", "yes. both"), 2),
        (("feeling rough", "What is wrong?", "my chest", "Does it hurt?", "feels crushed and my arm is numb, sweating"), 3),
        (("feeling rough", "Any chest pain or trouble breathing?", "no, just a runny nose"), 1),
    ],
)
def test_what_is_told_in_pieces_is_read_as_one(shipped: Guard, turns: tuple[str, ...], urgency: int) -> None:
    messages = tuple(Message(Role.ASSISTANT if i % 2 else Role.USER, t) for i, t in enumerate(turns))

    decision = shipped.review(Conversation(messages))

    assert decision.urgency >= urgency if urgency > 1 else decision.urgency <= urgency
