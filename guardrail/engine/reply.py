"""Reviews one text channel of a reply while it is written.

`feed` takes what the model wrote next, `finish` says it is done; both return how far the text is safe to show. Text is
held only while a rule could still need it. The verdict does not depend on how the text was cut up. Whoever relays the
reply keeps its frames and releases the originals up to `released`, applying `edits`; after a `cut` nothing more is shown
but `ending()`.

How it holds. Every rule needs a word that is rare in ordinary text (a *hot* word: `Replies.words`). Text flows until one
comes; from there to the end of its sentence it is held, the sentence is reviewed with the whole reply so far, and is then
shown, or replaced from where it was held. So no rule can want text back that was shown: what stands before the first hot
word of a sentence is never edited. Words with which such a sentence often begins hold for some words too, so that it is
mostly replaced as a whole. Where a hold begins and ends is a function of the text alone.

Not done here: what the patient said (`guard`), frames and protocols (`proxy.relay`).
"""

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from msgspec import Struct

from guardrail.engine.knowledge import Knowledge
from guardrail.engine.markdown import Fences
from guardrail.engine.memory import Memory
from guardrail.engine.model import Action, Conversation, Decision, Destination, Role, Topic, Urgency
from guardrail.engine.normalize import Tokens, fold, tokenize
from guardrail.engine.replies import DISCLAIMERS, NEAR, SCORED, CompiledRule, Hold, Replies, Seen, Treatment, more_serious
from guardrail.engine.sentences import Sentence, SentenceScorer

# A word or number, a line's end, what ends a sentence with the quotes and emphasis behind it, a tag's begin, a JSON quote.
_TOKEN = re.compile(r"[^\W_]+|\n|[.!?…。！？؟]+[\"'”’)\]*_»]*|[<\"]")
_ENDERS = frozenset(".!?…。！？؟")
# Sentences of scripts without blanks end at their full stop.
_WIDE_ENDERS = frozenset("。！？")
_ABBREVIATIONS = frozenset(
    ["dr", "mr", "mrs", "ms", "prof", "st", "eg", "ie", "e", "g", "i", "vs", "approx", "vol", "pp", "no", "fig", "et", "al", "etc"]
)
# List, quote, heading and table marks that stand before a sentence and are kept.
_MARKS = re.compile(r"[\s>]*(?:[-*+•–|](?=\s)[\s>]*|#{1,6}\s+|\d{1,2}[.)](?=\s)\s*)*")
# Tokens of a sentence that is hardly more than a name or a word of consent, its full stop included.
_SHORT = 7
_LAST_USER_CHARS = 4000
# As plain numbers: operations on flags are ten times slower, and there are some for every word.
_HOT, _LEAD, _NOTE, _OPEN = int(Hold.HOT), int(Hold.LEAD), int(Hold.NOTE), int(Hold.OPEN)
# Tags in which models put their thinking when it stands in the answer itself.
_THINK = frozenset({"think", "thinking", "thought", "reasoning"})


class Edit(Struct, frozen=True):
    """Characters `start` to `end` of the channel's text are shown as `text` instead."""

    start: int
    end: int
    text: str


class Review(Struct, frozen=True):
    """How far the channel may be shown. Everything before `released` is final; `edits` are new since the last review."""

    released: int
    edits: tuple[Edit, ...] = ()
    cut: bool = False


@dataclass(frozen=True, slots=True)
class ReplyIssue:
    """A reply rule that held: its name (`corpus/LABELS.md`), the words, and what was done about it."""

    issue: str
    rule: str
    start: int
    end: int
    text: str
    treatment: str
    shadow: bool = False


@dataclass(slots=True)
class ReplyReport:
    """What is recorded of a reviewed channel."""

    action: str = "pass"
    issues: list[ReplyIssue] = field(default_factory=list)
    disclaimer_added: bool = False
    disclaimer_present: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What a whole reply came to: what is shown of it, and whether it was cut."""

    shown: str
    cut: bool
    report: ReplyReport


class ReplyMemory:
    """What the reply guards of one service read before: the patient's messages, and whole replies. `key` is for their digests."""

    def __init__(self, key: bytes, most: int = 1024) -> None:
        self.said: Memory[frozenset[str]] = Memory(key, most)
        self.replies: Memory[Known] = Memory(key, most)


