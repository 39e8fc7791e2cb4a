"""From single turns to the conversation: what stands at the last message, and what an earlier escalation means for it.

Only what the user says counts; of the assistant's turns only the question that a yes, a no or "the second one" answers, of
tools' only measurements. Findings carry over later turns and fade; what lasts (an illness, a pregnancy) does not fade.

A turn may take back or close what earlier turns said, but only with a fact: a slip of the pen ("I meant 33 YEARS"), a line
from a play, an ambulance that came. "It was a joke", "I take it back", "do not call anyone" close nothing: they keep an
escalation going. A message about something else gets a reminder instead.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from guardrail.engine.languages import ENGLISH
from guardrail.engine.model import Assertion, Cue, Finding, Message, Polarity, Role, Subject, Time
from guardrail.engine.normalize import STOPS

SignKind = Literal["affirmed", "denied", "picked", "corrected", "handled", "story", "continued", "moved_on", "offer", "how_old"]
"""What a turn does in the conversation, told by its words (`cues.yaml`)."""

# Kinds whose value a tool may report. Doses and counts in search results are nobody's.
VITAL_SIGNS = frozenset(
    ["temperature_c", "systolic", "diastolic", "spo2", "pulse", "breathing_rate", "glucose_mmol", "ketones", "potassium", "inr", "lithium"]
)
_ANSWER_WORDS = 5  # a yes or no further into a long message answers nothing any more
_ANSWER_WORDS_SHORT = 12  # in a short one it does: "late by 9 days, spotting, yes shoulder"
_SHORT_ANSWER = 15
_SHORT_WORDS = 9  # "38.6. five weeks": an answer in passing
_SHORT_FOLLOW_UP = 4  # words that cannot open a new topic ("and now what?")
_TOGETHER_TURNS = 4  # messages of the patient that are read as one
_ITEM = re.compile(r"[,;:?]|\bor\b|\band\b|\boder\b|\bou\b|\bo\b|\by\b|\bund\b|\bet\b", re.IGNORECASE)
_QUESTION = re.compile(r"[^.!?\n]*\?")
_WORD = re.compile(r"\w+(?:'\w+)?")
_DIGITS = re.compile(r"\d+(?:[.,]\d+)?")
# Words too common to tell which item of a question is repeated in the answer.
_COMMON = frozenset(
    [
        "a",
        "an",
        "the",
        "is",
        "are",
        "was",
        "were",
        "do",
        "does",
        "did",
        "have",
        "has",
        "had",
        "been",
        "be",
        "you",
        "your",
        "he",
        "she",
        "his",
        "her",
        "they",
        "it",
        "its",
        "this",
        "that",
        "any",
        "or",
        "and",
        "of",
        "in",
        "on",
        "at",
        "to",
        "with",
        "from",
        "for",
        "not",
        "no",
        "yes",
        "yeah",
        "my",
        "i",
        "me",
        "more",
        "than",
        "bit",
        "so",
        "too",
        "can",
        "could",
        "there",
        "one",
        "else",
        "feel",
        "feeling",
    ]
)


class Sign(Struct, frozen=True, gc=False):
    """Words with a meaning for the conversation. `items` are the places in a list that they name; none means all."""

    kind: SignKind
    text: str
    start: int
    end: int
    word: int
    items: tuple[int, ...] = ()


class TurnReading(Struct, frozen=True, gc=False):
    """What one message holds, read alone."""

    findings: tuple[Finding, ...] = ()
    signs: tuple[Sign, ...] = ()
    words: int = 0
    language: str = ENGLISH
    hints: tuple[Finding, ...] = ()
    """What is put too loosely to count, in a text that does not lean towards danger by itself."""
    tokens: tuple[str, ...] = ()
    """The words as the scorer read them, of a message short enough to be one of several that only together say it."""
    counting: tuple[tuple[str, int], ...] = ()
    """The concepts that count, each with its token."""

    def has(self, *kinds: SignKind) -> bool:
        return any(s.kind in kinds for s in self.signs)

    def first(self, *kinds: SignKind) -> Sign | None:
        return next((s for s in self.signs if s.kind in kinds), None)


def turns_to_read(messages: Sequence[Message]) -> Iterator[int]:
    """The messages whose reading `standing_findings` needs: the user's, the questions before them, tools' results."""
    for i, message in enumerate(messages):
        if not message.text:
            continue
        match message.role:
            case Role.USER | Role.TOOL:
                yield i
            case Role.ASSISTANT:
                if "?" in message.text and i + 1 < len(messages) and messages[i + 1].role is Role.USER:
                    yield i
            case Role.SYSTEM:
                pass


def standing_findings(
    messages: Sequence[Message],
    readings: Mapping[int, TurnReading],
    carry_turns: int,
    lasts: Callable[[str], bool],
    mirrored: Callable[[str], str],
) -> list[Finding]:
    """The findings that stand at the last message, each with its turn.

    `lasts` tells concepts that do not fade; `mirrored` is how a question was turned round to be read ("you" as "I").
    """
    users = [i for i, m in enumerate(messages) if m.role is Role.USER]
    fresh = set(users[-(carry_turns + 1) :])
    oldest = min(fresh, default=0)
    standing: list[Finding] = []
    for turn, message in enumerate(messages):
        reading = readings.get(turn)
        if reading is None or message.role is Role.ASSISTANT:
            continue
        if message.role is Role.TOOL:
            if turn >= oldest:
                standing.extend(replace(f, turn=turn) for f in reading.findings if f.concept in VITAL_SIGNS)
            continue
        if standing:
            standing = _revised(standing, reading, message.text, lasts)
        own = [f if f.turn == turn else replace(f, turn=turn) for f in reading.findings]
        own += _answers(messages, readings, turn, reading, mirrored)
        own += _ages(messages, readings, turn, reading, standing)
        standing += own if turn in fresh else [f for f in own if lasts(f.concept)]
    return standing


@dataclass(frozen=True, slots=True)
class Together:
    """The last messages of the patient as one text: what is dangerous may be told in pieces, or by a yes."""

    words: list[str]
    counting: list[tuple[str, int]]
    since: int
    """The first token of what is to be decided now."""
    turns: tuple[int, ...]


def together(messages: Sequence[Message], readings: Mapping[int, TurnReading], now: frozenset[int]) -> Together | None:
    """The patient's last messages, with the questions that were answered by a yes; None when there is nothing to put together."""
    users = [i for i, m in enumerate(messages) if m.role is Role.USER and i in readings][-_TOGETHER_TURNS:]
    for place in range(len(users) - 1, -1, -1):
        reading = readings[users[place]]
        if not reading.tokens or reading.has("handled", "story", "moved_on", "corrected"):
            users = users[place + 1 :] if not reading.tokens or reading.has("handled", "story") else users[place:]
            break
    words: list[str] = []
    counting: list[tuple[str, int]] = []
    since, turns = -1, []
    for turn in users:
        asked = _question_before(messages, turn)
        reading = readings[turn]
        answered = [readings[asked]] if asked is not None and asked in readings and _says_yes(reading) else []
        if turn in now and since < 0:
            since = len(words)
        for part in (*answered, reading):
            counting += [(concept, token + len(words)) for concept, token in part.counting]
            words += part.tokens
            if part.tokens and part.tokens[-1] not in STOPS:
                words.append(".")
        turns.append(turn)
    if since < 0 or (len(turns) < 2 and since == 0 and not any(_says_yes(readings[t]) for t in turns)):
        return None
    return Together(words, counting, since, tuple(turns))


