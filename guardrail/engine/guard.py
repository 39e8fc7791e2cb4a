"""Text to decision: `normalize -> mentions -> assertions + quantities -> findings -> rules -> decision`.

Pure and deterministic: the same conversation under the same revision gives the same decision. Long text is read in
pieces; `review_steps` yields between them, so that a server can look at its clock and serve others.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from guardrail.engine.conversation import Sign, TurnReading, current_turns, keeps_on, standing_findings, together, turns_to_read
from guardrail.engine.knowledge import Knowledge, NamedRule
from guardrail.engine.languages import ENGLISH
from guardrail.engine.lexicon import Entry, Mention
from guardrail.engine.memory import Memory
from guardrail.engine.model import (
    TIERS,
    Action,
    Assertion,
    Conversation,
    Cue,
    Decision,
    Disposition,
    Finding,
    Maturity,
    Message,
    Role,
    RuleHit,
    Urgency,
)
from guardrail.engine.normalize import Tokens
from guardrail.engine.rules import FindingIndex, Test, compile_condition, needed_names
from guardrail.engine.scorer import Leans, Score

# A piece takes about 5 ms to read: short enough for a server's loop, long enough that ordinary messages are one piece.
PIECE_CHARS = 4000
SHORT_MESSAGE = 80  # tokens; longer ones say by themselves what they mean, and need not be kept to be read with others
_BREAKS = ("\n", ". ", "! ", "? ", "; ", " ")


class Guard:
    """Reviews conversations under one revision of the packs.

    `cache_messages` readings are kept, keyed by a keyed digest and never by the text: a chat resends its history.
    """

    def __init__(self, knowledge: Knowledge, cache_messages: int = 4096, cache_key: bytes = b"") -> None:
        self.knowledge = knowledge
        self._read_before: Memory[TurnReading] = Memory(cache_key, cache_messages)
        self._rules, self._always, self._bits = _index_rules(knowledge.rules)

    def review(self, conversation: Conversation) -> Decision:
        """The decision for the last message of the conversation."""
        steps = self.review_steps(conversation)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                decision: Decision = done.value
                return decision

    def review_steps(self, conversation: Conversation) -> Generator[None, None, Decision]:
        """`review` as a generator: yields between pieces of work of some milliseconds, returns the decision."""
        readings = yield from self.readings(conversation)
        return self._decide(conversation, readings)

    def readings(self, conversation: Conversation) -> Generator[None, None, dict[int, TurnReading]]:
        """What each message that matters holds, read alone; yields as `review_steps` does."""
        readings: dict[int, TurnReading] = {}
        for turn in turns_to_read(conversation.messages):
            message = conversation.messages[turn]
            # The assistant's "do you have ...?" is read as the patient would say it.
            text = self.knowledge.context.mirrored(message.text) if message.role is Role.ASSISTANT else message.text
            readings[turn] = yield from self._read_cached(text)
        return readings

    def _read_cached(self, text: str) -> Generator[None, None, TurnReading]:
        place = self._read_before.place(text, None)
        known = self._read_before.get(place)
        if known is not None:
            return known
        findings: list[Finding] = []
        signs: list[Sign] = []
        words, language = 0, ENGLISH
        for start, end in pieces(text):
            piece = self._read(text[start:end], start)
            findings += piece.findings
            signs += piece.signs
            words += piece.words
            language = piece.language if start == 0 else language
            yield
        reading = piece if len(text) <= PIECE_CHARS and text else TurnReading(tuple(findings), tuple(signs), words, language)
        self._read_before.keep(place, reading)
        return reading

    def _read(self, text: str, offset: int) -> TurnReading:
        """What one piece of text holds, at offsets of the whole text."""
        knowledge = self.knowledge
        tokens = knowledge.lexicon.read(text)
        language = knowledge.languages.of(tokens.words)
        if language != ENGLISH:
            tokens = knowledge.languages.in_english(tokens, language)
        found = knowledge.lexicon.find(tokens)
        mentions = [m for m in found if m.entry.kind in ("concept", "hint")]
        cues = [m for m in found if m.entry.kind == "cue"]
        signs = knowledge.context.take_signs(tokens, cues, offset)
        measured = knowledge.quantities.find(tokens)
        if measured:
            mentions.extend(Mention(Entry("quantity", m.quantity.kind), m.first, m.after) for m in measured)
        findings: list[Finding] = []
        hints: list[Finding] = []
        quantities = iter(measured)
        for mention, reading in zip(mentions, knowledge.context.read(tokens, mentions, cues), strict=True):
            assertion = reading.assertion
            start, end = tokens.starts[mention.first], tokens.ends[mention.after - 1]
            if offset:
                assertion = replace(assertion, cues=tuple(replace(c, start=c.start + offset, end=c.end + offset) for c in assertion.cues))
            quantity = next(quantities).quantity if mention.entry.kind == "quantity" else None
            findings.append(
                Finding(mention.entry.name, 0, start + offset, end + offset, text[start:end], assertion, quantity, reading.person)
            )
        counting = [(m.entry.name, m.first) for m, f in zip(mentions, findings, strict=True) if f.assertion.counts]
        if knowledge.scorer is not None:
            scores, leans = knowledge.scorer.review(tokens.words, counting, glossed=language != ENGLISH)
            if not leans.danger:
                idle = [m.entry.kind == "hint" and not self._counts(f, leans) for m, f in zip(mentions, findings, strict=True)]
                hints = [f for f, is_idle in zip(findings, idle, strict=True) if is_idle]
                findings = [f for f, is_idle in zip(findings, idle, strict=True) if not is_idle]
            findings.extend(_scored(s, tokens, offset) for s in scores)
        words = sum(w[0].isalnum() for w in tokens.words)
        short = len(tokens) <= SHORT_MESSAGE
        return TurnReading(
            tuple(findings),
            signs,
            words,
            language,
            tuple(hints),
            tuple(tokens.words) if short else (),
            tuple(counting) if short else (),
        )

    def _counts(self, hint: Finding, leans: Leans) -> bool:
        """Whether a hint counts in a text that leans so: towards danger all do, towards medication those about it."""
        return leans.danger or (leans.medication and hint.concept in self.knowledge.medication_concepts)

    def _decide(self, conversation: Conversation, readings: dict[int, TurnReading]) -> Decision:
        knowledge = self.knowledge
        messages = conversation.messages
        now = current_turns(messages)
        told, readings = self._told_together(messages, readings, now)
        standing = standing_findings(messages, readings, knowledge.policy.carry_turns, knowledge.context.lasts, knowledge.context.mirrored)
        earlier = [f for f in standing if f.turn not in now]
        stood = {h.rule: h for h in self._held(earlier)} if earlier else {}
        escalated = any(h.disposition.urgency is Urgency.EMERGENCY for h in stood.values())
        if not escalated:
            standing += told  # what was escalated already does not become new by being told on
        held = self._held(standing)
        hits = [h for h in held if not h.evidence or any(f.turn in now for f in h.evidence)]
        reminder = False
        if escalated:
            hits, reminder = self._after_escalation(hits, held, stood, standing, readings, conversation, now)
        shadow = tuple(h for h in hits if h.shadow)
        language = conversation.language or _language_of(messages, readings)
        return self._decision(conversation, language, tuple(h for h in hits if not h.shadow), shadow, tuple(standing), reminder)

    def _told_together(
        self, messages: Sequence[Message], readings: dict[int, TurnReading], now: frozenset[int]
    ) -> tuple[list[Finding], dict[int, TurnReading]]:
        """What the second reader finds in the last messages read as one; and the readings, with their hints where these lean."""
        scorer = self.knowledge.scorer
        joined = together(messages, readings, now) if scorer is not None else None
        if scorer is None or joined is None:
            return [], readings
        glossed = readings[joined.turns[-1]].language != ENGLISH
        scores, leans = scorer.review(joined.words, joined.counting, joined.since, glossed)
        if leans.danger or leans.medication:
            readings = dict(readings)
            for turn in joined.turns:
                reading = readings[turn]
                counting = tuple(f for f in reading.hints if self._counts(f, leans))
                readings[turn] = replace(reading, findings=reading.findings + counting)
        last = joined.turns[-1]
        text = messages[last].text
        told = []
        for score in scores:
            cues = tuple(Cue("weight", joined.words[t], 0, len(text)) for t, _ in score.words)
            told.append(Finding(f"scored_{score.head}", last, 0, len(text), text, Assertion(cues=cues)))
        return told, readings

    def _held(self, findings: Sequence[Finding]) -> list[RuleHit]:
        """The rules that hold over these findings, most serious first."""
        index = FindingIndex(findings)
        every, rules = index.every, self._rules
        there = sum(self._bits.get(name, 0) for name in every)
        candidates = {id(r): r for concept in every for r in rules.get(concept, ())}
        hits = []
        for rule in (*self._always, *candidates.values()):
            if not all(map(there.__and__, rule.needs)):
                continue
            evidence = rule.test(index)
            if evidence is not None:
                hits.append(replace(rule.hit, evidence=tuple(dict.fromkeys(evidence))))
        hits.sort(key=lambda h: (h.disposition.seriousness, h.rule), reverse=True)
        return hits

    def _after_escalation(
        self,
        hits: list[RuleHit],
        held: list[RuleHit],
        stood: dict[str, RuleHit],
        standing: Sequence[Finding],
        readings: dict[int, TurnReading],
        conversation: Conversation,
        now: frozenset[int],
    ) -> tuple[list[RuleHit], bool]:
        """What an escalation of earlier turns means now: it goes on, or the patient has moved on and is reminded."""
        messages = conversation.messages
        if any(keeps_on(readings[turn], messages[turn].text) for turn in now if turn in readings and messages[turn].role is Role.USER):
            kept = {h.rule for h in hits}
            return sorted(
                (*hits, *(h for h in held if h.rule not in kept)), key=lambda h: (h.disposition.seriousness, h.rule), reverse=True
            ), False
        fresh = {h.rule for h in self._held([f for f in standing if f.turn in now])}
        # A rule that stood before and needs words of before is the old escalation, unless what is new makes it hold alone.
        return [h for h in hits if h.rule not in stood or h.rule in fresh], True

    def _decision(
        self,
        conversation: Conversation,
        language: str,
        hits: tuple[RuleHit, ...],
        shadow: tuple[RuleHit, ...],
        findings: tuple[Finding, ...],
        reminder: bool,
    ) -> Decision:
        knowledge = self.knowledge
        bare = {text: knowledge.context.is_bare(text) for text in {f.text for f in findings}}  # many say the same words
        country = conversation.country
        disposition, action, answer = Disposition(), Action.FORWARD, None
        if hits:
            first = hits[0]
            disposition = first.disposition
            tier = next(t for t, d in TIERS.items() if d == disposition)
            policy = knowledge.policy.tiers[tier]
            key = first.answer or policy.answer
            action = knowledge.policy.answers.get(first.answer or "", policy.action)
            if action is not Action.FORWARD and key:
                answer = knowledge.answers.render(key, language, country)
        if reminder and action is not Action.ANSWER:
            action = Action.ANNOTATE
            if answer is None and knowledge.answers.has("reminder"):
                answer = knowledge.answers.render("reminder", language, country)
        return Decision(
            disposition=disposition,
            topics=frozenset(t for h in hits for t in h.topics),
            action=action,
            hits=hits,
            findings=tuple(f for f in findings if not bare[f.text]),
            answer=answer,
            revision=knowledge.revision,
            language=language,
            country=country,
            shadow_hits=shadow,
            reminder=reminder,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    """A rule that runs, compiled. It cannot hold unless one name of each set of `needs` is found, the bits of its names."""

    hit: RuleHit
    test: Test
    needs: tuple[int, ...]


def _index_rules(rules: Sequence[NamedRule]) -> tuple[dict[str, list[_Running]], list[_Running], dict[str, int]]:
    """Running rules under each name of the smallest set they need one of, and those that need none; and the bit of each name needed."""
    by_name: dict[str, list[_Running]] = {}
    always: list[_Running] = []
    bits: dict[str, int] = {}
    for named in rules:
        if named.rule.maturity in (Maturity.DRAFT, Maturity.RETIRED):
            continue
        smallest, *needs = sorted(needed_names(named.rule.when), key=len) or [frozenset[str]()]
        running = _Running(_hit(named), compile_condition(named.rule.when), tuple(sum(_bit(n, bits) for n in names) for names in needs))
        if not smallest:
            always.append(running)
        for name in smallest:
            by_name.setdefault(name, []).append(running)
    return by_name, always, bits


def _bit(name: str, bits: dict[str, int]) -> int:
    return bits.setdefault(name, 1 << len(bits))


def _language_of(messages: Sequence[Message], readings: Mapping[int, TurnReading]) -> str:
    """The language the patient writes: that of the longest of the last messages, since "ok" is every language's."""
    read = [readings[i] for i, m in enumerate(messages) if m.role is Role.USER and i in readings]
    return max(read[-3:], key=lambda r: r.words).language if read else ENGLISH


