"""Telephone lines of other countries in what a model says: "call 911" helps nobody in Wales.

Known lines are those of `rules/contacts.yaml`, whether they may be shown or not. A number that no country's table has is left alone: it may
be the clinic's own. Not done here: whether the sentence says to call it (`rules/replies/`).
"""

import re
from collections.abc import Iterable, Mapping

from guardrail.engine.answers import Contact, Country

_NUMBER = re.compile(r"(?<![\w.,/])\+?\d(?:[\d\s().\-]{0,18}\d)?(?![\w%]|[.,/]\d)")
_DIGITS = re.compile(r"\d+")
# Works from mobile phones nearly everywhere.
_EVERYWHERE = frozenset({"112"})
_SHORTEST = 3  # digits; shorter groups stand in every second sentence


class Lines:
    """The lines of all countries, by their digits."""

    def __init__(self, countries: Mapping[str, Country]) -> None:
        self._own = {code: frozenset(_join(n) for n in _numbers_of(country)) | _EVERYWHERE for code, country in countries.items()}
        groups = {code: frozenset(g for n in _numbers_of(country) for g in _DIGITS.findall(n)) for code, country in countries.items()}
        self._all = frozenset().union(*self._own.values()) if self._own else frozenset()
        every = frozenset().union(*groups.values()) if groups else frozenset()
        self._groups = {code: frozenset(g for g in every - own - _EVERYWHERE if len(g) >= _SHORTEST) for code, own in groups.items()}

    def groups(self, country: str | None) -> frozenset[str]:
        """Groups of digits with which lines of other countries are written, and none of this one; empty for an unknown country."""
        return self._groups.get(country or "", frozenset())

    def foreign(self, text: str, country: str | None) -> tuple[int, int] | None:
        """Where a line of another country stands first, if anywhere."""
        own = self._own.get(country or "")
        if own is None:
            return None
        for found in _NUMBER.finditer(text):
            digits = _join(found[0])
            if digits in self._all and digits not in own:
                return found.span()
        return None


def _numbers_of(country: Country) -> Iterable[str]:
    contacts: tuple[Contact, ...] = (country.emergency, *country.crisis, *country.poison, *country.nurse)
    for contact in contacts:
        yield contact.number
        yield from contact.also
        yield from _DIGITS.findall(contact.text_line or "")


def _join(number: str) -> str:
    return "".join(_DIGITS.findall(number))
