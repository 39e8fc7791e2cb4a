"""Phrases compiled and found: the grammar, places, masks, respelling, and the gaps that a mention does not own."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.engine.lexicon import Entry, Lexicon, LexiconBuilder, Mention, PhraseError
from guardrail.engine.normalize import tokenize

LISTS: Mapping[str, Sequence[str]] = {
    "chest": ["chest", "breast bone", "ribs"],
    "pain": ["pain+", "hurt+", "ache+", "tight"],
    "drug": ["paracetamol", "co codamol"],
}
NUMBER_WORDS = ("two", "ten")
ENGLISH = ("fine", "paint", "claim", "the", "a", "house", "were")


def lexicon(*phrases: str, masks: Sequence[str] = ()) -> Lexicon:
    builder = LexiconBuilder(LISTS, NUMBER_WORDS, ENGLISH)
    for phrase in phrases:
        builder.add(phrase, Entry("concept", "it"))
    for phrase in masks:
        builder.add(phrase, Entry("mask", "it"))
    return builder.build()


def found(phrase: str, text: str, masks: Sequence[str] = ()) -> list[str]:
    tokens = tokenize(text)
    return [tokens.text(m.first, m.after) for m in lexicon(phrase, masks=masks).find(tokens)]


def only(phrase: str, text: str) -> Mention:
    (mention,) = lexicon(phrase).find(tokenize(text))
    return mention


@pytest.mark.parametrize(
    ("phrase", "text", "expected"),
    [
        ("heart racing", "my heart racing again", ["heart racing"]),
        ("heart racing", "my heart is racing", []),
        ("(my|the)? heart", "the heart", ["the heart"]),
        ("(my|the)? heart", "a heart", ["heart"]),
        ("{chest} ... {pain}", "my chest really hurts", ["chest really hurts"]),
        ("{chest} ... {pain}", "my chest one two three four five hurts", []),
        ("{chest} ... {pain}", "my chest. it hurts", []),
        ("{pain} & {chest}", "pain in my chest", ["pain in my chest"]),
        ("{pain} & {chest}", "chest is tight", ["chest is tight"]),
        ("{chest} {pain}", "breast bone hurting", ["breast bone hurting"]),
        ("vomit+ blood", "vomiting blood", ["vomiting blood"]),
        ("vomit+ blood", "vomited blood", ["vomited blood"]),
        ("{number} tablets", "12 tablets", ["12 tablets"]),
        ("{number} tablets", "ten tablets", ["ten tablets"]),
        ("{number} tablets", "some tablets", []),
        ("took (2|{number}) {drug}", "took 30 co codamol", ["took 30 co codamol"]),
        ("(back of (my|his)? head|neck) hurts", "back of his head hurts", ["back of his head hurts"]),
        ("(back of (my|his)? head|neck) hurts", "neck hurts", ["neck hurts"]),
        ("(cold|hot (and|&) cold) sweats", "hot & cold sweats", ["hot & cold sweats"]),
        ("can't breathe", "I cant breathe", ["cant breathe"]),
        ("can't breathe", "I can’t breathe", ["can’t breathe"]),
    ],
)
def test_phrases(phrase: str, text: str, expected: list[str]) -> None:
    assert found(phrase, text) == expected


@pytest.mark.parametrize(
    ("phrase", "message"),
    [
        ("{nowhere}", 'unknown list "nowhere"'),
        ("(a|)", "empty alternative"),
        ("(a|b", "never closed"),
        ("a)", "unexpected"),
        ("... pain", "cannot begin or end"),
        ("pain ...", "cannot begin or end"),
        ("a & b & c", "more than one &"),
        ("(a|b)?", "needs at least one word"),
    ],
)
def test_a_phrase_that_cannot_be_read_says_why(phrase: str, message: str) -> None:
    with pytest.raises(PhraseError, match=message):
        lexicon(phrase)


@pytest.mark.parametrize("before", range(85, 100))
def test_a_phrase_is_found_wherever_it_stands_in_a_long_text(before: int) -> None:
    text = "x " * before + "my chest one two really hurts" + " x" * 100

    assert found("my {chest} ... {pain}", text) == ["my chest one two really hurts"]


@pytest.mark.parametrize(
    ("phrase", "text", "expected"),
    [
        ("(son|daughter)", "my son's arm", ["son's"]),
        ("last night", "last night's curry", ["last night's"]),
        ("{chest} wall", "my breast bone's sore", []),
        ("{chest}", "the chest's wall", ["chest's"]),
    ],
)
def test_what_owns_is_said_too(phrase: str, text: str, expected: list[str]) -> None:
    assert found(phrase, text) == expected


def test_a_phrase_with_many_ways_to_say_it_is_found_in_each() -> None:
    phrase = "(my|his|her|the) (arm|leg|hand|foot) (is|feels|went) (numb|dead|cold)"

    assert found(phrase, "her foot went cold then my arm is numb") == ["her foot went cold", "my arm is numb"]


def test_a_gap_is_no_part_of_what_the_mention_says() -> None:
    mention = only("{chest} ... {pain}", "my chest does not hurt")

    assert (mention.first, mention.after) == (1, 5)
    assert mention.gaps == ((2, 4),)


def test_a_gap_of_no_words_is_none() -> None:
    assert only("{chest} ... {pain}", "chest hurts").gaps == ()


def test_a_mention_does_not_end_with_a_gap() -> None:
    mention = only("pouring ... (blood)?", "it was pouring and then it went")

    assert (mention.first, mention.after) == (2, 3)


def test_of_nested_matches_of_one_concept_the_longest_stays() -> None:
    tokens = tokenize("crushing chest pain")
    builder = LexiconBuilder(LISTS)
    for phrase in ("chest pain", "crushing chest pain", "pain"):
        builder.add(phrase, Entry("concept", "it"))

    assert [tokens.text(m.first, m.after) for m in builder.build().find(tokens)] == ["crushing chest pain"]


def test_a_mask_hides_what_it_covers() -> None:
    assert found("attack", "heart attack burger please", masks=["heart attack burger"]) == []
    assert found("attack", "an attack now", masks=["heart attack burger"]) == ["attack"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("my chest paiiiin", ["paiiiin"]),
        ("paracetmol", []),
        ("it hurtz", []),
        ("p4in", ["p4in"]),
    ],
)
def test_words_drawn_out_or_in_leet(written: str, expected: list[str]) -> None:
    assert found("pain", written) == expected


def test_one_typing_error_in_a_long_word() -> None:
    assert found("{drug}", "took paracetmol") == ["paracetmol"]
    assert found("{drug}", "took paracetamoll") == ["paracetamoll"]
    assert found("{drug}", "took parcetmol") == []


def test_an_ordinary_word_is_never_respelt() -> None:
    assert found("pain", "paint the house") == []
    assert lexicon("{pain}").respell("claim") == "claim"


WORDS = ["chest", "breast", "bone", "pain", "hurts", "the", "a", "no", ".", ",", "12", "ten", "tablets", "and", "x"]


@given(st.lists(st.sampled_from(WORDS), max_size=25))
def test_mentions_come_in_order_and_own_their_ends(words: list[str]) -> None:
    tokens = tokenize(" ".join(words))

    mentions = lexicon("{pain} & {chest}", "{number} tablets", "{chest}").find(tokens)

    assert [m.first for m in mentions] == sorted(m.first for m in mentions)
    for mention in mentions:
        assert 0 <= mention.first < mention.after <= len(tokens)
        assert all(mention.first < a < b < mention.after for a, b in mention.gaps)


@given(st.lists(st.sampled_from(WORDS), max_size=25))
def test_the_same_text_reads_the_same(words: list[str]) -> None:
    text = " ".join(words)

    assert lexicon("{pain} & {chest}").find(tokenize(text)) == lexicon("{pain} & {chest}").find(tokenize(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("my ch3$t hurts", ["my", "chest", "hurts"]),
        ("a b1g hou$3", ["a", "b1g", "house"]),
        ("cheeeest paaaain", ["chest", "pain"]),
        ("3yo took 10mg, covid19, $20k", ["3", "yo", "took", "10", "mg", ",", "covid", "19", ",", "$", "20", "k"]),
        ("hmmmm b4n4n4s", ["hmmmm", "b4n4n4s"]),
    ],
)
def test_leet_and_drawn_out_letters_are_undone_where_that_makes_words(text: str, words: list[str]) -> None:
    tokens = lexicon("{chest} {pain}").read(text)

    assert list(tokens.words) == words
    assert tokens.original == text
    assert [tokens.text(i, i + 1) for i in range(len(words))] == [text[a:b] for a, b in zip(tokens.starts, tokens.ends, strict=True)]
