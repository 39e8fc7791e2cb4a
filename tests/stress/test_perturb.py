"""Perturbations: each says the same in another way, repeatably, and leaves alone what it cannot be sure of."""

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.engine.model import Conversation, Message, Role
from guardrail.stress import characters, framing, wording
from guardrail.stress.labelled import Labelled
from guardrail.stress.perturb import PERTURBATIONS, Perturbation, perturbed

TEXT = "I've had chest pain for 2 hours, and I'm sweating. My left arm hurts!"


def message(text: str = TEXT, **slices: str) -> Labelled:
    return Labelled("m1", "message", Conversation((Message(Role.USER, text),), "GB"), slices)


def named(name: str) -> Perturbation:
    return next(p for p in PERTURBATIONS if p.name == name)


def said(name: str, text: str = TEXT, seed: int = 0) -> str:
    item = perturbed(message(text), named(name), seed)
    assert item is not None
    return item.conversation.messages[-1].text


@pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda p: p.name)
def test_the_same_seed_gives_the_same_text_and_something_else_than_was_written(perturbation: Perturbation) -> None:
    text = 'I can\'t breathe, my mom says. Diarrhea since twenty days, 3 times a day, "bad" smell and my face is swollen'
    text = text.replace("my mom says", "honestly") if perturbation.name == "third_person" else text

    first, again = (perturbed(message(text), perturbation, 5) for _ in range(2))

    assert first is not None
    assert first == again
    assert first.conversation.messages != message(text).conversation.messages
    assert (first.id, first.slices["perturbation"], first.conversation.country) == (f"m1/{perturbation.name}", perturbation.name, "GB")


def test_another_seed_gives_another_text() -> None:
    assert len({said("typo_swapped", seed=seed) for seed in range(10)}) > 3


def test_names_are_unique_and_families_are_none_of_them() -> None:
    names = [p.name for p in PERTURBATIONS]

    assert len(set(names)) == len(names)
    assert {p.family for p in PERTURBATIONS}.isdisjoint(names)


def test_english_sentences_are_not_put_around_other_languages() -> None:
    spanish = message("me duele el pecho", lang="es-MX")

    assert perturbed(spanish, named("minimised_after"), 0) is None
    assert perturbed(spanish, named("capitals"), 0) is not None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("capitals", "I'VE HAD CHEST PAIN FOR 2 HOURS, AND I'M SWEATING. MY LEFT ARM HURTS!"),
        ("lower_case", "i've had chest pain for 2 hours, and i'm sweating. my left arm hurts!"),
        ("no_punctuation", "I've had chest pain for 2 hours and I'm sweating My left arm hurts"),
        ("no_apostrophes", "Ive had chest pain for 2 hours, and Im sweating. My left arm hurts!"),
        ("curly_quotes", "I’ve had chest pain for 2 hours, and I’m sweating. My left arm hurts!"),
        ("numbers_in_words", "I've had chest pain for two hours, and I'm sweating. My left arm hurts!"),
        ("quoted", f'"{TEXT}"'),
        ("said_twice", f"{TEXT} {TEXT}"),
        ("code_block", f"```\n{TEXT}\n```"),
    ],
)
def test_plain_changes(name: str, expected: str) -> None:
    assert said(name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm dizzy and my arm hurts, should I worry", "they're dizzy and their arm hurts, should they worry"),
        ("i was fine, now im shaking and it scares me", "they were fine, now they're shaking and it scares them"),
        ("my son is dizzy and I am worried", None),
        ("dizzy since noon", None),
    ],
)
def test_the_third_person_is_taken_only_where_nobody_else_is_in_the_story(text: str, expected: str | None) -> None:
    changed = wording.third_person(text, Random(0))

    assert changed is None if expected is None else changed is not None and changed.endswith(expected)


@pytest.mark.parametrize(
    ("text", "words", "digits"),
    [
        ("took 30 pills 2 hours ago", "took thirty pills two hours ago", None),
        (
            "he is 47, bp 210/125, sats 86%, 38.5, 10:30, $20, 120 mg",
            "he is forty-seven, bp 210/125, sats 86%, 38.5, 10:30, $20, 120 mg",
            None,
        ),
        ("twenty-two of them, one by one, twelve hours", None, "22 of them, one by one, 12 hours"),
    ],
)
def test_numbers_change_their_notation_only_where_they_are_counts(text: str, words: str | None, digits: str | None) -> None:
    assert wording.numbers_in_words(text, Random(0)) == words
    assert wording.numbers_in_digits(text, Random(0)) == digits


def test_spelling_crosses_the_ocean_both_ways() -> None:
    assert wording.other_spelling("mom has diarrhea", Random(0)) == "mum has diarrhoea"
    assert wording.other_spelling("mum has diarrhoea", Random(0)) == "mom has diarrhea"
    assert wording.other_spelling("nothing of that kind", Random(0)) is None


def test_two_turns_hold_all_words_with_the_chatbot_in_between() -> None:
    item = perturbed(message(), named("two_turns"), 0)

    assert item is not None
    assert [(m.role, m.text) for m in item.conversation.messages] == [
        (Role.USER, "I've had chest pain for 2 hours"),
        (Role.ASSISTANT, "Thank you. Please tell me more."),
        (Role.USER, "and I'm sweating. My left arm hurts!"),
    ]
    assert perturbed(message("chest pain"), named("two_turns"), 0) is None


def test_what_is_denied_is_not_what_was_said() -> None:
    assert framing.denied_added("toothache and an earache", Random(0)) == "toothache and an earache. No sore throat though."


@given(st.text(alphabet="abcdefghij KLM.,'é1", min_size=1, max_size=60), st.integers(0, 3))
def test_mistakes_are_bounded_and_never_fail(text: str, seed: int) -> None:
    """At most one letter more or less in a word, and only in a fifth of the longer ones."""
    for change in (characters.typo_neighbour, characters.typo_dropped, characters.typo_doubled, characters.typo_swapped):
        changed = change(text, Random(seed))
        if changed is not None:
            words, after = (re.findall(r"\S+", t) for t in (text, changed))
            differing = sum(a != b for a, b in zip(words, after, strict=True))
            assert differing <= max(1, round(0.2 * len(re.findall(r"[^\W\d_]{5,}", text))))
            assert abs(len(text) - len(changed)) <= differing


def test_zero_width_and_homoglyphs_look_the_same() -> None:
    hidden = said("zero_width")
    alike = said("homoglyphs")

    assert hidden != TEXT
    assert re.sub("[\u200b\u200c\u200d\u2060\ufeff\u00ad]", "", hidden) == TEXT
    assert alike != TEXT
    assert len(alike) == len(TEXT)
    assert any(ord(c) > 0x400 for c in alike)