def _says_yes(reading: TurnReading) -> bool:
    affirmed, denied = reading.first("affirmed", "picked"), reading.first("denied")
    return affirmed is not None and affirmed.word < _ANSWER_WORDS and (denied is None or affirmed.word < denied.word)


def current_turns(messages: Sequence[Message]) -> frozenset[int]:
    """What is to be decided now: the user's messages since the assistant last spoke, and what tools told in between."""
    out: set[int] = set()
    for i in range(len(messages) - 1, -1, -1):
        role = messages[i].role
        if role in (Role.USER, Role.TOOL):
            out.add(i)
        elif role is Role.ASSISTANT and messages[i].text and any(messages[k].role is Role.USER for k in out):
            break
    return frozenset(out)


def keeps_on(reading: TurnReading, text: str) -> bool:
    """Whether a message goes on with what was escalated: minimising, asking back, refusing, or hardly saying anything."""
    if reading.has("moved_on", "handled"):
        return False
    return reading.has("continued", "corrected") or reading.words <= _SHORT_FOLLOW_UP


# --- answers to questions


def _answers(
    messages: Sequence[Message], readings: Mapping[int, TurnReading], turn: int, reading: TurnReading, mirrored: Callable[[str], str]
) -> Iterator[Finding]:
    """What a yes, "both" or "the second one" says: the concepts of the assistant's question, as the user's own."""
    asked = _question_before(messages, turn)
    if asked is None or asked not in readings:
        return
    text, question = messages[turn].text, mirrored(messages[asked].text)
    short = reading.words <= _SHORT_ANSWER
    within = _ANSWER_WORDS_SHORT if short else _ANSWER_WORDS
    answer = next((s for s in reading.signs if s.kind in ("affirmed", "picked") and s.word < within), None)
    denied = reading.first("denied")
    if denied is not None and (answer is None or denied.word < answer.word):
        return
    items = list(_items(question))
    picked = next((s.items for s in reading.signs if s.kind == "picked" and s.items), ())
    chosen = [items[n - 1] for n in picked if n <= len(items)] or (_repeated(items, question, text) if short else [])
    if answer is not None:
        start, end, said = answer.start, answer.end, answer.text
        chosen = chosen or items
    elif chosen:
        start, end, said = 0, len(text), text
    offers = [s.start for s in readings[asked].signs if s.kind == "offer"]
    for finding in readings[asked].findings:
        if finding.quantity is not None or finding.assertion.subject is Subject.NOBODY:
            continue
        if any(a < finding.end and finding.start < b for a, b in chosen) and not _offered(finding, question, offers):
            cue = Cue("answer", said, start, end)
            yield replace(finding, turn=turn, start=start, end=end, text=said, assertion=Assertion(cues=(cue,)))


