"""What the patient reads: texts per language with the numbers of their country put in.

Texts are data (`rules/languages/*/answers.yaml`), numbers are dated data (`rules/contacts.yaml`). Neither is ever model text.
An unknown country, or a number whose grade does not allow it to be shown, gives words without digits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from guardrail.engine.rules import Frozen

Slot = Literal["emergency", "crisis", "poison", "nurse"]
_SHOWN: Mapping[str, frozenset[str]] = {
    # `contacts.md`: emergency 0 is in no official table; crisis, poison and nurse lines graded U are unverified.
    "emergency": frozenset({"1", "2"}),
    "crisis": frozenset({"A", "B"}),
    "poison": frozenset({"P", "B"}),
    "nurse": frozenset({"A", "B", "P"}),
}


class Contact(Frozen):
    """One line: what to call, who runs it, when it is open, where the number comes from and when it was checked."""

    number: str
    name: str | None = None
    hours: str | None = None
    audience: str = "general"
    text_line: str | None = None
    also: tuple[str, ...] = ()
    source: str
    checked: str
    grade: str


class Country(Frozen):
    name: str
    emergency: Contact
    crisis: tuple[Contact, ...] = ()
    poison: tuple[Contact, ...] = ()
    nurse: tuple[Contact, ...] = ()
    note: str | None = None

    def lines(self, slot: Slot) -> tuple[Contact, ...]:
        """The contacts of one kind that may be shown to patients: graded well enough, and open to everyone."""
        found = (self.emergency,) if slot == "emergency" else getattr(self, slot)
        return tuple(c for c in found if str(c.grade) in _SHOWN[slot] and c.audience == "general")


class LanguageTexts(Frozen):
    """The texts of one language.

    `answers` are whole replies by key; in them `{emergency}`, `{crisis}`, `{poison}` and `{nurse}` stand for a phrase that
    `with_number` builds from the country's contact, or `without_number` where there is none to show.
    """

    answers: Mapping[str, str]
    with_number: Mapping[Slot, str]
    without_number: Mapping[Slot, str]
    disclaimers: Mapping[str, str] = Field(default_factory=dict)
    notices: Mapping[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answers:
    """Renders texts; falls back to English for a language or key that is not there."""

    languages: Mapping[str, LanguageTexts]
    countries: Mapping[str, Country]
    fallback: str = "en"

    def has(self, key: str) -> bool:
        return key in self.languages[self.fallback].answers

    def render(self, key: str, language: str, country: str | None) -> str:
        texts = self._texts(language)
        if key not in texts.answers:
            texts = self.languages[self.fallback]
        return self._fill(texts.answers[key], texts, country)

    def disclaimer(self, key: str, language: str, country: str | None) -> str:
        """The disclaimer of a kind; the general one where there is none of that kind."""
        texts = self._texts(language)
        if key not in texts.disclaimers:
            key = "verify"
        if key not in texts.disclaimers:
            texts = self.languages[self.fallback]
        return self._fill(texts.disclaimers[key], texts, country)

    def notice(self, key: str, language: str, country: str | None) -> str:
        texts = self._texts(language)
        if key not in texts.notices:
            texts = self.languages[self.fallback]
        return self._fill(texts.notices[key], texts, country)

    def _texts(self, language: str) -> LanguageTexts:
        return self.languages.get(language) or self.languages.get(language.split("-")[0]) or self.languages[self.fallback]

    def _fill(self, text: str, texts: LanguageTexts, country: str | None) -> str:
        for slot in ("emergency", "crisis", "poison", "nurse"):
            place = "{" + slot + "}"
            while place in text:
                before, _, after = text.partition(place)
                phrase = self._phrase(slot, texts, country)
                if not before.strip() or before.rstrip(" ").endswith((".", "!", "?", "\n", "¡", "¿")):
                    phrase = phrase[:1].upper() + phrase[1:]
                text = before + phrase + after
        return text.strip()

    def _phrase(self, slot: Slot, texts: LanguageTexts, country: str | None) -> str:
        lines = self.countries[country].lines(slot) if country and country in self.countries else ()
        if not lines:
            return texts.without_number[slot]
        first = lines[0]
        return texts.with_number[slot].format(number=first.number, name=first.name or "", hours=f", {first.hours}" if first.hours else "")
