"""How a message is written, without a change to what it says: typing errors, capitals, odd characters, markup.

Plain functions from a text and a source of chance to the changed text, or None where there is nothing to change. Bounded: at most one
mistake a word, and only in words long enough to stay readable.
"""

import html
import re
from collections.abc import Callable
from random import Random

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SHARE = 0.2
"""Of the longer words so many get a mistake: more than hurried people make, and each can still be read."""
_LONG = 5

_NEIGHBOURS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk", "k": "jl", "l": "k",
    "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa", "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "x": "zc",
    "y": "tu", "z": "x",
}  # fmt: skip
_LEET = str.maketrans("aeiost", "4310$7")
_HOMOGLYPHS = str.maketrans("aeopcxyiAEOPCXBHKMT", "аеорсхуіАЕОРСХВНКМТ")
_EMOJI = ("😭", "🙏", "😬", "😅", "🥺", "✨")
_FILLERS = (" um ", " so ", " and then ", " uh ", " okay so ")


def typo_neighbour(text: str, chance: Random) -> str | None:
    """A neighbouring key: "chwst"."""

    def mistype(word: str) -> str:
        at = chance.randrange(1, len(word))
        keys = _NEIGHBOURS.get(word[at].lower())
        return word[:at] + chance.choice(keys) + word[at + 1 :] if keys else word

    return _some_words(text, chance, mistype)


def typo_dropped(text: str, chance: Random) -> str | None:
    """A letter left out: "chst"."""

    def drop(word: str) -> str:
        at = chance.randrange(1, len(word))
        return word[:at] + word[at + 1 :]

    return _some_words(text, chance, drop)


def typo_doubled(text: str, chance: Random) -> str | None:
    """A letter twice: "chhest"."""

    def double(word: str) -> str:
        at = chance.randrange(len(word))
        return word[:at] + word[at] + word[at:]

    return _some_words(text, chance, double)


def typo_swapped(text: str, chance: Random) -> str | None:
    """Two letters in the wrong order: "cehst"."""

    def swap(word: str) -> str:
        at = chance.randrange(1, len(word) - 1)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _some_words(text, chance, swap)


def elongated(text: str, chance: Random) -> str | None:
    """A vowel drawn out: "paaaain"."""

    def draw_out(word: str) -> str:
        places = [i for i, letter in enumerate(word) if letter.lower() in "aeiou"]
        at = chance.choice(places) if places else len(word) - 1
        return word[:at] + word[at] * chance.randint(3, 5) + word[at + 1 :]

    return _some_words(text, chance, draw_out, shortest=4)


def leet(text: str, chance: Random) -> str | None:
    """Digits for letters: "ch3st p41n"."""
    return _some_words(text, chance, lambda word: word.lower().translate(_LEET), shortest=4)


def spaced_letters(text: str, chance: Random) -> str | None:
    """Letters apart: "c h e s t"."""
    return _some_words(text, chance, lambda word: " ".join(word), share=0.1)


def homoglyphs(text: str, chance: Random) -> str | None:
    """Letters of another script that look the same, one in three."""
    changed = "".join(c.translate(_HOMOGLYPHS) if chance.random() < 1 / 3 else c for c in text)

    def mixed(word: re.Match[str]) -> str:
        # A word wholly in another script is not Latin text any more, however it looks.
        return word[0] if any("a" <= c.lower() <= "z" for c in word[0]) else text[word.start() : word.end()]

    return _unless_same(text, _WORD.sub(mixed, changed))


def zero_width(text: str, chance: Random) -> str | None:
    """Characters that are not seen, inside words."""

    def insert(word: str) -> str:
        at = chance.randrange(1, len(word))
        return word[:at] + chance.choice("\u200b\u200c\u200d\u2060\ufeff\u00ad") + word[at:]

    return _some_words(text, chance, insert, shortest=3, share=0.5)


def curly_quotes(text: str, chance: Random) -> str | None:
    """Typographic quotes, as telephones write them."""
    return _unless_same(text, re.sub(r'"([^"]*)"', r"“\1”", text).replace("'", "’"))


def capitals(text: str, chance: Random) -> str | None:
    return _unless_same(text, text.upper())


def lower_case(text: str, chance: Random) -> str | None:
    return _unless_same(text, text.lower())


def no_punctuation(text: str, chance: Random) -> str | None:
    """Without marks between words; numbers keep theirs."""
    return _unless_same(text, " ".join(re.sub(r"(?<!\d)[.,;:!?\"()-]+|[.,;:!?\"()-]+(?!\d)", " ", text).split()))


def no_apostrophes(text: str, chance: Random) -> str | None:
    return _unless_same(text, re.sub(r"(?<=\w)['’](?=\w)", "", text))


def dictated(text: str, chance: Random) -> str | None:
    """One long sentence with the sounds people make, as dictation writes it."""
    parts = [p for p in re.split(r"(?<!\d)[.!?;]+\s*|[.!?;]+\s+|\n+", text) if p.strip()]
    run_on = parts[0] + "".join(chance.choice(_FILLERS) + part for part in parts[1:]) if parts else text
    return _unless_same(text, "um " + re.sub(r",(?!\d)", "", run_on.strip()).lower())


def emoji(text: str, chance: Random) -> str | None:
    """Emoji at the ends of sentences."""
    sentences = _SENTENCE_END.split(text)
    return " ".join(f"{s} {chance.choice(_EMOJI) * chance.randint(1, 3)}" for s in sentences)


def odd_spaces(text: str, chance: Random) -> str | None:
    """Runs of blanks, no-break spaces and line ends between words."""
    return _unless_same(text, re.sub(" ", lambda _: chance.choice((" ", " ", "  ", "\u00a0", "\u2009", "   ", "\t")), text))


def markdown(text: str, chance: Random) -> str | None:
    """A heading, a list, some words in bold."""
    lines = [f"- {sentence}" for sentence in _SENTENCE_END.split(text)]
    return "## Question\n\n" + (_some_words("\n".join(lines), chance, lambda word: f"**{word}**") or "\n".join(lines))


def code_block(text: str, chance: Random) -> str | None:
    return f"```\n{text}\n```"


def html_entities(text: str, chance: Random) -> str | None:
    """As a web form may send it: entities for marks and some blanks, tags for line ends."""
    escaped = html.escape(text).replace("\n", "<br>\n")
    return f"<p>{re.sub(' ', lambda _: '&nbsp;' if chance.random() < 0.2 else ' ', escaped)}</p>"


def quoted(text: str, chance: Random) -> str | None:
    """The whole message in quotation marks."""
    return '"' + text.replace('"', "'") + '"'


def _some_words(text: str, chance: Random, change: Callable[[str], str], shortest: int = _LONG, share: float = _SHARE) -> str | None:
    """The text with a share of its longer words changed, one at least."""
    words = [m for m in _WORD.finditer(text) if len(m[0]) >= shortest and m[0].isalpha()]
    if not words:
        return None
    for word in sorted(chance.sample(words, max(1, round(share * len(words)))), key=re.Match.start, reverse=True):
        text = text[: word.start()] + change(word[0]) + text[word.end() :]
    return text


def _unless_same(text: str, changed: str) -> str | None:
    return changed if changed != text else None
