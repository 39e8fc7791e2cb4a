"""What a mention means: there or not, now or not, whose. Decided per mention, with the cue kept as evidence.

After ConText (Harkema et al., J Biomed Inform 2009): a cue has a kind, a direction and a reach. Tightened for safety:

- a negation acts only inside its own clause, and only through light words ("any", "really", "bad") or along a list that
  goes on to an "or": it never jumps over a word that it does not know;
- that something has gone never lowers by itself: the episode must be months back, or weeks back and gone, or days back
  *and* seen to (all clear, home since), or be of a concept that says it may pass (`passes`: a fever, a rash);
- nothing acts on a whole message; fiction and study do not reach the writer's own body ("my chest", "I");
- somebody else's present trouble is the patient's: whoever has it now is whom the question is about. Only their past is not.

Cue words live in `rules/languages/*/cues.yaml`. Not decided here: what one turn says about another (`conversation`).
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, get_args

from msgspec import Struct
from msgspec.structs import replace

from guardrail.engine.conversation import Sign, SignKind
from guardrail.engine.lexicon import Mention
from guardrail.engine.model import Assertion, Cue, Polarity, Subject, Time
from guardrail.engine.normalize import Tokens

Direction = Literal["forward", "backward", "both", "near", "answer", "topic"]
CueKind = Literal[
    "negated",
    "resolved",
    "possible",
    "past",
    "earlier",
    "closed",
    "present",
    "hypothetical",
    "education",
    "fiction",
    "disclosed",
    "family",
    "family_risk",
    "other",
    "person",
    "acquaintance",
    "pseudo",
    "terminator",
    "clause",
]
WordKind = Literal["light", "any", "or", "self", "goes_on", "pointing", "bare", "pronoun", "determiner", "possessive", "mirror"]
"""Groups of single words that are looked up, not matched.

light: what a strict cue may pass; any: introduces a thing denied; or: joins a list; self: the writer's own; goes_on: follows a
thing that is there ("what if my chest pain *is* ..."); pointing: points to it ("*this* rash"); bare: says nothing by itself
("my chest"), so that rules may combine it but no finding is reported; pronoun, determiner, possessive: of persons; mirror:
pairs that turn a question round ("you i").
"""


_SIGNS: frozenset[str] = frozenset(get_args(SignKind))


class Age(IntEnum):
    """How long ago a cue says it was at least, and how long a concept lasts: the cue acts when it says more."""

    WEEKS = 0
    MONTHS = 1
    YEARS = 2
    LIFE = 3
    EVER = 4


_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_SENTENCE_END = frozenset(".!?;\n")
_ANSWER_MARK = frozenset(":?-=")
_COMMA = ","
_LISTED_ITEM = 3  # words an item of a list may have when the lexicon does not know it ("no fever, funny turns or chest pain")
_LIST_REACH = 16
_LONGEST_MENTION = 24
_SHARED = frozenset({"past", "earlier", "closed", "present", "hypothetical", "education", "fiction", "family", "family_risk", "other"})


@dataclass(frozen=True, slots=True)
class CueRule:
    """How cues of one group act. `reach` counts words between cue and mention."""

    kind: CueKind | SignKind
    direction: Direction
    reach: int
    strict: bool = False
    predicate: bool = False
    age: Age = Age.EVER
    items: tuple[int, ...] = ()
    """Of kind picked: which of the things asked about, counted from one."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Single words the context looks up, of all languages, and what is known of the concepts."""

    light: frozenset[str] = frozenset()
    light_endings: tuple[str, ...] = ()
    any: frozenset[str] = frozenset()
    connectors: frozenset[str] = frozenset({"or"})
    own: frozenset[str] = frozenset({"i", "my", "me"})
    goes_on: frozenset[str] = frozenset()
    pointing: frozenset[str] = frozenset()
    bare: frozenset[str] = frozenset()
    pronouns: frozenset[str] = frozenset()
    determiners: frozenset[str] = frozenset()
    possessives: frozenset[str] = frozenset()
    mirror: Mapping[str, str] = field(default_factory=dict)
    lasts: Mapping[str, Age] = field(default_factory=dict)
    """Concepts that stay true for months or for life, so that a diagnosis years ago is not past."""
    passing: frozenset[str] = frozenset()
    """Concepts that no longer count once they have gone."""


