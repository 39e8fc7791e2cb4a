"""Other languages are read through their English, at the places of what was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.engine.guard import Guard
from guardrail.engine.languages import Languages
from guardrail.engine.model import Conversation, Message, Role, Urgency
from guardrail.engine.normalize import tokenize
from guardrail.engine.reply import ReplyGuard
from guardrail.packs.load import load, shipped_rules

SPANISH: dict[tuple[str, ...], tuple[str, ...]] = {
    ("me",): ("me",),
    ("duele",): ("hurts",),
    ("el",): ("the",),
    ("pecho",): ("chest",),
    ("no",): ("no",),
    ("falta", "de", "aire"): ("breathless",),
    ("falta",): ("lack",),
    ("tengo",): ("have",),
    ("quitarme", "la", "vida"): ("kill", "myself"),
}
FRENCH: dict[tuple[str, ...], tuple[str, ...]] = {("epaule",): ("shoulder",), ("mal",): ("ache",), ("a",): ("at",)}
LANGUAGES = Languages({"es": SPANISH, "fr": FRENCH}, frozenset(["me", "no", "chest", "pain", "is", "the", "same", "as", "falta"]))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("me duele el pecho", "es"),
        ("chest pain", "en"),
        ("no", "en"),  # every language's
        ("is it the same as tengo", "en"),  # mostly English
        ("mal à l'épaule", "fr"),
        ("", "en"),
        ("39 5 !", "en"),
    ],
)
def test_the_language_that_knows_most_words(text: str, language: str) -> None:
    assert LANGUAGES.of(tokenize(text).words) == language


def test_words_are_glossed_at_their_places() -> None:
    tokens = LANGUAGES.in_english(tokenize("Tengo falta de aire"), "es")

    assert list(tokens.words) == ["have", "breathless"]
    assert tokens.text(1, 2) == "falta de aire"


def test_english_of_several_words_stands_at_one_place() -> None:
    tokens = LANGUAGES.in_english(tokenize("quitarme la vida ya"), "es")

    assert list(tokens.words) == ["kill", "myself", "ya"]
    assert tokens.text(0, 2) == "quitarme la vida"


def test_a_longer_entry_goes_before_a_shorter_one_and_unknown_words_stay() -> None:
    assert list(LANGUAGES.in_english(tokenize("falta pan"), "es").words) == ["lack", "pan"]


@given(st.text(max_size=80))
def test_places_stay_in_order_and_inside_the_text(text: str) -> None:
    tokens = LANGUAGES.in_english(tokenize(text), "es")

    assert all(0 <= a < b <= len(text) for a, b in zip(tokens.starts, tokens.ends, strict=True))
    assert list(tokens.starts) == sorted(tokens.starts)


@pytest.fixture(scope="module")
def guard() -> Guard:
    return Guard(load(shipped_rules()).knowledge)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("me aprieta mucho el pecho y estoy sudando frío, no puedo respirar", "es"),
        ("j'ai une douleur qui serre la poitrine et je n'arrive plus à respirer", "fr"),
        ("sto male, ho un dolore forte al petto e non respiro", "it"),
        ("estou com uma dor forte no peito e falta de ar", "pt"),
    ],
)
def test_an_emergency_in_another_language_is_answered_in_it(guard: Guard, text: str, language: str) -> None:
    decision = guard.review(Conversation((Message(Role.USER, text),), country="ES"))

    assert decision.urgency is Urgency.EMERGENCY
    assert decision.language == language
    assert decision.answer
    assert "112" in decision.answer
    assert "emergency" not in decision.answer


def test_a_bare_no_does_not_change_the_language(guard: Guard) -> None:
    turns = ("my knee hurts when I run", "Any swelling?", "no")
    messages = tuple(Message(Role.ASSISTANT if i % 2 else Role.USER, t) for i, t in enumerate(turns))

    assert guard.review(Conversation(messages)).language == "en"


@pytest.mark.parametrize(
    ("user", "reply", "issue"),
    [
        ("cuánto ibuprofeno puedo tomar para la espalda", "Tome dos pastillas de 400 mg cada seis horas con comida.", "dose_instruction"),
        ("je peux arrêter mon traitement ?", "Arrêtez simplement vos comprimés pendant quelques semaines.", "stop_start_medication"),
    ],
)
@pytest.mark.parametrize("region", [None, "XX"])
def test_replies_in_another_language_are_read_too(guard: Guard, user: str, reply: str, issue: str, region: str | None) -> None:
    said = "es" if "cuánto" in user else "fr"
    conversation = Conversation((Message(Role.USER, user),), language=f"{said}-{region}" if region else None)
    one = ReplyGuard(guard.knowledge, guard.review(conversation), conversation=conversation)

    one.feed(reply)
    one.finish()

    assert issue in {found.issue for found in one.report.issues}
