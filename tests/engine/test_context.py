"""What a mention means, in sentences that carry their expectation: "I have [chest pain] but no [fever]{absent}".

Without a word in braces the mention must count. The other words are absent, uncertain, past, hypothetical, other, nobody.
"""

import pytest

from guardrail.engine.model import Assertion, Finding, Polarity, Subject, Time
from tests.engine.english import general_knowledge, read, unmark


def meaning(assertion: Assertion) -> str:
    """One word for an assertion, by what keeps it from counting."""
    if assertion.polarity is Polarity.ABSENT:
        return "absent"
    if assertion.subject is not Subject.PATIENT:
        return assertion.subject.value
    if assertion.time is not Time.CURRENT:
        return assertion.time.value
    return "uncertain" if assertion.polarity is Polarity.UNCERTAIN else "counts"


def check(marked: str) -> None:
    text, stretches = unmark(marked)
    assert stretches, f"{marked!r} expects nothing"
    findings = read(text)
    for stretch in stretches:
        inside = [f for f in findings if f.quantity is None and stretch.start <= f.start and f.end <= stretch.end]
        assert inside, f"{text!r}: nothing found in {text[stretch.start : stretch.end]!r}"
        found = {f.concept: meaning(f.assertion) for f in inside}
        assert set(found.values()) == {stretch.expected}, f"{text!r}: {found}, not {stretch.expected}"


def one(text: str, concept: str) -> Finding:
    (finding,) = (f for f in read(text) if f.concept == concept)
    return finding