_COUNTS = Assertion()


class Reading(Struct, frozen=True, gc=False):
    """What one mention means; `person` is whose it is when not the writer's own."""

    assertion: Assertion = _COUNTS
    person: str | None = None


_PLAIN = Reading()
_IN_GAPS = frozenset({"negated", "possible", "past", "earlier", "present", "hypothetical"})
_TIMES = frozenset({"past", "earlier", "present"})  # adverbs of time hold for their own part of a sentence: a comma ends it


class Context:
    """Reads mentions. `rules` gives each cue group (the entry name of its phrases) its behaviour."""

    def __init__(self, rules: Mapping[str, CueRule], vocabulary: Vocabulary | None = None) -> None:
        self._rules = rules
        self._vocabulary = vocabulary or Vocabulary()

    def is_bare(self, text: str) -> bool:
        """Whether a finding's text says nothing by itself: "my chest", "an hour"."""
        bare = self._vocabulary.bare
        return all(word in bare for word in text.lower().split())

    def mirrored(self, text: str) -> str:
        """A question to the patient in the patient's own words: "do you feel your chest" as "do I feel my chest"."""
        mirror = self._vocabulary.mirror
        return _WORD.sub(lambda m: mirror.get(m[0].lower().replace("’", "'"), m[0]), text)

    def lasts(self, concept: str) -> bool:
        """Whether a concept stays true for months or more."""
        return concept in self._vocabulary.lasts

    def take_signs(self, tokens: Tokens, cues: list[Mention], offset: int) -> tuple[Sign, ...]:
        """Take the cues that speak to the conversation out of the list; what they are is for `conversation`."""
        taken: list[Sign] = []
        kept: list[Mention] = []
        for cue in cues:
            rule = self._rules[cue.entry.name]
            if rule.kind not in _SIGNS:
                kept.append(cue)
                continue
            start, end = tokens.starts[cue.first], tokens.ends[cue.after - 1]
            taken.append(Sign(rule.kind, tokens.original[start:end], start + offset, end + offset, cue.first, rule.items))  # type: ignore[arg-type]  # one of _SIGNS
        cues[:] = kept
        return tuple(taken)

    def read(self, tokens: Tokens, mentions: Sequence[Mention], cues: Sequence[Mention]) -> list[Reading]:
        """One reading for each mention, in order. Mentions and cues come sorted by place."""
        if not mentions:
            return []
        if not cues:
            return [_PLAIN] * len(mentions)
        return _Text(tokens, mentions, cues, self._rules, self._vocabulary).readings()


@dataclass(slots=True)
class _Walls:
    """Where cues stop: at sentence ends, at hard walls ("but"), and most also at a new clause ("and my ...")."""

    hard: list[int]
    soft: list[int]

    def between(self, first: int, after: int, soft: bool) -> bool:
        walls = self.soft if soft else self.hard
        place = bisect_left(walls, first)
        return place < len(walls) and walls[place] < after


@dataclass(slots=True)
class _Place:
    """Where one or more concepts stand, and the cues that touch them."""

    first: int
    after: int
    gaps: tuple[tuple[int, int], ...]
    concepts: list[int]
    acting: dict[str, list[Mention]] = field(default_factory=dict)

    def own(self) -> list[tuple[int, int]]:
        """Its own tokens, without what a gap stood for."""
        ranges, start = [], self.first
        for a, b in self.gaps:
            ranges.append((start, a))
            start = b
        ranges.append((start, self.after))
        return ranges


