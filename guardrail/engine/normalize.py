"""Text as written -> tokens in one spelling, each with its place in the original.

Characters first: compatibility forms, curly quotes, accents, confusable letters and case are folded one character at
a time, so that every folded character knows the original it came from; what a web page or Markdown put around words (entities, tags,
asterisks) goes. Then words: letters spaced out ("c h e s t") are joined; drawn-out letters ("paaaain") and bounded leet ("p4in")
are undone by the lexicon, which knows which words exist. A token's `start` and `end` are offsets into the original text, always.

Not done here: typing errors (`lexicon`), numbers (`quantities`), meaning of any kind.
"""

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

# Letters of other scripts that are drawn like Latin ones; seen in filter evasion and in copied text. Only folded inside a
# word that also has Latin letters, so that Greek and Cyrillic text stays itself.
_CONFUSABLE = str.maketrans("аеорсухіѕјԁһαοеρтνкм", "aeopcyxisjdhaoeptvkm")
_QUOTES = {"‐": "-", "‑": "-", "’": "'", "‘": "'", "`": "'", "´": "'", "ʼ": "'", "“": '"', "”": '"', "…": "."}
_DROPPED = re.compile("[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")

# A word with inner apostrophes, a number with its separators, or one other visible character.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_HYPHEN = r"(?!(?<=\w)-(?=[^\W\d_]))"  # "flu-like", "3-week-old", "c-section" read as without
# Emphasis: "no **breathing**" reads "no breathing". In "2*500mg" it stays.
_PLAIN_MARK = rf"{_HYPHEN}[^\w\s*]|(?<![*.,!?])(?<![^\W\d_])\*(?!\**[^\W\d_])"
_TOKEN = re.compile(
    rf"\d+(?:[.,:/]\d+)*|[{_CJK}]|(?:(?![{_CJK}])[^\W\d_])+(?:'(?:(?![{_CJK}])[^\W\d_])+|\d+(?=[^\W\d_])(?:[^\W\d_])+)*|\n|{_PLAIN_MARK}|_"
)
_ASCII_TOKEN = re.compile(rf"\d+(?:[.,:/]\d+)*|[a-z]+(?:'[a-z]+|\d+[a-z]+)*|\n|{_PLAIN_MARK}|_")
# Named ones that no text holds by chance, and the tags of what people paste: "x < y" and "<3" are no markup.
_MARKUP = re.compile(
    r"&(?:#\d{1,6}|#x[0-9a-f]{1,5}|nbsp|quot|apos|amp|lt|gt|[lr][sd]quo|[nm]dash|hellip|[a-z](?:acute|grave|circ|uml|tilde|cedil));"
    r"|</?(?P<tag>p|br|div|li|ul|ol|tr|td|h[1-6]|blockquote|pre|span|b|i|u|em|strong|code|font|a)(?:\s[^<>]{0,200})?/?>",
    re.IGNORECASE,
)
_LINES = frozenset(["p", "br", "div", "li", "ul", "ol", "tr", "td", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre"])
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_LETTERS = frozenset(ascii_lowercase)

STOPS = frozenset(".!?;\n")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The folded words of one text, side by side with their places in the original."""

    original: str
    words: Sequence[str]
    starts: Sequence[int]
    ends: Sequence[int]

    def __len__(self) -> int:
        return len(self.words)

    def text(self, first: int, after: int) -> str:
        """The original text from token `first` up to but not including token `after`."""
        return self.original[self.starts[first] : self.ends[after - 1]]


def _fold(char: str) -> str:
    """One character in its plain form; empty when it is invisible or only an accent."""
    if char in _QUOTES:
        return _QUOTES[char]
    if _DROPPED.match(char):
        return ""
    plain = unicodedata.normalize("NFKD", char)
    if len(plain) > 1 or unicodedata.combining(plain):
        # Accents go only where a Latin letter carries them; vowel signs of other scripts are letters.
        plain = "".join(c for c in plain if not ("\u0300" <= c <= "\u036f"))
    return unicodedata.normalize("NFKC", plain).lower()


def fold(text: str) -> str:
    """The folded text without its map, for comparing words of packs."""
    if text.isascii():
        return text.lower()
    return "".join(map(_fold, text))


def _fold_with_map(text: str) -> tuple[str, list[int]]:
    parts: list[str] = []
    places: list[int] = []
    known: dict[str, str] = {}
    at = 0
    for found in _NOT_ASCII.finditer(text):
        start, char = found.start(), found[0]
        plain = known.get(char)
        if plain is None:
            plain = known[char] = _fold(char)
        parts += (text[at:start].lower(), plain)
        places += (*range(at, start), *[start] * len(plain))
        at = start + 1
    parts.append(text[at:].lower())
    places += range(at, len(text))
    return "".join(parts), places


def _without_markup(text: str) -> tuple[str, list[int]]:
    """The text without entities and tags, and for each of its characters the place of the original. A tag that begins a line ends one."""
    parts: list[str] = []
    places: list[int] = []
    at = 0
    for found in _MARKUP.finditer(text):
        start, end = found.span()
        tag = found["tag"]
        said = html.unescape(found[0]) if tag is None else "\n" if start and tag.lower() in _LINES else " "
        parts += (text[at:start], said)
        places += (*range(at, start), *[start] * len(said))
        at = end
    parts.append(text[at:])
    places += range(at, len(text))
    return "".join(parts), places


def tokenize(text: str) -> Tokens:
    """Fold and split one text. Linear in its length; never fails."""
    if "<" in text or "&" in text:
        plain, places = _without_markup(text)
        tokens = _split(plain)
        return Tokens(text, tokens.words, [places[i] for i in tokens.starts], [places[i - 1] + 1 for i in tokens.ends])
    return _split(text)


def _split(text: str) -> Tokens:
    """The tokens of a text without markup."""
    if text.isascii():
        words: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        for found in _ASCII_TOKEN.finditer(text.lower()):
            start, end = found.span()
            words.append(found[0])
            starts.append(start)
            ends.append(end)
    else:
        folded, places = _fold_with_map(text)
        words, starts, ends = [], [], []
        for found in _TOKEN.finditer(folded):
            word = found[0]
            if not word.isascii() and any("a" <= c <= "z" for c in word):
                word = word.translate(_CONFUSABLE)
            words.append(word)
            starts.append(places[found.start()])
            ends.append(places[found.end() - 1] + 1)
    return _join_spaced_letters(Tokens(text, words, starts, ends))


def _join_spaced_letters(tokens: Tokens) -> Tokens:
    """ "c h e s t" -> "chest": a run of at least four single letters, one blank apart."""
    words = tokens.words
    singles = [w in _LETTERS for w in words]
    if sum(singles) < 4:
        return tokens
    out: tuple[list[str], list[int], list[int]] = ([], [], [])
    i, count = 0, len(words)
    while i < count:
        j = i
        while j < count and singles[j] and (j == i or tokens.starts[j] - tokens.ends[j - 1] == 1):
            j += 1
        if j - i >= 4:
            word, end = "".join(words[i:j]), tokens.ends[j - 1]
        else:
            j, word, end = i + 1, words[i], tokens.ends[i]
        out[0].append(word)
        out[1].append(tokens.starts[i])
        out[2].append(end)
        i = j
    return Tokens(tokens.original, *out)