def _question_before(messages: Sequence[Message], turn: int) -> int | None:
    """The assistant's turn that this user turn replies to, if it asked something."""
    for i in range(turn - 1, -1, -1):
        if messages[i].role is Role.ASSISTANT and messages[i].text:
            return i if "?" in messages[i].text else None
    return None


def _items(question: str) -> Iterator[tuple[int, int]]:
    """Spans of what a text asks about, in order: "is her face drooping | is one arm weak | is her speech slurred"."""
    for sentence in _QUESTION.finditer(question):
        start = sentence.start()
        for mark in _ITEM.finditer(question, sentence.start(), sentence.end()):
            if len(_WORD.findall(question, start, mark.start())) > 0:
                yield start, mark.start()
                start = mark.end()


def _repeated(items: Sequence[tuple[int, int]], question: str, answer: str) -> list[tuple[int, int]]:
    """The items that the answer repeats a word of: "mhm, throat"."""
    said = {w.lower() for w in _WORD.findall(answer)} - _COMMON
    return [(a, b) for a, b in items if said & ({w.lower() for w in _WORD.findall(question[a:b])} - _COMMON)]


def _offered(finding: Finding, question: str, offers: Iterable[int]) -> bool:
    """ "Would you like tips for ...?" asks for no symptom."""
    return any(start <= finding.start and "?" not in question[start : finding.start] for start in offers)


def _ages(
    messages: Sequence[Message], readings: Mapping[int, TurnReading], turn: int, reading: TurnReading, standing: Sequence[Finding]
) -> Iterator[Finding]:
    """ "38.6. five weeks" where the talk is of a baby: the span of time is its age."""
    asked = _question_before(messages, turn)
    if asked is None or reading.words > _SHORT_WORDS or any(f.concept == "age_months" for f in (*standing, *reading.findings)):
        return
    about = readings.get(asked)
    if about is None or not about.has("how_old"):
        return
    for finding in reading.findings:
        if finding.concept in ("duration_minutes", "weeks_pregnant") and finding.quantity is not None:
            minutes = finding.quantity.value * (10080 if finding.concept == "weeks_pregnant" else 1)
            months = replace(finding.quantity, kind="age_months", value=round(minutes / 43830, 4), unit="months")
            yield replace(finding, concept="age_months", turn=turn, quantity=months)
            return


# --- taking back and closing


def _revised(standing: list[Finding], reading: TurnReading, text: str, lasts: Callable[[str], bool]) -> list[Finding]:
    """What is left of earlier findings after this turn."""
    closed = reading.first("handled")
    story = reading.first("story")
    if story is not None and not reading.has("continued"):
        cue = Cue("fiction", story.text, story.start, story.end)
        standing = [replace(f, assertion=_with(f.assertion, cue, subject=Subject.NOBODY)) for f in standing]
    elif closed is not None:
        cue = Cue("closed", closed.text, closed.start, closed.end)
        standing = [f if lasts(f.concept) else replace(f, assertion=_with(f.assertion, cue, time=Time.PAST)) for f in standing]
    corrected = reading.first("corrected")
    if corrected is not None:
        standing = [f for f in standing if not _same_number(f, text)]
        denied = {f.concept for f in reading.findings if f.assertion.polarity is Polarity.ABSENT}
        spans = [(f.turn, f.start, f.end) for f in standing if f.concept in denied]
        cue = Cue("corrected", corrected.text, corrected.start, corrected.end)
        standing = [
            replace(f, assertion=_with(f.assertion, cue, polarity=Polarity.ABSENT))
            if any(t == f.turn and f.start < b and a < f.end for t, a, b in spans)
            else f
            for f in standing
        ]
    return standing


def _with(
    assertion: Assertion, cue: Cue, polarity: Polarity | None = None, time: Time | None = None, subject: Subject | None = None
) -> Assertion:
    return Assertion(polarity or assertion.polarity, time or assertion.time, subject or assertion.subject, (*assertion.cues, cue))


def _same_number(finding: Finding, text: str) -> bool:
    """Whether a correction writes an earlier number again: "33 weeks", then "I meant 33 YEARS"."""
    digits = _DIGITS.findall(finding.text)
    return bool(digits) and all(d in _DIGITS.findall(text) for d in digits)