class _Text:
    """The reading of one text; made for each."""

    def __init__(
        self, tokens: Tokens, mentions: Sequence[Mention], cues: Sequence[Mention], rules: Mapping[str, CueRule], vocabulary: Vocabulary
    ) -> None:
        self.tokens = tokens
        self.words = tokens.words
        self.mentions = mentions
        self.rules = rules
        self.vocabulary = vocabulary
        self.places = _places(mentions)
        self.firsts = [p.first for p in self.places]
        self.sentences = _sentences(tokens.words)
        pseudo, hard, soft, self.people, self.acquaintances, active = _sort(cues, rules)
        self.walls = _Walls(hard, sorted(hard + soft))
        self.active = _uncovered(active, pseudo, rules)
        self.distant = {" ".join(tokens.words[c.first : c.after]) for c in self.acquaintances}
        self.marks = self._marks()
        self.mark_places = [place for place, _ in self.marks]

    def readings(self) -> list[Reading]:
        for cue in self.active:
            rule = self.rules[cue.entry.name]
            for place in self._touched(cue, rule):
                place.acting.setdefault(rule.kind, []).append(cue)
        self._share()
        readings = [_PLAIN] * len(self.mentions)
        plain: dict[str | None, Reading] = {None: _PLAIN}
        lasts, mentions = self.vocabulary.lasts, self.mentions
        for place in self.places:
            who, _ = self._whose(place)
            acting = place.acting
            if not acting and (who is None or who not in self.distant):
                if who is not None:
                    reading = plain.get(who)
                    if reading is None or who in self.vocabulary.pronouns:
                        reading = plain[who] = Reading(person=self._name(who, place.first))
                    for i in place.concepts:
                        readings[i] = reading
                continue
            person = None if who is None else self._name(who, place.first)
            names = [mentions[i].entry.name for i in place.concepts]
            passing = "resolved" in acting and not self.vocabulary.passing.isdisjoint(names)
            distant = 0 if who not in self.distant else 2 if any(lasts.get(name) is Age.LIFE for name in names) else 1
            known: dict[Age, Reading] = {}
            for i, name in zip(place.concepts, names, strict=True):
                age = lasts.get(name, Age.WEEKS)
                if age not in known:
                    known[age] = self._reading(place, age, person, distant, passing)
                readings[i] = known[age]
        if any(r.assertion.subject is Subject.OTHER for r in readings):
            self._unlisted(readings)
        return readings

    def _share(self) -> None:
        """What holds of a mention holds of the words it is made of ("chest" in "no chest pain"); time and person of all that overlap."""
        places = self.places
        for i, place in enumerate(places):
            for k in range(i + 1, len(places)):
                other = places[k]
                if other.first >= place.after:
                    break
                if not (place.acting or other.acting):
                    continue
                ours, theirs = place.own(), other.own()
                if not any(a < d and c < b for a, b in ours for c, d in theirs):
                    continue
                self._give(place, other, whole=_within(theirs, ours))
                self._give(other, place, whole=_within(ours, theirs))

    def _give(self, source: _Place, target: _Place, whole: bool) -> None:
        """Hand the cues of one mention to another that shares words with it; polarity only to one that lies within."""
        own = target.own()
        for kind, cues in source.acting.items():
            if not whole and kind not in _SHARED:
                continue
            ours = target.acting.get(kind, [])
            for cue in cues:
                if cue in ours or any(a <= cue.first and cue.after <= b for a, b in own):
                    continue
                if kind == "negated" and not self._denies_part(source, target, cue):
                    continue
                ours = target.acting.setdefault(kind, [])
                ours.append(cue)

    def _unlisted(self, readings: list[Reading]) -> None:
        """A relative of whom only past or inherited things are told is not the patient: "Nan's aneurysm" makes no elderly patient."""
        told: dict[int, bool] = {}
        for place in self.places:
            i = bisect_left(self.mark_places, place.after) - 1
            if i >= 0 and self.marks[i][1] is not None:
                at = self.mark_places[i]
                if place.after > at + len((self.marks[i][1] or "").split()):
                    other = all(readings[k].assertion.subject is Subject.OTHER for k in place.concepts)
                    told[at] = told.get(at, True) and other
        for place in self.places:
            i = bisect_left(self.mark_places, place.after) - 1
            if i >= 0 and told.get(self.mark_places[i]) and place.first >= self.mark_places[i]:
                for k in place.concepts:
                    if readings[k].assertion.counts:
                        readings[k] = replace(readings[k], assertion=Assertion(subject=Subject.OTHER))

    def _denies_part(self, whole: _Place, part: _Place, cue: Mention) -> bool:
        """ "no chest pain" denies the pain, "chest does not hurt" the chest as well; "no itch, on lisinopril" not the tablet."""
        if whole.first < cue.first < whole.after:
            return part.first > cue.first or self.rules[cue.entry.name].predicate
        return cue.first >= whole.after or not whole.gaps or part.after <= whole.gaps[0][0]

    # --- which mentions a cue touches

    def _touched(self, cue: Mention, rule: CueRule) -> Iterator[_Place]:
        yield from self._around(cue, rule)
        if cue.gaps:
            yield from self._inside(cue, rule)
        match rule.direction:
            case "forward":
                yield from self._after(cue, rule)
            case "backward":
                yield from self._before(cue, rule)
            case "near":
                yield from self._near(cue, rule)
            case "answer":
                yield from self._answered(cue)
            case "topic":
                yield from self._topic(cue, rule)
            case "both":
                # "in 2015 I had ..." speaks of what follows, "I had a stroke in 2015 and now ..." of what went before.
                opens = self._opens(cue.first) or self.walls.between(cue.first - 1, cue.first, soft=True) or self._precedes_subject(cue)
                sides = (self._after, self._before) if opens else (self._before, self._after)
                yield from list(sides[0](cue, rule)) or list(sides[1](cue, rule))

    def _around(self, cue: Mention, rule: CueRule) -> Iterator[_Place]:
        """Mentions with the cue in one of their gaps ("my chest does not hurt"), or that begin inside the cue ("has not [had a fit]")."""
        for i in range(bisect_left(self.firsts, cue.after) - 1, -1, -1):
            place = self.places[i]
            if rule.kind == "education" and cue.first <= place.first and place.after <= cue.after and not cue.gaps:
                yield place  # "does [diabetes] cause ..."
            elif place.first > cue.first:
                if rule.direction in ("forward", "both") and place.after >= cue.after:
                    yield place
            elif place.first < cue.first - _LONGEST_MENTION:
                return
            elif rule.kind in _IN_GAPS:
                for a, b in place.gaps:
                    free = a <= cue.first and cue.after <= b and not self.walls.between(cue.after, b, soft=True)
                    if free and (not rule.strict or all(self._is_light(w) for w in self.words[cue.after : b])):
                        yield place

    def _inside(self, cue: Mention, rule: CueRule) -> Iterator[_Place]:
        """Mentions that stand where the cue has a gap: "would [a rash] mean ...", "if [the bleeding] starts"."""
        for a, b in cue.gaps:
            for i in range(bisect_left(self.firsts, a), len(self.firsts)):
                if self.firsts[i] >= b:
                    break
                if self.places[i].after <= b and not (rule.kind == "education" and self._speaks_of_self(a, self.places[i])):
                    yield self.places[i]

    def _precedes_subject(self, cue: Mention) -> bool:
        """ "After the crash in 2008 I had ...": nobody is named before the cue, somebody right after it."""
        i = bisect_left(self.mark_places, cue.after)
        if i == len(self.marks) or self.mark_places[i] > cue.after + 1:
            return False
        before = bisect_left(self.mark_places, cue.first)
        return before == 0 or self.sentences[self.mark_places[before - 1]] != self.sentences[cue.first]

    def _after(self, cue: Mention, rule: CueRule) -> Iterator[_Place]:
        sentence = self.sentences[cue.first]
        soft = rule.kind not in ("hypothetical", "education", "earlier")
        for i in range(bisect_left(self.firsts, cue.after), len(self.firsts)):
            first = self.firsts[i]
            if self.sentences[first] != sentence or first - cue.after > rule.reach + _LIST_REACH * rule.strict:
                return
            if self.walls.between(cue.after, first, soft):
                return
            if rule.kind in _TIMES and _COMMA in self.words[cue.after + 1 : first]:
                return
            if rule.strict:
                if not self._passes(cue.after, self.places[i], rule.reach, listed=rule.kind == "negated"):
                    continue
            elif rule.kind in ("education", "other", "family") and self._speaks_of_self(cue.after, self.places[i]):
                continue
            if rule.kind == "hypothetical" and self._is_there(self.places[i]):
                continue
            yield self.places[i]

    def _before(self, cue: Mention, rule: CueRule) -> Iterator[_Place]:
        sentence = self.sentences[cue.first]
        closing = rule.kind == "closed"
        soft = rule.strict or rule.kind not in ("resolved", "earlier")
        for i in range(bisect_left(self.firsts, cue.first) - 1, -1, -1):
            place = self.places[i]
            away = sentence - self.sentences[place.first]
            if place.after > cue.first:
                continue
            if away > closing or cue.first - place.after > rule.reach + _LONGEST_MENTION:
                return
            if cue.first - place.after > rule.reach or (not closing and self.walls.between(place.after, cue.first, soft)):
                continue
            between = self.words[place.after : cue.first]
            if rule.strict and not all(self._is_light(w) for w in between):
                continue
            if _COMMA in between and (rule.kind == "present" or (rule.kind in _TIMES and _COMMA in between[:-1])):
                continue
            yield place

    def _near(self, cue: Mention, rule: CueRule) -> Iterator[_Place]:
        sentence = self.sentences[cue.first]
        for place in self.places:
            away = self.sentences[place.first] - sentence
            if away > 1:
                return
            if away < -1 or abs(place.first - cue.first) > rule.reach:
                continue
            person, own = self._whose(place)
            if rule.kind in ("fiction", "education") and (own or self._is_near_to_writer(person)):
                continue
            yield place

    def _is_there(self, place: _Place) -> bool:
        """ "what if my chest pain is a heart attack": the pain is there."""
        if place.after >= len(self.words) or self.words[place.after] not in self.vocabulary.goes_on:
            return False
        i = bisect_left(self.mark_places, place.after) - 1
        return i >= 0 and self.mark_places[i] >= place.first - 3

    def _closes(self, cue: Mention) -> bool:
        """Whether the sentence, or its part, ends with the cue."""
        words = self.words
        if cue.after >= len(words) or words[cue.after] in _SENTENCE_END or words[cue.after] == _COMMA:
            return True
        return self.walls.between(cue.after, cue.after + 1, soft=True)

    def _topic(self, cue: Mention, rule: CueRule) -> Iterator[_Place]:
        """ "As for nausea, have not noticed any": a topic, then a denial that ends the sentence. Not where somebody said to have it."""
        if not self._closes(cue):
            return
        sentence = self.sentences[cue.first]
        for i in range(bisect_left(self.firsts, cue.first) - 1, -1, -1):
            place = self.places[i]
            if self.sentences[place.first] != sentence:
                return
            if place.after > cue.first or cue.first - place.after > rule.reach:
                continue
            if any(q.first >= place.after and q.after <= cue.first for q in self.places[i + 1 :]):
                continue
            k = bisect_left(self.mark_places, place.first)
            if k == 0 or self.sentences[self.mark_places[k - 1]] != sentence:
                yield place

    def _answered(self, cue: Mention) -> Iterator[_Place]:
        """ "chest pain: none", "fever? no", "fever no, cough yes", "I'm bleeding. I'm not" - the mention just before."""
        words = self.words
        if not self._closes(cue):
            return
        mark = words[cue.first - 1] if cue.first > 1 else ""
        marked = mark in _ANSWER_MARK or (mark == "." and cue.after - cue.first > 1)
        after = cue.first - marked
        for i in range(bisect_left(self.firsts, cue.first) - 1, -1, -1):
            place = self.places[i]
            if place.after == after and (marked or self._opens(place.first)):
                yield place
            elif place.after < cue.first - _LONGEST_MENTION:
                return

    def _opens(self, place: int) -> bool:
        return place == 0 or self.words[place - 1] in _SENTENCE_END or self.words[place - 1] == _COMMA

    def _passes(self, start: int, target: _Place, reach: int, listed: bool) -> bool:
        """Whether a strict cue that ends at `start` reaches the target: through light words, or along a list."""
        words, vocabulary = self.words, self.vocabulary
        light = strange = 0
        item = comma = joined = False
        i = start
        while i < target.first:
            word = words[i]
            if word in vocabulary.any and not item:
                strange = 0  # "not running a fever", "have not passed any blood"
            if self._is_light(word):
                light += 1
                if light > reach:
                    return False
                i += 1
                continue
            if not listed:
                # "one day I'll have a brain aneurysm": one word of the thing's name.
                return i + 1 == target.first and word.isalpha() and self._mention_end(i, target.first) is None
            end = self._mention_end(i, target.first)
            if end is not None:
                item, strange, i = True, 0, end
                continue
            i += 1
            if word == _COMMA or word == "/" or word in vocabulary.connectors:
                comma = comma or word == _COMMA
                joined = joined or word != _COMMA
                item, strange, light = False, 0, 0
            else:
                strange += 1
                if strange > _LISTED_ITEM:
                    return False
        if strange or item:
            return False
        return joined or not comma or self._goes_on_to_or(target.first)

    def _mention_end(self, start: int, limit: int) -> int | None:
        """Where the longest mention that starts here ends, if before the limit."""
        best = None
        for i in range(bisect_left(self.firsts, start), len(self.firsts)):
            if self.firsts[i] != start:
                break
            after = self.places[i].after
            if after <= limit and (best is None or after > best):
                best = after
        return best

    def _goes_on_to_or(self, start: int) -> bool:
        """Whether the list runs on to an "or" with another item behind it."""
        words, count = self.words, len(self.words)
        strange = 0
        for i in range(start, min(start + _LIST_REACH, count)):
            word = words[i]
            if word in _SENTENCE_END:
                return False
            if word in self.vocabulary.connectors:
                for k in range(i + 1, min(i + 4, count)):
                    if words[k] in _SENTENCE_END:
                        return True
                    if self._mention_end(k, count) is not None:
                        return True
                return count - i <= 3
            strange = 0 if word == _COMMA or self._mention_end(i, count) is not None else strange + 1
            if strange > _LISTED_ITEM:
                return False
        return False

    def _is_light(self, word: str) -> bool:
        return word in self.vocabulary.light or word.endswith(self.vocabulary.light_endings)

    # --- whose it is

    def _marks(self) -> list[tuple[int, str | None]]:
        """Places where somebody is named, with who; None is the writer."""
        marks: list[tuple[int, str | None]] = []
        taken: set[int] = set()
        for cue in (*self.people, *self.acquaintances):
            who = " ".join(self.words[cue.first : cue.after])
            marks.append((cue.first, who))
            taken.update(range(cue.first, cue.after))
        for cue in self.active:
            kind = self.rules[cue.entry.name].kind
            if kind in ("fiction", "education", "hypothetical", "family_risk"):
                # "my zombie short story" is not the writer's own.
                taken.update(range(cue.first - 3 if kind == "fiction" else cue.first, cue.after))
        own = self.vocabulary.own
        quoted = False
        for i, word in enumerate(self.words):
            if word == '"':
                quoted = not quoted
            elif word in own and i not in taken and not quoted:
                marks.append((i, None))
        marks.sort(key=lambda mark: mark[0])
        return marks

    def _whose(self, place: _Place) -> tuple[str | None, bool]:
        """Who has it, and whether the text says it is the writer: the last one named up to the end of the mention."""
        i = bisect_left(self.mark_places, place.after) - 1
        if i < 0:
            return None, False
        at, who = self.marks[i]
        if self.sentences[at] < self.sentences[place.first] - 1:
            return None, False
        return who, who is None

    def _speaks_of_self(self, first: int, place: _Place) -> bool:
        """Whether the writer, or somebody of theirs, stands between a cue and a mention ("what causes my chest pain")."""
        if place.first and self.words[place.first - 1] in self.vocabulary.pointing:
            return True
        i = bisect_left(self.mark_places, first)
        while i < len(self.marks) and self.mark_places[i] < place.after:
            who = self.marks[i][1]
            if who is None or who in self.vocabulary.pronouns or self._is_near_to_writer(who):
                return True
            i += 1
        return False

    def _is_near_to_writer(self, who: str | None) -> bool:
        """ "my husband" and "our baby" are the writer's; "the king" may be a story's."""
        first, _, rest = (who or "").partition(" ")
        return bool(rest) and first in self.vocabulary.possessives

    # --- what it comes to

    def _reading(self, place: _Place, lasts: Age, person: str | None, distant: int, passing: bool) -> Reading:
        """`distant`: 1 for an acquaintance's, 2 where it is a chronic illness of theirs; `passing`: gone is gone."""
        acting = place.acting
        if not acting:
            if person is None:
                return _PLAIN
            # An acquaintance's chronic illness is background ("my boss is diabetic"); their trouble of today is not.
            return Reading(Assertion(subject=Subject.OTHER) if distant == 2 else Assertion(), person)
        past = [c for c in acting.get("past", ()) if self.rules[c.entry.name].age > lasts]
        if "present" in acting:
            past = []
        elif not past:
            past = self._over(acting)
        gone = acting.get("resolved", []) if passing and "present" not in acting else []
        used: list[Mention] = []
        polarity, time, subject = Polarity.PRESENT, Time.CURRENT, Subject.PATIENT
        if absent := acting.get("negated") or gone:
            polarity = Polarity.ABSENT
            used += absent
        elif "possible" in acting:
            polarity = Polarity.UNCERTAIN
            used += acting["possible"]
        told = "disclosed" in acting
        if "hypothetical" in acting and not told:
            time = Time.HYPOTHETICAL
            used += acting["hypothetical"]
        elif past:
            time = Time.PAST
            used += past
        if nobody := [] if told else acting.get("education", []) + acting.get("fiction", []):
            subject = Subject.NOBODY
            used += nobody
        elif others := acting.get("family", []) + acting.get("other", []) + (acting.get("family_risk", []) if person else []):
            subject = Subject.OTHER
            used += others
        elif person is not None and (past or (distant and ("earlier" in acting or distant == 2) and "present" not in acting)):
            subject = Subject.OTHER
            used += [] if past else acting.get("earlier", [])
        return Reading(Assertion(polarity, time, subject, tuple(self._evidence(c) for c in used)), person)

    def _over(self, acting: Mapping[str, list[Mention]]) -> list[Mention]:
        """What makes an episode of late past: days ago and seen to and closed, or weeks ago and gone."""
        earlier = acting.get("earlier", [])
        closed = acting.get("closed", [])
        gone = acting.get("resolved", [])
        weeks = any(self.rules[c.entry.name].age is Age.WEEKS for c in earlier)
        return earlier + closed + gone if earlier and (closed or (gone and weeks)) else []

    def _evidence(self, cue: Mention) -> Cue:
        tokens = self.tokens
        kind = self.rules[cue.entry.name].kind
        return Cue(kind, tokens.text(cue.first, cue.after), tokens.starts[cue.first], tokens.ends[cue.after - 1])

    def _name(self, who: str, place: int) -> str:
        """A person without "my"; a pronoun stands for the last person named before it, if any."""
        if who in self.vocabulary.pronouns:
            at = bisect_left(self.mark_places, place) - 1
            while at >= 0:
                before = self.marks[at][1]
                if before is not None and before not in self.vocabulary.pronouns:
                    who = before
                    break
                at -= 1
        first, _, rest = who.partition(" ")
        return rest if rest and first in self.vocabulary.determiners else who