@pytest.mark.parametrize(
    "marked",
    [
        "no [chest pain]{absent}, just tired",
        "I dont have any [fever]{absent} or [chills]{absent}",
        "no [fever]{absent}, [cough]{absent} or [chest pain]{absent} to report",
        "no [fever]{absent}, just a [cough]",
        "neither [dizziness]{absent} nor [wheezing]{absent}",
        "she denies [headache]{absent}",
        "he is not [wheezing]{absent} and pink",
        "hasn't had a [seizure]{absent} since the new tablets",
        "ain't got no [chest pain]{absent}",
        "without any [numbness]{absent} in the hands",
        "no sign of [infection]{absent} around the stitches",
        "nothing like [chest pain]{absent}, it is my knee",
        "far from having [chest pain]{absent} I feel great",
        "none of us [vomited]{absent} after the takeaway",
        "the [rash]{absent} isn't there",
        "I'd say zero [swelling]{absent} today",
        "never had [chest pain]{absent} in my life",
        "I no longer have [diarrhoea]{absent}",
        "tested negative for [covid]{absent}",
        "biopsy says it isn't [cancer]{absent}",
        "wouldn't say I'm [depressed]{absent}, just bored",
        "no intention of a [seizure]{absent}",
        "not running a [fever]{absent}",
        "lacking any [rash]{absent}",
    ],
)
def test_a_short_denial_in_the_same_clause_takes_a_mention_away(marked: str) -> None:
    check(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "[chest pain]{absent}: none. [cough]: yes",
        "[fever]{absent}? no. [cough]{absent}? nope",
        "[fever]{absent} no, [cough] yes",
        "as for [nausea]{absent}, haven't noticed any",
        "re the [nausea]{absent} question, nope",
        "the [stroke]{absent} was ruled out",
        "the covid test came back negative and my [rash] is worse",
        "[dizziness]{absent} I can rule out",
        "my [chest does not hurt]{absent}",
        "it looks as if I'm [bleeding]{absent}. I'm not",
    ],
)
def test_a_denial_may_follow_what_it_denies(marked: str) -> None:
    check(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "no [fever]{absent} but [chest pain] since lunch",
        "no [fever]{absent} my [chest hurts]",
        "no [fever]{absent} just this [headache]",
        "no appetite, no energy and my [skin has gone yellow]",
        "no appetite and a [fever]",
        "not only [dizzy] but sick as well",
        "I can't stop [vomiting]",
        "no relief from this [headache]",
        "never had [chest pain] like this before",
        "not sleeping because of the [cough]",
        "haven't slept with this [cough]",
        "didn't want to bother anyone, [chest pain] since dawn",
        "it is [impossible to stay awake]",
        "my [arm is numb] and no longer does what I tell it",
        "the [bleeding] hasn't stopped",
        "the [headache] has not gone away",
        "nobody believes my [chest pain]",
        "nothing helps this [headache]",
        "no history of migraine, yet today my [vision went blurry]",
        "not a day goes by without [headaches]",
        "I can't say I don't have [chest pain]",
        "it would be a lie to say I don't have [chest pain]",
        "it isn't that I have no [chest pain], I stopped mentioning it",
        "no allergies. [rash] since the antibiotic",
        "[chest pain], no [fever]{absent}",
        "he may or may not have a [fever]",
        "without stopping to [vomit]",
    ],
)
def test_what_looks_like_a_denial_and_is_none(marked: str) -> None:
    check(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "my wife says it is nothing but my [arm is numb]",
        "[chest pain] for an hour this morning, it went away, I feel fine now",
        "[passed out] in the shower earlier, ok now",
        "my [speech was slurred] for ten minutes and then went back to normal",
        "[numbness] for an hour yesterday, all back to normal now",
        "don't tell me to call anyone, it is only [chest pain]",
        "my mate reckons it's not a [stroke]",
        "had a [seizure] on Monday, fine again",
        "[chest pain] yesterday, gone now",
    ],
)
def test_reassurance_never_lowers(marked: str) -> None:
    check(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "had a [heart attack]{past} in 2009",
        "in 2016 they treated me for [pneumonia]{past}",
        "I had [pneumonia]{past} as a child",
        "my [migraines]{past} stopped years ago",
        "when I was 20 I had a [seizure]{past}",
        "used to get [headaches]{past} at night",
        "three months ago I had [chest pain]{past}, all fine since",
        "recovered from [pneumonia]{past}",
        "growing up I had [seizures]{past}",
        "After the crash in 2008 I had [dizziness]{past}",
        "ambulance came for my [chest pain]{past}, all clear, home since Tuesday",
        "[chest pain]{past} two weeks ago, gone since",
        "had a [stroke]{past} in 2015 and now I have [chest pain] again",
        "I had a [stroke]{past} last year and today my [arm is numb] again",
        "my last [seizure]{past} was in 2011",
    ],
)
def test_what_is_long_over_is_past(marked: str) -> None:
    check(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "was diagnosed with [diabetes] in 2012",
        "I have had [asthma] since I was a child",
        "since 2019 I've had [seizures] monthly",
        "[chest pain] since last year, worse today",
        "two weeks ago the [cough] started",
        "three days ago [chest pain] came on",
        "I used to run, now I get [breathless] on stairs",
        "[cough] for the last three months",
        "the ECG was all clear but I still have [chest pain]",
        "my 4 month old has a [fever]",
    ],
)
def test_what_goes_on_is_not_past(marked: str) -> None:
    check(marked)


def test_a_fever_that_has_gone_is_gone() -> None:
    """Concepts say so themselves (`passes`); a faint that is over still counts."""
    check("the [fever]{absent} has gone")
    check("the [fainting] has gone")


