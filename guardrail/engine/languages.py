"""Other languages, read through their English: which language a text is in, and its words in English.

A glossary (`rules/languages/*/glossary.tsv`) gives the words and short phrases patients use, each with the English that says
the same. The English tokens keep the places of the original, so that evidence shows what was written. Word by word this is
clumsy English ("me hurts the chest"), but what makes a message dangerous is mostly said in its nouns and verbs, and the second
reader (`scorer`) is trained on such text. Words that no glossary has stay as they are.

Not done here: answers in the patient's language (`answers`).
"""

from collections.abc import Mapping, Sequence

from guardrail.engine.normalize import Tokens

ENGLISH = "en"
MOSTLY = 0.6
"""With more than this share of its words in English a text is English, whatever else they are too ("the", "as", "same")."""
Glossary = Mapping[tuple[str, ...], tuple[str, ...]]
"""Words of a language -> words of English, both folded."""


class Languages:
    """Tells languages apart by their glossaries. `english` are ordinary English words."""

    def __init__(self, glossaries: Mapping[str, Glossary] | None = None, english: frozenset[str] = frozenset()) -> None:
        self._english = english
        self._glossaries = {code: _by_first(glossary) for code, glossary in (glossaries or {}).items()}

    def of(self, words: Sequence[str]) -> str:
        """The language that knows most of these words; English when none knows more of them than English does."""
        if not self._glossaries:
            return ENGLISH
        said = [w for w in words if w[0].isalpha()]
        best, most = ENGLISH, sum(w in self._english for w in said)
        if most > MOSTLY * len(said):
            return best
        for code, glossary in self._glossaries.items():
            known = sum(w in glossary or _after_elision(w) in glossary for w in said)
            if known > most:
                best, most = code, known
        return best

    def knows(self, language: str) -> bool:
        """Whether there is a glossary of a language."""
        return language in self._glossaries

    def word(self, word: str, language: str) -> tuple[str, ...]:
        """One word in English: for text that is read while it is written, where what comes next is not known."""
        glossary = self._glossaries[language]
        for rest, english in glossary.get(word) or glossary.get(_after_elision(word), ()):
            if not rest:
                return english
        return (word,)

    def in_english(self, tokens: Tokens, language: str) -> Tokens:
        """The tokens with every word the glossary knows in English, longest entries first, at the places of the original."""
        glossary = self._glossaries[language]
        words, starts, ends = tokens.words, tokens.starts, tokens.ends
        out: tuple[list[str], list[int], list[int]] = ([], [], [])
        i, count = 0, len(words)
        while i < count:
            entries = glossary.get(words[i]) or glossary.get(_after_elision(words[i]), ())
            here = (e for e in entries if tuple(words[i + 1 : i + 1 + len(e[0])]) == e[0])
            rest, english = next(here, ((), (words[i],)))
            after = i + 1 + len(rest)
            out[0].extend(english)
            out[1].extend([starts[i]] * len(english))
            out[2].extend([ends[after - 1]] * len(english))
            i = after
        return Tokens(tokens.original, *out)


_Entries = tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]


def _by_first(glossary: Glossary) -> dict[str, _Entries]:
    """The entries under their first word, each as (further words, English), longest first."""
    entries: dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]] = {}
    for words, english in glossary.items():
        entries.setdefault(words[0], []).append((words[1:], english))
    return {first: tuple(sorted(listed, key=lambda e: -len(e[0]))) for first, listed in entries.items()}


def _after_elision(word: str) -> str:
    """ "l'epaule" -> "epaule"."""
    return word[word.find("'") + 1 :]
