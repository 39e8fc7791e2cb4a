"""Words that are neither English nor in the lexicon, respelt: drawn-out letters, leet, one typing error.

Bounded on purpose: an ordinary word is never taken for a symptom or a medicine.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise

# Shorter words have too many English neighbours one letter away ("pian" is safe, "sore/more" is not).
RESPELL_FROM = 5
_KEPT = 4096  # the same names and slips come again and again
_LONGEST_KEPT = 32
_DRAWN_OUT = re.compile(r"(.)\1{2,}")
_LEET = (str.maketrans("013457@$", "oleastas"), str.maketrans("013457@$", "oieastas"))  # a 1 is drawn for an l and for an i
_LEET_WORD = re.compile(r"(?<!\w)(?=[\d@$]*[a-zA-Z])[a-zA-Z\d@$]{4,}(?!\w)")
# "10mg", "covid19", "$20": a number with a unit, a name with a number, a price.
_WITH_NUMBER = re.compile(r"\$?\d+[a-z]+|[a-z]+\d+")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Speller:
    """Respells unknown words as words of the lexicon. `known` are ordinary words, which stay as they are."""

    def __init__(self, words: Mapping[str, object], known: frozenset[str]) -> None:
        self._words = words
        self._known = known
        self._respelt = lru_cache(_KEPT)(self._respell)
        self._firsts, self._seconds = _halves(w for w in words if len(w) >= RESPELL_FROM and w.isalpha() and w.isascii())

    def plain(self, text: str) -> str:
        """The text with leet in it undone, letter for letter, where that makes words: "f1ng3r$" reads "fingers"."""
        return _LEET_WORD.sub(self._plain_word, text)

    def _plain_word(self, found: re.Match[str]) -> str:
        word = found[0].lower()
        if word.isalpha() or word.isdigit() or _WITH_NUMBER.fullmatch(word):
            return found[0]
        return next((p for leet in _LEET if (p := word.translate(leet)) in self._words or p in self._known), found[0])

    def is_word(self, word: str) -> bool:
        """Whether it is one of the lexicon or an ordinary one."""
        return word in self._words or word in self._known

    def shortened(self, word: str) -> str:
        """An unknown word with letters drawn out as it is usually written, where that is a word: "chesssst" reads "chest"."""
        if _DRAWN_OUT.search(word):
            for short in (_DRAWN_OUT.sub(r"\1", word), _DRAWN_OUT.sub(r"\1\1", word)):
                if self.is_word(short):
                    return short
        return word

    def respell(self, word: str) -> str:
        """The lexicon word an unknown word was probably meant to be, or the word itself."""
        return self._respelt(word) if len(word) <= _LONGEST_KEPT else self._respell(word)

    def _respell(self, word: str) -> str:
        if word in self._known or word in self._words or not word.isascii() or len(word) < 3 or word[0].isdigit():
            return word
        if word.endswith("in") and word + "g" in self._known:  # "talkin" is an ordinary word too
            return word
        if (short := self.shortened(word)) != word:
            return short
        if word.endswith("'s") and word[:-2] in self._words:  # "her knee's hot", "my son's arm"
            return word[:-2]
        if not word.isalpha():
            return next((plain for leet in _LEET if (plain := word.translate(leet)) in self._words), word)
        if len(word) < RESPELL_FROM:
            return word
        found = {c for c in self._alike(word) if _one_error_apart(word, c)}
        if not found:
            return word
        # Of several the likeliest error, then the alphabetically first, so that the same text always reads the same.
        likely, best = min((_slip(word, c), c) for c in found)
        if likely and any(word[:i] + letter + word[i:] in self._known for i in range(len(word) + 1) for letter in _LETTERS):
            return word  # "somone" is an ordinary word with a letter left out, not a medicine with a wrong letter
        return best

    def _alike(self, word: str) -> Iterator[str]:
        """Words of nearly this length that begin or end as it does. One error leaves one half of a word as it was."""
        for length in (len(word) - 1, len(word), len(word) + 1):
            half = length // 2
            yield from self._firsts.get(word[:half], ())
            yield from self._seconds.get(word[len(word) - length + half :], ())
        half = len(word) // 2  # two neighbours swapped across the middle touch both halves
        swapped = word[: half - 1] + word[half] + word[half - 1] + word[half + 1 :]
        if swapped in self._words:
            yield swapped


def _halves(words: Iterable[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Words by their first half, and by their second."""
    firsts: dict[str, list[str]] = {}
    seconds: dict[str, list[str]] = {}
    for word in words:
        half = len(word) // 2
        firsts.setdefault(word[:half], []).append(word)
        seconds.setdefault(word[half:], []).append(word)
    return firsts, seconds


def _slip(written: str, meant: str) -> int:
    """0 for the commonest typing errors (a letter left out, doubled, or swapped with its neighbour), 1 for others."""
    if len(meant) > len(written) or sorted(meant) == sorted(written):
        return 0
    return 0 if len(meant) < len(written) and any(a == b for a, b in pairwise(written)) else 1


def _one_error_apart(a: str, b: str) -> bool:
    """One letter more, fewer, other, or two neighbours swapped."""
    if a == b:
        return True
    if abs(len(a) - len(b)) > 1:
        return False
    i = 0
    while i < min(len(a), len(b)) and a[i] == b[i]:
        i += 1
    if len(a) == len(b):
        return a[i + 1 :] == b[i + 1 :] or (a[i : i + 2] == b[i : i + 2][::-1] and a[i + 2 :] == b[i + 2 :])
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    return longer[i + 1 :] == shorter[i:]