def _scored(score: Score, tokens: Tokens, offset: int) -> Finding:
    """The scorer's voice as a finding: the sentences it read, and as cues the words that weighed most."""
    start, end = tokens.starts[score.first], tokens.ends[score.after - 1]
    cues = tuple(Cue("weight", tokens.text(t, t + 1), tokens.starts[t] + offset, tokens.ends[t] + offset) for t, _ in score.words)
    return Finding(f"scored_{score.head}", 0, start + offset, end + offset, tokens.original[start:end], Assertion(cues=cues))


def _hit(named: NamedRule) -> RuleHit:
    """What the rule says when it holds, but for the evidence."""
    rule = named.rule
    return RuleHit(
        rule=named.id,
        title=rule.title,
        pack=named.pack,
        disposition=TIERS[rule.tier],
        topics=frozenset(rule.topics),
        evidence=(),
        sources=tuple(s.name for s in rule.sources),
        answer=rule.answer,
        shadow=rule.maturity is Maturity.SHADOW,
    )


def pieces(text: str) -> Iterator[tuple[int, int]]:
    """Spans of at most PIECE_CHARS, cut after a sentence where there is one, else after a word, else anywhere."""
    start, length = 0, len(text)
    while length - start > PIECE_CHARS:
        limit = start + PIECE_CHARS
        for mark in _BREAKS:
            cut = text.rfind(mark, start + PIECE_CHARS // 2, limit)
            if cut >= 0:
                end = cut + len(mark)
                break
        else:
            end = limit
        yield start, end
        start = end
    if start < length:
        yield start, length