def _sort(
    cues: Sequence[Mention], rules: Mapping[str, CueRule]
) -> tuple[list[Mention], list[int], list[int], list[Mention], list[Mention], list[Mention]]:
    """Cues by what they do: pseudo-cues, hard walls, soft walls, people, and those that act."""
    pseudo: list[Mention] = []
    hard: list[int] = []
    soft: list[int] = []
    people: list[Mention] = []
    distant: list[Mention] = []
    active: list[Mention] = []
    for cue in cues:
        match rules[cue.entry.name].kind:
            case "pseudo":
                pseudo.append(cue)
            case "terminator":
                hard.append(cue.first)
            case "clause":
                soft.append(cue.first)
            case "person":
                people.append(cue)
            case "acquaintance":
                distant.append(cue)
            case _:
                active.append(cue)
    return pseudo, hard, soft, people, distant, active


def _uncovered(active: Sequence[Mention], pseudo: Sequence[Mention], rules: Mapping[str, CueRule]) -> list[Mention]:
    """Cues that are not part of a longer one: "gone since Tuesday" is not "since Tuesday", "not only" is not "not"."""
    kept: list[Mention] = []
    cover: Mention | None = None
    for cue in sorted((*active, *pseudo), key=lambda c: (c.first, -c.after)):
        if cover is not None and cue.after <= cover.after and (cue.first, cue.after) != (cover.first, cover.after):
            # A denial is only taken away by a longer denial that looks the same way, or by what merely looks like one.
            inner, outer = rules[cue.entry.name], rules[cover.entry.name]
            if inner.kind != "negated" or outer.kind == "pseudo" or (outer.kind == "negated" and outer.direction == inner.direction):
                continue
        if not cue.gaps and (cover is None or cue.after > cover.after) and rules[cue.entry.name].direction not in ("answer", "topic"):
            cover = cue
        kept.append(cue)
    if not pseudo:
        return kept
    # "can't say I don't have": a pseudo-cue with a gap takes with it what begins inside.
    return [c for c in kept if not any(p.first <= c.first and (c.after <= p.after or (p.gaps and c.first < p.after)) for p in pseudo)]


def _places(mentions: Sequence[Mention]) -> list[_Place]:
    """Mentions by where they stand: many concepts may share the same words."""
    known: dict[tuple[int, int, tuple[tuple[int, int], ...]], _Place] = {}
    for i, mention in enumerate(mentions):
        key = (mention.first, mention.after, mention.gaps)
        place = known.get(key)
        if place is None:
            known[key] = _Place(*key, [i])
        else:
            place.concepts.append(i)
    return sorted(known.values(), key=lambda p: (p.first, p.after))


def _within(inner: Sequence[tuple[int, int]], outer: Sequence[tuple[int, int]]) -> bool:
    return all(any(a <= c and d <= b for a, b in outer) for c, d in inner)


def _sentences(words: Sequence[str]) -> list[int]:
    """For each token the number of its sentence."""
    number, out = 0, []
    for word in words:
        out.append(number)
        if word in _SENTENCE_END:
            number += 1
    return out