_ACTION_RANK = {"pass": 0, "annotate": 1, "replace": 2, "cut": 3}


class ReplyGuard:
    """One channel of one reply under one decision.

    `channel` is "content" for what the patient reads as the answer, "reasoning" for thinking text, "refusal", or
    "arguments" for tool arguments. `structured` says the reply must keep a schema (JSON mode, tool call): then nothing is
    added to it. `conversation` lets rules ask what the patient wrote last (an image sent, a means named). With `observe`
    all rules are recorded and none acts: a cut reply is otherwise not read to its end. `memory` is shared by the guards of a
    service.
    """

    _memory: ReplyMemory | None = None

    def __init__(
        self,
        knowledge: Knowledge,
        decision: Decision,
        channel: str = "content",
        structured: bool = False,
        conversation: Conversation | None = None,
        observe: bool = False,
        memory: ReplyMemory | None = None,
    ) -> None:
        self.report = ReplyReport()
        self._knowledge = knowledge
        self._replies = knowledge.replies
        self._decision = decision
        self._channel = channel
        self._structured = structured
        self._conversation = conversation
        self._observe = observe
        self._memory = memory
        self._unit = ""
        """Text from the start of the open sentence."""
        self._base = 0
        """Where the open sentence starts in the channel."""
        self._scan = 0
        """Where in the open sentence the first unread token starts."""
        self._hold = -1
        """Where in the open sentence the hold starts; -1 while text flows."""
        self._left = 0
        """For how many more tokens a hold without a hot word lasts."""
        self._hot = False
        self._read = False
        """The open sentence holds a word that some condition may ask for."""
        self._count = 0
        self._last_word = ""
        self._released = 0
        self._done = False
        self._thinking = False
        self._fences = Fences()
        self._first = ""
        self._cut_text = ""
        self._said: set[str] = set()
        self._seen: set[str] = set()
        self._open = 0
        """Bits of the gates that are open: rules of the others cannot hold."""
        self._foreign = self._replies.lines.groups(decision.country) if self._replies else frozenset[str]()
        """Groups of digits of other countries' telephone lines."""
        language = decision.language.split("-")[0]  # a caller may say es-MX
        self._glossed = language if knowledge.languages.knows(language) else None
        """The language whose words are read in English."""
        self._leant = False
        """The open sentence is held only because it leans."""
        self._heeded: frozenset[str] = frozenset()
        """The heads of the trained reader for which a sentence is held."""
        self._sentence: Sentence | None = None
        """The open sentence as the trained reader has it so far."""
        self._reach = 0
        """For how many words a word holds its sentence that only leads to something."""
        self._number = 0
        """What a number does to its sentence (`Hold`s): more where medicines are talked of."""
        self._context: tuple[frozenset[str], frozenset[str]] | None = None

    def preface(self) -> str:
        """Text to be shown before the reply, or nothing."""
        if self._channel == "reasoning" and self._replies and self._replies.policy.reasoning == "label":
            return self._notice("reasoning_label") + "\n"
        if self._adds() and self._decision.answer and self._decision.action is Action.ANNOTATE and self._decision.urgency >= Urgency.URGENT:
            self._act("annotate")
            return self._decision.answer + "\n\n"
        return ""

    def feed(self, text: str) -> Review:
        """What the model wrote next."""
        replies = self._replies
        if replies is None or self._done:
            self._released += len(text) if not self._done else 0
            return Review(self._released)
        if self._channel == "reasoning" and replies.policy.reasoning == "drop":
            return self._drop()
        if not self._open:
            self._open_gates(replies)
        self._unit += text
        return self._advance(replies, last=False)

    def finish(self) -> Review:
        """The reply is complete."""
        replies = self._replies
        if replies is None or self._done:
            return Review(self._released)
        if self._channel == "reasoning" and replies.policy.reasoning == "drop":
            self._done = True
            return Review(0)
        review = self._advance(replies, last=True)
        self._done = True
        if not review.cut:
            self._judge_reply(replies, self._base)
        return review

    def ending(self) -> str:
        """Text to be shown after the reply, before its terminal frame: notice, disclaimer, or what follows a cut."""
        if self._cut_text:
            return self._cut_text if self._base + self._released == 0 else ("\n\n" if self._released else "") + self._cut_text
        if not self._adds() or self._replies is None:
            return ""
        parts = [*self._annotations()]
        if self._needs_disclaimer():
            self.report.disclaimer_added = True
            parts.append(self._disclaimer(self._kind()))
        if not parts:
            return ""
        self._act("annotate")
        return self._fences.closing + "\n\n" + "\n\n".join(parts)

    # Replies known whole

    def recall(self, text: str) -> Known | None:
        """What this whole reply came to when it was last reviewed in these circumstances; it is then reviewed."""
        memory = self._memory
        known = memory.replies.get(memory.replies.place(text, self._circumstances())) if memory is not None else None
        if known is not None:
            self.report = known.report
        return known

    def remember(self, text: str, shown: str, cut: bool) -> None:
        """What this whole reply came to."""
        if self._memory is not None:
            replies = self._memory.replies
            replies.keep(replies.place(text, self._circumstances()), Known(shown, cut, self.report))

    def _circumstances(self) -> Hashable:
        """All that the verdict depends on beside the text."""
        decision = self._decision
        return (
            self._knowledge.revision,
            self._channel,
            self._structured,
            self._observe,
            decision.urgency,
            decision.action,
            decision.answer,
            decision.topics,
            decision.language,
            decision.country,
            self._situation(self._replies) if self._replies else None,
            self._given(self._kind()) if self._replies else None,
        )

    # Reading

    def _advance(self, replies: Replies, last: bool) -> Review:
        """Read the complete tokens, close the complete sentences, and see how far the text may be shown."""
        unit = self._unit
        size = len(unit)
        start = 0  # of the open sentence, in `unit`
        place = self._scan
        edits: list[Edit] = []
        limit = replies.policy.hold_chars
        while True:
            found = _TOKEN.search(unit, place)
            if found is None:
                place = partial = size
                break
            at, after = found.span()
            if after == size and not last:
                place = partial = at
                break
            token = found[0]
            place = after
            if token[0].isalnum():
                if at - start > limit and self._close(unit, start, at, edits):
                    break
                if at - start > limit:
                    start = at
                self._take_word(replies, token, at - start, after - start)
                if token in _THINK and replies.policy.reasoning == "drop" and (tag := self._tag(unit, at, after)):
                    if tag < 0:
                        self._thinking = self._hot = True
                        self._hold = self._hold if self._hold >= 0 else at - start - 1  # from the tag's begin
                    else:
                        place = max(place, tag)
                        if self._close(unit, start, place, edits):
                            break
                        start = place
                        self._end_thinking()
            elif self._ends(unit, token, at, after, start, size):
                if self._close(unit, start, after, edits):
                    break
                start = after
            elif token[0] == "<" and self._hold < 0:
                self._heed(_LEAD, at - start, 2)
        if self.report.action == "cut" and self._done:
            return Review(self._released, tuple(edits), cut=True)
        if last and start < size:
            if self._close(unit, start, size, edits):
                return Review(self._released, tuple(edits), cut=True)
            start = size
        self._unit = unit[start:]
        self._base += start
        self._scan = max(0, place - start)
        self._released = max(self._released, self._base + self._free(replies, size - start, partial - start if not last else size - start))
        return Review(self._released, tuple(edits))

    def _take_word(self, replies: Replies, token: str, at: int, after: int) -> None:
        """Heed one word, at its place in the open sentence: whether it holds the sentence, and whether that leans somewhere now."""
        folded = token.lower() if token.isascii() else fold(token)
        word = replies.words.get(folded)
        behind = replies.pairs.get(self._last_word)
        number = self._number if token[0].isdigit() else 0
        if behind is not None and behind.get(folded, 0) & self._open:
            self._heed(_HOT | _NOTE, at, self._reach)
        elif word is not None:
            hold = word.hold if word.gates & self._open else word.hold & ~_HOT
            if number or hold & _LEAD:
                hold |= self._number
            early = 0 if hold & _OPEN and self._count < 2 else word.shown
            self._heed(hold, at + early, self._reach)
        elif number or self._hold >= 0:
            self._heed(number, at, self._reach)
        if number and token in self._foreign:
            self._heed(_HOT | _NOTE, at, self._reach)
        if replies.scorer is not None:
            self._lean(replies.scorer, folded, after)
        self._count += 1
        self._last_word = folded

    def _lean(self, scorer: SentenceScorer, folded: str, after: int) -> None:
        """Let the trained reader take the word, and hold or let go of the sentence as it leans."""
        sentence = self._sentence
        if sentence is None:
            sentence = self._sentence = scorer.begin(self.facts(), self._heeded)
        if self._glossed is None:
            sentence.add(folded)
        else:
            for word in self._knowledge.languages.word(folded, self._glossed):
                sentence.add(word)
        if sentence.leaning:
            # The word itself may be shown already; what follows is not.
            self._leant = self._leant or not self._hot
            self._heed(_HOT | _NOTE, after, 0)
        elif self._leant and not self._thinking:
            # It has turned to something harmless, and nothing else holds it.
            self._leant = self._hot = False
            if self._left <= 0:
                self._hold = -1

    @staticmethod
    def _tag(unit: str, at: int, after: int) -> int:
        """Where the tag that ends thinking ends; -1 for one that begins it, 0 for neither."""
        if unit[max(0, at - 1) : at] == "<":
            return -1
        return after + (unit[after : after + 1] == ">") if unit[max(0, at - 2) : at] == "</" else 0

    def _end_thinking(self) -> None:
        self._thinking = self._hot = False
        self._hold = -1

    def _heed(self, hold: int, at: int, reach: int) -> None:
        if hold & _HOT:
            self._leant = self._leant and reach == 0
            if self._hold < 0:
                self._hold = at
            self._hot = self._read = True
        elif hold & _LEAD or (hold & _OPEN and self._count < 2):
            if self._hold < 0:
                self._hold = at
            self._left = max(self._left, reach)
        elif self._hold >= 0 and not self._hot:
            self._left -= 1
            if self._left < 0:
                self._hold = -1
        if hold & _NOTE:
            self._read = True

    def _free(self, replies: Replies, size: int, partial: int) -> int:
        """How much of the open sentence may be shown."""
        if self._hold >= 0:
            return self._hold
        if partial >= size:
            return size
        rest = self._unit[partial:]
        if not rest[0].isalnum():
            return partial if rest[0] == "<" else size
        rest = rest.lower()
        if rest[0].isdigit() or not rest.isascii() or replies.prefixes.get(rest, 0) & self._open:
            return partial
        if self._count < 2 and rest in replies.openings:
            return partial
        behind = replies.pairs.get(self._last_word)
        return partial if behind is not None and any(g & self._open and w.startswith(rest) for w, g in behind.items()) else size

    def _ends(self, unit: str, token: str, at: int, after: int, start: int, size: int) -> bool:
        """Whether a mark ends the sentence."""
        first = token[0]
        if first == "\n":
            return True
        if first == '"':
            return self._is_json(unit)
        if first not in _ENDERS:
            return False
        if '"' in token and self._is_json(unit):
            return True
        if first in _WIDE_ENDERS or after >= size:
            return True
        following = unit[after]
        if first == "." and self._last_word in _ABBREVIATIONS and len(token) == 1:
            return False
        if first == "." and self._last_word.isdigit() and self._count <= 1 and not unit[start : at - len(self._last_word)].strip(" \t>-*|"):
            return False  # "1. " begins a list item
        return following.isspace() or (following.isupper() and len(self._last_word) > 2 and self._last_word.isalpha())

    def _is_json(self, unit: str) -> bool:
        if not self._first:
            self._first = unit.lstrip()[:1] if self._base == 0 else "?"
        return self._structured or self._first in ("{", "[")

    # Judging

    def _close(self, unit: str, start: int, end: int, edits: list[Edit]) -> bool:
        """Review one complete sentence; True when the reply is cut."""
        hold = self._hold if self._hot else -1
        text = unit[start:end]
        if self._base == 0 and start == 0 and not self._first:
            self._first = text.lstrip()[:1]
        self._fences.read(text)
        cut = False
        if self._thinking:
            edits.append(Edit(self._base + start + max(0, self._hold), self._base + end, ""))
            self._act("annotate")
        elif self._read and text:
            cut = self._judge(text, self._base + start, hold, edits)
        self._hold = 0 if self._thinking else -1
        self._hot, self._read, self._left, self._count, self._last_word = self._thinking, False, 0, 0, ""
        self._sentence, self._leant = None, False
        return cut

    def _judge(self, text: str, base: int, hold: int, edits: list[Edit]) -> bool:
        replies = self._replies
        assert replies is not None
        tokens = tokenize(text)
        places: dict[str, tuple[int, int]] = {}
        for read in self._readings(tokens):
            for mention in replies.lexicon.find(read):
                places.setdefault(mention.entry.name, (read.starts[mention.first], read.ends[mention.after - 1]))
        for issue in self._sentence.near() if self._sentence is not None else replies.policy.issues:
            places[f"{NEAR}{issue}"] = (0, len(text))
        if self._sentence is not None and (said := self._sentence.said()):
            words = self._words_of(text)
            for head in said:
                weighty = [words[i] for i in self._sentence.evidence(head)]
                places[f"{SCORED}{head}"] = (weighty[0][0], weighty[-1][1]) if weighty else (0, len(text))
        if not places:
            return False
        if self._foreign and (line := replies.lines.foreign(text, self._decision.country)):
            places["foreign_line"] = line
        if base == 0:
            places["is_first"] = (0, len(text))
        if len(tokens) <= _SHORT:
            places["is_short"] = (0, len(text))
        here = frozenset(places)
        user, case = self._situation(replies)
        seen = Seen(here, frozenset(self._seen), user, case)
        if not here <= self._seen:
            new = here - self._seen
            self._seen |= here
            if not new.isdisjoint(replies.asked):
                self._open_gates(replies)
        rules: dict[str, CompiledRule] = {}
        for name in here:
            for rule in replies.by_concept.get(name, ()):
                rules[rule.id] = rule
        held = [r for r in rules.values() if r.holds(seen)]
        if not held:
            return False
        held.sort(key=lambda r: r.id)
        treatment = Treatment.RECORD
        for rule in held:
            what = rule.treatment if hold >= 0 and not self._observe else Treatment.RECORD
            span = [places[n] for n in rule.evidence if n in places] or [(0, len(text))]
            first, after = min(s for s, _ in span), max(e for _, e in span)
            self.report.issues.append(ReplyIssue(rule.issue, rule.id, base + first, base + after, text[first:after], what, rule.shadow))
            if not rule.shadow:
                treatment = more_serious(treatment, what)
        acting = [r for r in held if not r.shadow and r.treatment is treatment]
        if treatment is Treatment.REPLACE:
            self._replace(text, base, hold, acting, edits)
        elif treatment is Treatment.CUT:
            self._cut(base + hold, acting[0].text)
            return True
        return False

    def _readings(self, tokens: Tokens) -> Iterable[Tokens]:
        """A text as it stands, and in English where it is another language's: some phrases are in that language."""
        yield tokens
        if self._glossed is not None:
            yield self._knowledge.languages.in_english(tokens, self._glossed)

    def _words_of(self, text: str) -> list[tuple[int, int]]:
        """Where each word that the trained reader was given stands."""
        spans = [(found.span(), fold(found[0])) for found in _TOKEN.finditer(text) if found[0][0].isalnum()]
        if self._glossed is None:
            return [span for span, _ in spans]
        return [span for span, word in spans for _ in self._knowledge.languages.word(word, self._glossed)]

    def _replace(self, text: str, base: int, hold: int, rules: list[CompiledRule], edits: list[Edit]) -> None:
        """Put the safe sentence in the place of the held part; a text that was said already is not said again."""
        marks = _MARKS.match(text)
        start = max(hold, marks.end() if marks else 0)
        end = len(text.rstrip())
        if self._is_json(text):
            end = len(text.rstrip().rstrip('"'))
        keys = dict.fromkeys(r.text for r in rules if r.text)
        new = [k for k in keys if k not in self._said]
        self._said.update(keys)
        safe = " ".join(self._notice(k) for k in new[:2])
        if self._is_json(text):
            safe = safe.replace('"', "'").replace("\n", " ")
        if text[:start].strip(" \t\n>-*•|#_0123456789.)"):
            safe = f"… {safe}".rstrip()
        gone = text[start:end]
        if gone.count("**") % 2:
            safe = f"{safe}**" if text[:start].count("**") % 2 else f"**{safe}"
        if gone.rstrip().endswith("|") and "|" in text[:start]:
            safe += " |"
        edits.append(Edit(base + start, base + end, safe))
        self._act("replace")

    def _cut(self, at: int, key: str | None) -> None:
        self._released = max(self._released, at)
        self._done = True
        self._act("cut")
        decision = self._decision
        text = decision.answer if decision.urgency >= Urgency.URGENT and decision.answer else None
        assert self._replies is not None
        self._judge_reply(self._replies, at)
        self._cut_text = text or (self._knowledge.answers.render(key, decision.language, decision.country) if key else "")

    def _judge_reply(self, replies: Replies, end: int) -> None:
        """The rules about the reply as a whole."""
        user, case = self._situation(replies)
        issues = frozenset(i.issue for i in self.report.issues if not i.shadow)
        seen = Seen(frozenset(self._seen), frozenset(self._seen), user, case, issues)
        for rule in replies.rules:
            if rule.scope == "reply" and rule.holds(seen) and self._applies(rule):
                self.report.issues.append(ReplyIssue(rule.issue, rule.id, 0, end, "", rule.treatment, rule.shadow))
                if rule.issue == "has_disclaimer":
                    self.report.disclaimer_present = True

    def _applies(self, rule: CompiledRule) -> bool:
        return self._channel == "content" or rule.issue != "missing_escalation"

    def _open_gates(self, replies: Replies) -> None:
        user, case = self._situation(replies)
        seen = Seen(frozenset(), frozenset(self._seen), user, case)
        self._open = sum(1 << i for i, gate in enumerate(replies.gates) if gate(seen))
        self._heeded = frozenset(head for head, gates in replies.heeded.items() if gates & self._open)
        medicines = "medication" in case or "drug_named" in user or "drug_named" in self._seen
        # Where medicines are talked of, what is to be done with a number may come some words later.
        self._reach = replies.policy.reach * (2 if medicines else 1)
        self._number = _LEAD | _HOT if medicines and replies.scorer is None else _LEAD

    # The conversation

    def _situation(self, replies: Replies) -> tuple[frozenset[str], frozenset[str]]:
        """The concepts of the patient's last message, and the facts of the conversation."""
        if self._context is None:
            user = self._last_said(replies)
            self._context = user, frozenset(self._facts(user))
        return self._context

    def _last_said(self, replies: Replies) -> frozenset[str]:
        messages = self._conversation.messages if self._conversation else ()
        last = next((m for m in reversed(messages) if m.role is Role.USER), None)
        if last is None:
            return frozenset()
        text = last.text[-_LAST_USER_CHARS:]
        if self._memory is None:
            return self._concepts_of(text, replies)
        said = self._memory.said
        place = said.place(text, (self._knowledge.revision, self._glossed))
        known = said.get(place)
        if known is None:
            known = self._concepts_of(text, replies)
            said.keep(place, known)
        return known

    def _concepts_of(self, text: str, replies: Replies) -> frozenset[str]:
        return frozenset(m.entry.name for read in self._readings(tokenize(text)) for m in replies.lexicon.find(read))

    def _facts(self, user: frozenset[str]) -> Iterable[str]:
        decision = self._decision
        if any(h.disposition.urgency >= Urgency.URGENT and h.disposition.destination is not Destination.PRESCRIBER for h in decision.hits):
            yield "red_flag"
        if decision.urgency >= Urgency.EMERGENCY:
            yield "emergency"
        if decision.topics:
            yield "health"
        if Topic.CRISIS in decision.topics:
            yield "crisis"
        if Topic.MEDICATION in decision.topics:
            yield "medication"
        messages = self._conversation.messages if self._conversation else ()
        unread = {kind for m in messages for kind in m.unread} | set(decision.not_evaluated)
        if Topic.IMAGE in decision.topics or "image" in unread or "image_sent" in user:
            yield "image"

    # What is added

    def _adds(self) -> bool:
        return self._channel == "content" and not self._structured and self._first not in ("{", "[") and not self._fences.is_json

    def _annotations(self) -> Iterable[str]:
        decision = self._decision
        if any(i.issue == "missing_escalation" and not i.shadow for i in self.report.issues):
            if not (decision.answer and decision.action is Action.ANNOTATE and decision.urgency >= Urgency.URGENT):
                key = "ambulance" if decision.urgency is Urgency.EMERGENCY else "same_day"
                yield decision.answer or self._knowledge.answers.render(key, decision.language, decision.country)
        elif decision.action is Action.ANNOTATE and decision.urgency < Urgency.URGENT and "refers_to_pharmacist" not in self._seen:
            yield from filter(None, (decision.answer,))

    def _needs_disclaimer(self) -> bool:
        replies = self._replies
        if replies is None or replies.policy.disclaimer == "never" or self.report.disclaimer_present:
            return False
        if any(i.issue != "has_disclaimer" for i in self.report.issues):
            return True
        return (bool(self._decision.topics) or "health_advice" in self._seen) and not self._given(self._kind())

    def _kind(self) -> str:
        """The kind of disclaimer that this conversation needs."""
        if Topic.IMAGE in self._decision.topics or "image" in self.facts():
            return "image"
        return "medication" if Topic.MEDICATION in self._decision.topics else "verify"

    def _disclaimer(self, kind: str) -> str:
        return self._knowledge.answers.disclaimer(kind, self._decision.language, self._decision.country)

    def _given(self, kind: str) -> bool:
        """Whether one of the last replies had this disclaimer; where the general one would do, any."""
        every = self._replies.policy.disclaimer_every if self._replies else 1
        said = [m.text for m in self._conversation.messages if m.role is Role.ASSISTANT] if self._conversation else []
        last = said[1 - every :] if every > 1 else []
        kinds = DISCLAIMERS if kind == "verify" else (kind,)
        return any(self._disclaimer(k) in text for text in last for k in kinds)

    def facts(self) -> frozenset[str]:
        """What is known of the conversation (`replies.CASES`)."""
        return self._situation(self._replies)[1] if self._replies else frozenset()

    def _notice(self, key: str) -> str:
        return self._knowledge.answers.notice(key, self._decision.language, self._decision.country)

    def _act(self, action: str) -> None:
        if _ACTION_RANK[action] > _ACTION_RANK[self.report.action]:
            self.report.action = action

    def _drop(self) -> Review:
        """Thinking text is left out from its first character."""
        self._done = True
        self._act("cut")
        return Review(0, cut=True)
