"""What patients read: the country's numbers, or words without digits."""

import pytest

from guardrail.engine.answers import Answers, Contact, Country, LanguageTexts

ENGLISH = LanguageTexts(
    answers={"ambulance": "This may be an emergency. {emergency} now. If not, {crisis}."},
    with_number={"emergency": "call {number}", "crisis": "call {name} ({number})", "poison": "call {number}", "nurse": "call {number}"},
    without_number={
        "emergency": "call your local emergency number",
        "crisis": "call a crisis line",
        "poison": "call a poison centre",
        "nurse": "call a nurse line",
    },
)


def country(crisis_grade: str) -> Country:
    emergency = Contact(number="999", source="a table", checked="2026-11-22", grade="2")
    line = Contact(number="116 123", name="Samaritans", source="a list", checked="2026-11-22", grade=crisis_grade)
    return Country(name="United Kingdom", emergency=emergency, crisis=(line,))


def test_a_known_country_gives_its_numbers_and_a_sentence_begins_with_a_capital() -> None:
    answers = Answers({"en": ENGLISH}, {"GB": country("A")})

    text = answers.render("ambulance", "en-GB", "GB")

    assert text == "This may be an emergency. Call 999 now. If not, call Samaritans (116 123)."


@pytest.mark.parametrize("unknown", [None, "XX"])
def test_an_unknown_country_gives_words_and_no_digits(unknown: str | None) -> None:
    text = Answers({"en": ENGLISH}, {"GB": country("A")}).render("ambulance", "en", unknown)

    assert not any(c.isdigit() for c in text)
    assert "local emergency number" in text


def test_an_unverified_number_is_not_shown() -> None:
    text = Answers({"en": ENGLISH}, {"GB": country("U")}).render("ambulance", "en", "GB")

    assert "116 123" not in text
    assert "call a crisis line" in text
