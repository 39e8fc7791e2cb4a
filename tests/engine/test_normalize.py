"""Text to tokens: one spelling, and always the way back to the original."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guardrail.engine.normalize import fold, tokenize

# Latin, accents, other scripts, quotes, invisible characters, emoji, digits: whatever a chat may hold.
ANY_TEXT = st.text(
    alphabet=st.one_of(
        st.sampled_from("abc XYZ'’‘\"“”.,!?;:-\n\t0123456789/+%°&<>*@$éüñßİﬁ½№ａ１\u200b\u00ad\ufeff\u0301ас胸が痛い🔫😀👩‍⚕️"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=80,
)


@given(ANY_TEXT)
@example("İstanbul ﬁne ½ №5")
@example("a\u0301\u200bb c\u00adhest")
def test_every_token_stands_in_the_original(text: str) -> None:
    tokens = tokenize(text)

    assert tokens.original == text
    assert len(tokens.words) == len(tokens.starts) == len(tokens.ends) == len(tokens)
    previous = 0
    for word, start, end in zip(tokens.words, tokens.starts, tokens.ends, strict=True):
        assert word
        assert 0 <= start < end <= len(text)
        assert start >= previous or start >= previous - 1  # a ligature may give two tokens one place
        previous = end


@given(ANY_TEXT)
def test_a_tokens_place_holds_what_the_token_says(text: str) -> None:
    tokens = tokenize(text)

    for i, word in enumerate(tokens.words):
        if word.isascii() and word.isalpha() and len(word) > 1:
            letters = [c for c in fold(tokens.text(i, i + 1)) if not c.isspace()]
            # Letters of other scripts may be drawn like these; nothing else may be added or lost.
            assert len(letters) >= len(word)


@given(st.text(alphabet="abcdefgh'. ,!0123456789", max_size=60))
def test_plain_text_reads_the_same_with_and_without_a_foreign_letter(text: str) -> None:
    """The short way for ASCII and the long way for all else agree."""
    plain = tokenize(text)
    foreign = tokenize(text + " é")

    assert list(foreign.words)[:-1] == list(plain.words)
    assert list(foreign.starts)[:-1] == list(plain.starts)


@given(st.text(max_size=60))
def test_tokens_do_not_depend_on_case_of_ascii(text: str) -> None:
    if text.isascii():
        assert list(tokenize(text.upper()).words) == list(tokenize(text.lower()).words)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("I can’t breathe", ["i", "can't", "breathe"]),
        ("“chest” pain…", ['"', "chest", '"', "pain", "."]),
        ("chest\u00a0pain", ["chest", "pain"]),
        ("ch\u200best p\u00adain", ["chest", "pain"]),
        ("ｃｈｅｓｔ　ｐａｉｎ", ["chest", "pain"]),
        ("CHEST PAIN", ["chest", "pain"]),
        ("naïve café", ["naive", "cafe"]),
        ("сhest pаin", ["chest", "pain"]),  # Cyrillic с and а among Latin letters
        ("c h e s t pain", ["chest", "pain"]),
        ("a b c", ["a", "b", "c"]),
        ("temp 38.9, bp 210/125", ["temp", "38.9", ",", "bp", "210/125"]),
        ("6wo 34f", ["6", "wo", "34", "f"]),
        ("flu-like", ["flu", "like"]),
        ("one\ntwo", ["one", "\n", "two"]),
        ("胸が痛い", ["胸", "が", "痛", "い"]),
        ("боль в груди", ["боль", "в", "груди"]),
        ("end it 🔫", ["end", "it", "🔫"]),
        ("", []),
    ],
)
def test_one_spelling(written: str, words: list[str]) -> None:
    assert list(tokenize(written).words) == words


def test_spans_lead_back_to_what_was_written() -> None:
    tokens = tokenize("My CHE\u200bST – hurts")

    assert tokens.text(1, 2) == "CHE\u200bST"


def test_joined_letters_span_all_of_them() -> None:
    tokens = tokenize("my c h e s t hurts")

    assert tokens.words[1] == "chest"
    assert tokens.text(1, 2) == "c h e s t"


@given(st.text(max_size=40))
def test_folding_is_stable(text: str) -> None:
    assert fold(fold(text)) == fold(text) or unicodedata.normalize("NFKC", text) != text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no **breathing**", ["no", "breathing"]),
        ("*crushing* pain.**", ["crushing", "pain", "."]),
        ("2*500mg", ["2", "*", "500", "mg"]),
        ("can&#x27;t&nbsp;breathe", ["can't", "breathe"]),
        ("&quot;help&quot;", ['"', "help", '"']),
        ("<p>sats&nbsp;79<br>blue</p>", ["sats", "79", "\n", "blue", "\n"]),
        ('a <a href="x">link</a>', ["a", "link"]),
        ("x < y and <3 &amp;amp;", ["x", "<", "y", "and", "<", "3", "&", "amp", ";"]),
    ],
)
def test_what_a_page_or_markdown_puts_around_words_is_not_read(text: str, words: list[str]) -> None:
    assert list(tokenize(text).words) == words


def test_words_with_entities_in_them_have_their_place_in_the_original() -> None:
    tokens = tokenize("<p>I can&#39;t stand</p>")

    assert [tokens.text(i, i + 1) for i in range(3)] == ["I", "can&#39;t", "stand"]
