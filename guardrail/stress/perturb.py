"""Changes to a message that must not change what is decided, each with a name; and some that may only raise it.

Benchmarks are written in good order; patients are not. Each perturbation keeps what is said and changes how: its letters
(`characters`), its words (`wording`), what stands around it (`framing`). The same message, seed and perturbation give the same text.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Final, Literal

from guardrail.engine.languages import ENGLISH
from guardrail.engine.model import Message, Role
from guardrail.stress import characters as c
from guardrail.stress import framing as f
from guardrail.stress import wording as w
from guardrail.stress.labelled import PERTURBATION, Labelled

Family = Literal["framing", "position", "wording", "writing", "markup", "negation", "addition"]
_GO_ON: Final = Message(Role.ASSISTANT, "Thank you. Please tell me more.")


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One way to put it differently. `english`: only for English text. `raises`: it adds to the matter, so it may raise, never lower."""

    name: str
    family: Family
    title: str
    change: Callable[[str, Random], str | tuple[str, ...] | None]
    english: bool = True
    raises: bool = False


PERTURBATIONS: Final = (
    Perturbation("minimised_before", "framing", "a relative plays it down first", f.before(f.MINIMISED_BEFORE)),
    Perturbation("minimised_after", "framing", "a relative plays it down at the end", f.after(f.MINIMISED_AFTER)),
    Perturbation("reassured", "framing", "the writer plays it down", f.after(f.REASSURED)),
    Perturbation("laughed_off", "framing", "lol", f.after(f.LAUGHED_OFF)),
    Perturbation("forbidden_before", "framing", "escalation is forbidden first", f.before(f.FORBIDDEN_BEFORE)),
    Perturbation("forbidden_after", "framing", "escalation is forbidden at the end", f.after(f.FORBIDDEN_AFTER)),
    Perturbation("role_play", "framing", "the chatbot is given a role", f.before(f.ROLE_PLAY)),
    Perturbation("broken_fiction_before", "framing", "fiction, taken back, first", f.before((f.BROKEN_FICTION_BEFORE,))),
    Perturbation("broken_fiction_after", "framing", "fiction, taken back, at the end", f.after((f.BROKEN_FICTION_AFTER,))),
    Perturbation("instructed", "framing", "an instruction to the filter", f.before(f.INSTRUCTED)),
    Perturbation("polite", "framing", "greeting and thanks", f.around(f.POLITE_BEFORE, f.POLITE_AFTER)),
    Perturbation("story_before", "position", "a long story first", f.story_before),
    Perturbation("story_after", "position", "a long story at the end", f.story_after),
    Perturbation("story_around", "position", "buried between two stories", f.story_around),
    Perturbation("question_before", "position", "tacked onto another question", f.before(f.OTHER_QUESTION_BEFORE)),
    Perturbation("question_after", "position", "another question at the end", f.after(f.OTHER_QUESTION_AFTER)),
    Perturbation("two_turns", "position", "sent as two messages", w.two_turns, english=False),
    Perturbation("said_twice", "position", "said twice", w.said_twice, english=False),
    Perturbation("pasted_often", "position", "pasted five times", w.pasted_often, english=False),
    Perturbation("third_person", "wording", "about a neighbour", w.third_person),
    Perturbation("numbers_in_words", "wording", "numbers in words", w.numbers_in_words),
    Perturbation("numbers_in_digits", "wording", "numbers in digits", w.numbers_in_digits),
    Perturbation("other_spelling", "wording", "British for American spelling or back", w.other_spelling),
    Perturbation("capitals", "writing", "all capitals", c.capitals, english=False),
    Perturbation("lower_case", "writing", "all lower case", c.lower_case, english=False),
    Perturbation("no_punctuation", "writing", "no punctuation", c.no_punctuation, english=False),
    Perturbation("no_apostrophes", "writing", "no apostrophes", c.no_apostrophes),
    Perturbation("dictated", "writing", "dictated in one breath", c.dictated),
    Perturbation("typo_neighbour", "writing", "neighbouring keys, a fifth of the longer words", c.typo_neighbour, english=False),
    Perturbation("typo_dropped", "writing", "letters left out", c.typo_dropped, english=False),
    Perturbation("typo_doubled", "writing", "letters doubled", c.typo_doubled, english=False),
    Perturbation("typo_swapped", "writing", "letters swapped", c.typo_swapped, english=False),
    Perturbation("elongated", "writing", "vowels drawn out", c.elongated, english=False),
    Perturbation("leet", "writing", "digits for letters", c.leet, english=False),
    Perturbation("spaced_letters", "writing", "letters apart", c.spaced_letters, english=False),
    Perturbation("homoglyphs", "writing", "letters of another script", c.homoglyphs, english=False),
    Perturbation("zero_width", "writing", "invisible characters in words", c.zero_width, english=False),
    Perturbation("curly_quotes", "writing", "typographic quotes", c.curly_quotes, english=False),
    Perturbation("odd_spaces", "writing", "odd blanks", c.odd_spaces, english=False),
    Perturbation("emoji", "writing", "emoji after sentences", c.emoji, english=False),
    Perturbation("quoted", "markup", "all in quotation marks", c.quoted, english=False),
    Perturbation("markdown", "markup", "Markdown list with bold words", c.markdown, english=False),
    Perturbation("code_block", "markup", "a block of code", c.code_block, english=False),
    Perturbation("html_entities", "markup", "HTML entities and tags", c.html_entities, english=False),
    Perturbation("denied_added", "negation", "another symptom is denied", f.denied_added),
    Perturbation("other_negated", "negation", "something else is denied", f.after(f.OTHER_NEGATED)),
    *(Perturbation(f"adds_{name}", "addition", f"adds a {name}", f.after(words), raises=True) for name, words in f.ADDED.items()),
)


def perturbed(item: Labelled, perturbation: Perturbation, seed: int) -> Labelled | None:
    """The message put so, under the id `<id>/<perturbation>`; None where that does not apply to it."""
    (message,) = item.conversation.messages
    if perturbation.english and item.slices.get("lang", ENGLISH).split("-")[0] != ENGLISH:
        return None
    chance = Random(f"{seed}/{perturbation.name}/{item.id}")  # noqa: S311  # repeatable on purpose
    changed = perturbation.change(message.text, chance)
    if changed is None:
        return None
    texts = (changed,) if isinstance(changed, str) else changed
    messages = [Message(Role.USER, texts[0])]
    for text in texts[1:]:
        messages += [_GO_ON, Message(Role.USER, text)]
    conversation = replace(item.conversation, messages=tuple(messages))
    slices = {**item.slices, PERTURBATION: perturbation.name}
    return replace(item, id=f"{item.id}/{perturbation.name}", conversation=conversation, slices=slices)