@pytest.mark.parametrize(
    "marked",
    [
        "what if I get [chest pain]{hypothetical} on the plane",
        "if I ever had a [stroke]{hypothetical} who would find me",
        "what should I keep at home in case of a [seizure]{hypothetical}",
        "I'm scared of having a [heart attack]{hypothetical}",
        "he told me to come back if I get a [fever]{hypothetical}",
        "should a [rash]{hypothetical} appear who do I ring",
        "how do I lower my risk of [stroke]{hypothetical}",
        "can this tablet give me [dizziness]{hypothetical}",
        "would a [rash]{hypothetical} mean I have to stop it",
        "suppose I start [bleeding]{hypothetical} at night",
        "if the [fever]{hypothetical} goes over 39 I ring them",
    ],
)
def test_what_may_come_is_not_there(marked: str) -> None:
    check(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "if I stand up I [faint]",
        "it hurts if I [cough]",
        "what if my [chest pain] is serious",
        "what do I do about [chest pain] down my arm",
        "how do I stop this [bleeding]",
        "can I get help for my [chest pain]",
        "can I take paracetamol for my [fever]",
        "I get [chest pain] when I walk",
    ],
)
def test_if_and_when_may_speak_of_what_is_there(marked: str) -> None:
    check(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "what are the symptoms of a [stroke]{nobody}",
        "how common is [meningitis]{nobody}",
        "what causes [chest pain]{nobody} in young people",
        "writing an essay about [diabetes]{nobody}",
        "is [epilepsy]{nobody} hereditary",
        "why do people get [migraines]{nobody}",
        "people with [asthma]{nobody} on our course",
        "does [diabetes]{nobody} cause other things",
        "in my novel the hero has a [heart attack]{nobody}",
        "my screenplay's villain says \"I [can't breathe]{nobody}\" before the twist",
        "I dreamt I had a [stroke]{nobody}",
        "MCQ: a man has crushing [chest pain]{nobody}, which artery is it",
    ],
)
def test_study_and_fiction_are_nobodys(marked: str) -> None:
    check(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "what causes my [chest pain]",
        "tell me about this [rash]",
        "I was writing my novel and then I got [chest pain]",
        "for a story I'm writing: my [chest hurts] and my [arm is numb]",
        "how long does [chest pain] take to go, mine started today",
        "what are the symptoms of a [stroke]{nobody}? I have a [headache]",
        "can stress cause a [headache]? asking because it happened to my wife today",
    ],
)
def test_study_and_fiction_do_not_reach_the_writers_own_body(marked: str) -> None:
    check(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "my dad died of a [heart attack]{other} at 50",
        "family history of [stroke]{other}",
        "[diabetes]{other} runs in my family",
        "my grandmother had [breast cancer]{other}, should I be tested",
        "my neighbour had a [heart attack]{other} in March",
        "my coworker had a [stroke]{other} last year",
        "my boss is [diabetic]{other}, what cake can I bake",
        "my dog is having a [seizure]{other}",
        "a guy on the news had a [seizure]{other}",
    ],
)
def test_what_others_had_is_theirs(marked: str) -> None:
    check(marked)


@pytest.mark.parametrize(
    ("text", "concept", "person"),
    [
        ("my dad has chest pain", "chest_pain_word", "dad"),
        ("my neighbour is having a seizure right now", "seizure", "neighbour"),
        ("My son is 4. He has a fever", "fever", "son"),
        ("my wife thinks I have a fever", "fever", None),
        ("my husband is asleep and my head aches, a headache", "headache", None),
        ("the baby is burning up", "fever", "baby"),
    ],
)
def test_whoever_has_it_now_is_the_patient_and_is_named(text: str, concept: str, person: str | None) -> None:
    found = [f for f in read(text) if f.concept == concept]

    assert found
    assert all(f.assertion.counts for f in found)
    assert {f.person for f in found} == {person}


def test_questions_are_uncertain_and_count() -> None:
    check("could it be a [stroke]{uncertain}?")
    check("suspected [meningitis]{uncertain}")
    assert one("could it be a stroke?", "stroke").assertion.counts


def test_the_cue_is_kept_as_evidence_where_it_stands() -> None:
    text = "I have no fever"

    (cue,) = one(text, "fever").assertion.cues

    assert (cue.kind, cue.text) == ("negated", "no")
    assert text[cue.start : cue.end] == "no"


def test_a_cue_reaches_no_further_than_its_sentence() -> None:
    check("I have no [fever]{absent}. [cough] yes")
    check("no [fever]{absent}\n[cough]")


def test_measurements_have_a_meaning_too() -> None:
    findings = read("when I had covid in 2021 my sats dropped to 84, today they are 97")

    meant = {f.quantity.value: meaning(f.assertion) for f in findings if f.quantity is not None and f.concept == "spo2"}
    assert meant[84] == "past"


def test_words_that_say_nothing_alone_are_not_reported() -> None:
    assert general_knowledge().context.is_bare("my Chest")
    assert not general_knowledge().context.is_bare("my chest hurts")
