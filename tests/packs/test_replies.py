"""The pack of reply rules: what loads, what does not, and that the shipped rules do what their cases say."""

from pathlib import Path

import pytest

from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Message, Role
from guardrail.engine.replies import Hold
from guardrail.engine.reply import ReplyGuard
from guardrail.errors import Problem
from guardrail.packs.load import Loaded, load, shipped_rules
from guardrail.packs.replies import load_replies
from guardrail.proxy.relay import review_text


@pytest.fixture(scope="module")
def shipped() -> Loaded:
    return load(shipped_rules())


def test_every_shipped_reply_rule_fires_and_keeps_quiet_as_its_cases_say(shipped: Loaded) -> None:
    guard = Guard(shipped.knowledge)
    wrong: list[str] = []
    for rule in shipped.reply_cases:
        for expected, cases in ((True, rule.cases.fires), (False, rule.cases.quiet)):
            for case in cases:
                conversation = Conversation((Message(Role.USER, case.user),), case.country)
                reply = ReplyGuard(shipped.knowledge, guard.review(conversation), conversation=conversation, observe=True)
                review_text(reply, case.response)
                if (rule.issue in {i.issue for i in reply.report.issues}) is not expected:
                    wrong.append(f"{rule.rule} {'did not fire' if expected else 'fired'}: {case.response}")

    assert wrong == []


def test_ordinary_words_do_not_hold(shipped: Loaded) -> None:
    replies = shipped.knowledge.replies

    assert replies is not None
    held = [w for w in ("and", "doctor", "water", "the", "please") if w in replies.words and replies.words[w].hold & Hold.HOT]
    assert held == []


def write(folder: Path, **files: str) -> Path:
    pack = folder / "rules" / "replies"
    for name in ("concepts", "rules", "tests"):
        (pack / name).mkdir(parents=True)
    (pack / "policy.yaml").write_text(
        "issues: {praise: {treatment: record}}\nopening_words: [you]\nleading_words: [two]\n"
        "flow_words: [the]\ncommon_words: [the, a, you, it]\n"
    )
    for name, text in files.items():
        (pack / f"{name.replace('__', '/')}.yaml").write_text(text)
    return folder / "rules"


RULE = "title: t\nwhy: w\nissue: praise\nwhen: {all: [clever]}\nsources: [{name: n, grade: none}]\nworse_mistake: missing\n"
CASES = "fires: [{user: u, response: clever}]\nquiet: [{user: u, response: dull}]\n"


def problems(folder: Path) -> list[str]:
    found: list[Problem] = []
    load_replies(folder, {}, (), frozenset(), {}, {}, found)
    return [str(p) for p in found]


def test_a_folder_without_the_pack_has_no_reply_rules(tmp_path: Path) -> None:
    found, read = load_replies(tmp_path, {}, (), frozenset(), {}, {}, [])

    assert (found.replies, found.cases, read) == (None, (), b"")


def test_a_small_pack_loads(tmp_path: Path) -> None:
    folder = write(tmp_path, concepts__c="clever: {title: c, phrases: [clever]}\n", rules__r=RULE, tests__r=CASES)

    assert problems(folder) == []


def test_an_unknown_concept_is_named_with_the_nearest(tmp_path: Path) -> None:
    folder = write(
        tmp_path, concepts__c="clever: {title: c, phrases: [clever]}\n", rules__r=RULE.replace("[clever]", "[clevr]"), tests__r=CASES
    )

    assert problems(folder) == ['rules/replies/rules/r.yaml:4:1: unknown name "clevr"; did you mean "clever"?']


def test_a_rule_needs_its_cases_and_an_issue_with_a_policy(tmp_path: Path) -> None:
    folder = write(tmp_path, concepts__c="clever: {title: c, phrases: [clever]}\n", rules__r=RULE.replace("praise", "prase"))

    assert problems(folder) == [
        "rules/replies/rules/r.yaml:1:1: has no test file; add replies/tests/r.yaml with fires and quiet cases",
        'rules/replies/rules/r.yaml:3:1: issue "prase" has no policy; did you mean "praise"?',
    ]


def test_a_phrase_of_common_words_only_cannot_hold_a_sentence(tmp_path: Path) -> None:
    folder = write(tmp_path, concepts__c="clever: {title: c, phrases: [you]}\n", rules__r=RULE + "treatment: replace\n", tests__r=CASES)

    assert problems(folder) == ['rules/replies/concepts/c.yaml:1:30: phrase "you": has only common words; a sentence cannot be held on it']


def test_the_guards_own_disclaimers_are_adequate_in_every_language(shipped: Loaded) -> None:
    """So that a guard behind a guard adds nothing."""
    guard = Guard(shipped.knowledge)
    answers = shipped.knowledge.answers
    doubled: list[str] = []
    for language, texts in answers.languages.items():
        for kind in texts.disclaimers:
            conversation = Conversation((Message(Role.USER, "what is a fever"),), language=language)
            reply = ReplyGuard(shipped.knowledge, guard.review(conversation), conversation=conversation)
            text = f"A fever is 38 degrees or more.\n\n{answers.disclaimer(kind, language, None)}"
            if review_text(reply, text) != text:
                doubled.append(f"{language} {kind}")

    assert doubled == []


def test_a_medication_question_gets_its_own_disclaimer_once(shipped: Loaded) -> None:
    guard = Guard(shipped.knowledge)
    answers = shipped.knowledge.answers
    verify, medication = (answers.disclaimer(kind, "en", None) for kind in ("verify", "medication"))

    def reply_to(*said: str) -> str:
        roles = (Role.USER, Role.ASSISTANT)
        conversation = Conversation(tuple(Message(roles[i % 2], text) for i, text in enumerate(said)))
        reply = ReplyGuard(shipped.knowledge, guard.review(conversation), conversation=conversation)
        return review_text(reply, "Ibuprofen and similar tablets reduce swelling.")

    question = "is ibuprofen an anti-inflammatory medicine or a steroid"
    assert reply_to("what is a fever", f"A high temperature.\n\n{verify}", question).endswith(medication)
    assert medication not in reply_to(question, f"It reduces swelling.\n\n{medication}", question)
