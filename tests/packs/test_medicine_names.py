"""The lists of medicines, as the shipped packs load them."""

from functools import cache

import pytest

from guardrail.engine.guard import Guard
from guardrail.engine.lexicon import Lexicon
from guardrail.engine.model import Conversation, Decision, Message, Role, Topic
from guardrail.packs.load import load, shipped_rules


@cache
def shipped_guard() -> Guard:
    return Guard(load(shipped_rules()).knowledge)


def lexicon() -> Lexicon:
    return shipped_guard().knowledge.lexicon


def review(text: str) -> Decision:
    return shipped_guard().review(Conversation((Message(Role.USER, text),)))


ORDINARY = """spain canada nepal dublin kerala pepsi colin thelma valerie connor klein talking talkin sleepin somone botom neuro parcs padel
redis plano jordan angus morning statistics prevent relief alive active pressing lately tuesday"""


@pytest.mark.parametrize("word", ORDINARY.split())
def test_an_ordinary_word_is_not_taken_for_a_misspelt_medicine(word: str) -> None:
    assert lexicon().respell(word) in (word, "bottom", "someone")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("metfornim", "metformin"),
        ("sudaefd", "sudafed"),
        ("levetiracetm", "levetiracetam"),
        ("simvastaitn", "simvastatin"),
        ("clonidne", "clonidine"),
        ("paracetamoll", "paracetamol"),
    ],
)
def test_a_medicine_with_one_wrong_letter_is_understood(written: str, meant: str) -> None:
    decision = review(f"what is {written} for")

    assert Topic.MEDICATION in decision.topics
    assert Topic.MEDICATION in review(f"what is {meant} for").topics


@pytest.mark.parametrize(
    "text", ["waefin and cranberry", "gabbentine dose", "motoprolol side effects", "losartin?", "remipril cough", "aceitomohen"]
)
def test_misspellings_patients_really_wrote_are_understood(text: str) -> None:
    assert Topic.MEDICATION in review(text).topics


@pytest.mark.parametrize(
    "text",
    [
        "Yasmin is coming for tea on Sunday",
        "Heather and Brenda went to Paris",
        "Allegra is my neighbour",
        "an armour for my knight costume",
        "what does candid mean",
        "the sonata was lovely",
    ],
)
def test_a_name_that_is_also_a_word_needs_context(text: str) -> None:
    assert Topic.MEDICATION not in review(text).topics


@pytest.mark.parametrize("text", ["missed my Yasmin tablet yesterday", "Allegra 180 mg tablets, how often can I take them"])
def test_a_name_that_is_also_a_word_counts_beside_a_word_of_medicine(text: str) -> None:
    assert Topic.MEDICATION in review(text).topics
