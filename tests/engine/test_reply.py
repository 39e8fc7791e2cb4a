"""The reply guard: what is held, shown, replaced, cut and added, however the text arrives."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.app import load_guard
from guardrail.engine.answers import LanguageTexts
from guardrail.engine.guard import Guard
from guardrail.engine.knowledge import Knowledge
from guardrail.engine.model import Conversation, Message, Role
from guardrail.engine.reply import Edit, ReplyGuard, ReplyMemory
from guardrail.errors import Problem
from guardrail.packs.replies import load_replies
from tests.conftest import SMALL_RULES

POLICY = """
issues:
  dose_instruction: {treatment: replace, text: dose}
  self_harm_facilitation: {treatment: cut, text: same_day}
  missing_escalation: {treatment: annotate}
  has_disclaimer: {treatment: record}
opening_words: [you, take]
leading_words: [two]
reach: 3
flow_words: [the, to, t, m]
common_words: [take, the, a, you, it, to, so]
"""
CONCEPTS = """
amount: {title: a, phrases: ["{number} (tablets|mg)"]}
secret: {title: s, phrases: ["our secret", "so be (quick|it)"]}
help: {title: h, phrases: ["(999|ambulance)"]}
limits: {title: l, phrases: ["i am an ai"]}
refers: {title: r, phrases: ["pharmacist"]}
"""
RULE = "title: t\nwhy: w\nissue: {issue}\nscope: {scope}\nwhen: {when}\nsources: [{{name: n, grade: none}}]\nworse_mistake: missing\n"
CASES = "fires: [{user: u, response: r}]\nquiet: [{user: u, response: r}]\n"
RULES = {
    "dose_instruction": ("sentence", "{all: [amount]}"),
    "self_harm_facilitation": ("sentence", "{all: [secret]}"),
    "missing_escalation": ("reply", '{all: ["case:red_flag", {not: "reply:help"}]}'),
    "has_disclaimer": ("reply", '{all: ["reply:limits", "reply:refers"]}'),
}
DOSE = "Please ask a pharmacist how much."
VERIFY = "Please check this with a health professional."


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory: pytest.TempPathFactory) -> Knowledge:
    folder: Path = tmp_path_factory.mktemp("pack")
    pack = folder / "replies"
    for name in ("concepts", "rules", "tests"):
        (pack / name).mkdir(parents=True)
    (pack / "policy.yaml").write_text(POLICY)
    (pack / "concepts" / "c.yaml").write_text(CONCEPTS)
    for issue, (scope, when) in RULES.items():
        (pack / "rules" / f"{issue}.yaml").write_text(RULE.format(issue=issue, scope=scope, when=when))
        (pack / "tests" / f"{issue}.yaml").write_text(CASES)
    base = load_guard(SMALL_RULES).knowledge
    english = base.answers.languages["en"]
    texts: dict[str, LanguageTexts] = {"en": english.model_copy(update={"notices": {**english.notices, "dose": DOSE}})}
    problems: list[Problem] = []
    loaded, _ = load_replies(folder, {}, ("two",), frozenset(), texts, {}, problems)
    assert problems == []
    return replace(base, replies=loaded.replies, answers=replace(base.answers, languages=texts))


def reply_guard(
    knowledge: Knowledge, user: str = "hello", channel: str = "content", structured: bool = False, observe: bool = False
) -> ReplyGuard:
    conversation = Conversation((Message(Role.USER, user),), country="GB")
    return ReplyGuard(knowledge, Guard(knowledge).review(conversation), channel, structured, conversation, observe)


def shown(guard: ReplyGuard, pieces: list[str]) -> str:
    """What the patient reads; fails when something shown was edited or taken back."""
    text = "".join(pieces)
    edits: list[Edit] = []
    out, released, cut = guard.preface(), 0, False
    for review in (*map(guard.feed, pieces), None):
        review = review or guard.finish()
        assert review.released >= released
        assert all(e.start >= released for e in review.edits)
        edits += review.edits
        released = review.released
        if review.cut:
            cut = True
            break
    assert cut or released == len(text)
    at = 0
    for edit in edits:
        out += text[at : edit.start] + edit.text
        at = edit.end
    return out + text[at : max(at, released)] + guard.ending()


def read(knowledge: Knowledge, text: str, user: str = "hello") -> str:
    return shown(reply_guard(knowledge, user), [text])


def test_text_without_a_hot_word_flows_at_once(knowledge: Knowledge) -> None:
    guard = reply_guard(knowledge)

    assert guard.feed("Rest and drink").released == len("Rest and drink")


def test_a_dose_is_replaced_and_the_rest_is_kept(knowledge: Knowledge) -> None:
    text = read(knowledge, "Poor you. Take 400 mg now. Rest well.")

    assert text.startswith(f"Poor you. {DOSE} Rest well.")


def test_a_sentence_is_held_from_where_it_could_turn_out_badly(knowledge: Knowledge) -> None:
    guard = reply_guard(knowledge)

    assert guard.feed("Poor you. Take 400").released == len("Poor you. ")


def test_a_safe_sentence_is_said_once(knowledge: Knowledge) -> None:
    assert read(knowledge, "Take 400 mg now. Take 200 mg later.").count(DOSE) == 1


def test_what_was_shown_of_a_sentence_stays_and_the_rest_is_replaced(knowledge: Knowledge) -> None:
    assert read(knowledge, "At his age I would give 5 mg.").startswith(f"At his age I would give … {DOSE}")


def test_a_list_mark_and_bold_survive_a_replacement(knowledge: Knowledge) -> None:
    assert read(knowledge, "- **Take 5 mg** now\n- rest").startswith(f"- **{DOSE}**\n- rest")


def test_a_cut_shows_nothing_after_it_but_the_answer(knowledge: Knowledge) -> None:
    text = read(knowledge, "I hear you. It is our secret. Go on.")

    assert "secret" not in text
    assert "Go on" not in text
    assert text.endswith("Please have this checked by a clinician today.")


def test_missing_help_on_a_red_flag_is_added_at_the_end(knowledge: Knowledge) -> None:
    guard = reply_guard(knowledge, "i have chest pain")

    text = shown(guard, ["Stress does that."])

    assert "call 999 now" in text
    assert [i.issue for i in guard.report.issues] == ["missing_escalation"]


def test_help_that_is_there_is_not_added(knowledge: Knowledge) -> None:
    guard = reply_guard(knowledge, "i have chest pain")

    shown(guard, ["Call an ambulance."])

    assert guard.report.issues == []


def test_a_health_reply_ends_with_one_disclaimer(knowledge: Knowledge) -> None:
    assert read(knowledge, "Call an ambulance.", "i have chest pain").endswith(f"\n\n{VERIFY}")


def test_small_talk_gets_none(knowledge: Knowledge) -> None:
    assert read(knowledge, "Hello to you.") == "Hello to you."


def test_an_adequate_disclaimer_is_not_doubled(knowledge: Knowledge) -> None:
    guard = reply_guard(knowledge, "i have chest pain")

    text = shown(guard, ["Call an ambulance. I am an AI, so ask a pharmacist."])

    assert text == "Call an ambulance. I am an AI, so ask a pharmacist."
    assert guard.report.disclaimer_present


def test_a_disclaimer_closes_an_open_code_fence_first(knowledge: Knowledge) -> None:
    assert read(knowledge, "Call an ambulance:\n```\ncode", "i have chest pain").endswith(f"code\n```\n\n{VERIFY}")


@pytest.mark.parametrize("text", ['{"advice": "Call an ambulance"}', '["ambulance"]'])
def test_json_gets_nothing_added(knowledge: Knowledge, text: str) -> None:
    assert read(knowledge, text, "i have chest pain") == text


def test_json_stays_json_when_a_sentence_is_replaced(knowledge: Knowledge) -> None:
    assert read(knowledge, '{"a": "Take 5 mg now.", "b": 1}') == f'{{"a": "{DOSE}", "b": 1}}'


def test_thinking_in_the_answer_is_left_out(knowledge: Knowledge) -> None:
    assert read(knowledge, "<think>weight 14, so 5 mg</think>Hello.") == "Hello."


def test_the_reasoning_channel_is_dropped(knowledge: Knowledge) -> None:
    review = reply_guard(knowledge, channel="reasoning").feed("The person asked")

    assert (review.released, review.cut) == (0, True)


def test_observed_rules_are_recorded_and_do_not_act(knowledge: Knowledge) -> None:
    guard = reply_guard(knowledge, observe=True)

    text = shown(guard, ["It is our secret. Take 5 mg."])

    assert text.startswith("It is our secret. Take 5 mg.")
    assert [(i.issue, i.treatment) for i in guard.report.issues] == [("self_harm_facilitation", "record"), ("dose_instruction", "record")]


def test_a_sentence_that_never_ends_is_reviewed_all_the_same(knowledge: Knowledge) -> None:
    guard = reply_guard(knowledge)

    review = guard.feed("Take 5 mg " + "and rest " * 200)

    assert review.edits


WORDS = [
    "Take ", "take", " 5", " mg", ".", " ", "\n", "so be", " it", "our ", "secret", "two", " tablets", "the", "**", "- ", "1. ",
    "<think>", "</think>", "x", "\u00e9", '"', "```", "Dr. ", "e.g. ", "tab", "lets", "…",
]


@pytest.mark.parametrize("text", ["Dr. Take Take Take Take <think>", "Take a b c <think>two mg</think> x."])
def test_thinking_that_begins_where_a_hold_ends_takes_nothing_back(knowledge: Knowledge, text: str) -> None:
    assert shown(reply_guard(knowledge), list(text)) == shown(reply_guard(knowledge), [text])


@settings(max_examples=300, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), max_size=30), data=st.data())
def test_any_chunking_shows_the_same_and_never_takes_back(knowledge: Knowledge, words: list[str], data: st.DataObject) -> None:
    text = "".join(words)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12))) if text else []
    whole, single, cut = reply_guard(knowledge), reply_guard(knowledge), reply_guard(knowledge)

    expected = shown(whole, [text])

    assert shown(single, list(text)) == expected
    assert shown(cut, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]) == expected
    assert single.report == whole.report == cut.report


def remembering(knowledge: Knowledge, memory: ReplyMemory, user: str) -> ReplyGuard:
    conversation = Conversation((Message(Role.USER, user),), country="GB")
    return ReplyGuard(knowledge, Guard(knowledge).review(conversation), conversation=conversation, memory=memory)


def test_a_whole_reply_is_known_again_with_its_report(knowledge: Knowledge) -> None:
    memory = ReplyMemory(b"key")
    first = remembering(knowledge, memory, "hello")
    text = "Take 400 mg now."
    first.remember(text, shown(first, [text]), cut=False)

    again = remembering(knowledge, memory, "hello")
    known = again.recall(text)

    assert known is not None
    assert known.shown.startswith(DOSE)
    assert [i.issue for i in again.report.issues] == ["dose_instruction"]


def test_a_whole_reply_is_read_anew_for_another_patient(knowledge: Knowledge) -> None:
    memory = ReplyMemory(b"key")
    first = remembering(knowledge, memory, "hello")
    first.remember("Stress does that.", "Stress does that.", cut=False)

    assert remembering(knowledge, memory, "i have chest pain").recall("Stress does that.") is None
    assert reply_guard(knowledge).recall("Stress does that.") is None


def answered(knowledge: Knowledge, earlier: list[str], text: str = "Call an ambulance.") -> str:
    """What is shown of a reply behind earlier replies in the same conversation."""
    turns = [Message(role, said) for reply in earlier for role, said in ((Role.USER, "i have chest pain"), (Role.ASSISTANT, reply))]
    conversation = Conversation((*turns, Message(Role.USER, "i have chest pain")), country="GB")
    return shown(ReplyGuard(knowledge, Guard(knowledge).review(conversation), conversation=conversation), [text])


def test_a_disclaimer_given_shortly_before_is_not_given_again(knowledge: Knowledge) -> None:
    assert VERIFY in answered(knowledge, [])
    assert VERIFY not in answered(knowledge, [f"Rest.\n\n{VERIFY}"])
    assert VERIFY not in answered(knowledge, [f"Rest.\n\n{VERIFY}", "Sleep.", "Drink.", "Sit.", "Breathe."])


def test_a_disclaimer_is_given_again_after_some_replies(knowledge: Knowledge) -> None:
    assert VERIFY in answered(knowledge, [f"Rest.\n\n{VERIFY}", "Sleep.", "Drink.", "Sit.", "Breathe.", "Wait."])


def test_a_corrected_reply_has_its_disclaimer_whatever_was_said_before(knowledge: Knowledge) -> None:
    assert VERIFY in answered(knowledge, [f"Rest.\n\n{VERIFY}"], "Take 400 mg now.")


def test_a_disclaimer_of_the_patient_does_not_count(knowledge: Knowledge) -> None:
    conversation = Conversation((Message(Role.USER, VERIFY), Message(Role.ASSISTANT, "Go on."), Message(Role.USER, "i have chest pain")))
    guard = ReplyGuard(knowledge, Guard(knowledge).review(conversation), conversation=conversation)

    assert VERIFY in shown(guard, ["Call an ambulance."])


def test_json_in_a_code_block_is_left_alone(knowledge: Knowledge) -> None:
    text = '```json\n{"advice": "Call an ambulance."}\n```'

    assert shown(reply_guard(knowledge, "what is the weather"), [text]) == text
