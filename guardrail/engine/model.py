"""The vocabulary of the engine: what goes in, what is found, what is decided.

Frozen values only; no behaviour beyond order and small look-ups. What is made for every few words of a text is a `Struct`,
which costs a tenth of a frozen dataclass to make, and none is looked at by the collector (`gc=False`): what is frozen and holds only
such things is in no circle. Spans are half-open character offsets into the text of the turn as
the caller sent it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Literal

from msgspec import Struct


class Urgency(IntEnum):
    """How soon; the order is the meaning."""

    NONE = 0
    ROUTINE = 1
    URGENT = 2
    EMERGENCY = 3

    @property
    def word(self) -> str:
        return self.name.lower()


class Destination(StrEnum):
    """Where to go. Listed from most to least serious: that order breaks ties of urgency."""

    AMBULANCE = "ambulance"
    EMERGENCY_DEPARTMENT = "emergency_department"
    CRISIS_LINE = "crisis_line"
    POISON_CENTRE = "poison_centre"
    SPECIALIST_SERVICE = "specialist_service"
    SAME_DAY_CLINICIAN = "same_day_clinician"
    PRESCRIBER = "prescriber"
    PHARMACIST = "pharmacist"
    CLINICIAN = "clinician"
    NONE = "none"


DESTINATION_RANK: Mapping[Destination, int] = {d: -i for i, d in enumerate(Destination)}


class Topic(StrEnum):
    ACUTE = "acute"
    CRISIS = "crisis"
    MEDICATION = "medication"
    IMAGE = "image"
    PERSONAL_HISTORY = "personal_history"


class Action(StrEnum):
    """What the proxy does; `answer` means the guard replies itself and the model is not called."""

    FORWARD = "forward"
    ANNOTATE = "annotate"
    ANSWER = "answer"


class Maturity(StrEnum):
    """Draft rules do not run; shadow rules are recorded and never act; retired ones are kept for their id."""

    DRAFT = "draft"
    SHADOW = "shadow"
    LIVE = "live"
    RETIRED = "retired"


class Polarity(StrEnum):
    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"


class Time(StrEnum):
    CURRENT = "current"
    PAST = "past"
    HYPOTHETICAL = "hypothetical"


class Subject(StrEnum):
    """`patient` is whoever the question is about, the writer's baby included; `nobody` is education and fiction."""

    PATIENT = "patient"
    OTHER = "other"
    NOBODY = "nobody"


class Role(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `unread` names the kinds of parts whose content could not be read (image, audio, file)."""

    role: Role
    text: str
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said, by whom, in order.

    `history_not_visible` marks that the provider holds earlier turns which the guard has not seen.
    """

    messages: tuple[Message, ...]
    country: str | None = None
    language: str | None = None
    history_not_visible: bool = False


class Cue(Struct, frozen=True, gc=False):
    """Words that changed what a mention means, kept as evidence."""

    kind: str
    text: str
    start: int
    end: int


class Assertion(Struct, frozen=True, gc=False):
    """Is it there, now, and whose. The default is what counts: present, current, the patient's."""

    polarity: Polarity = Polarity.PRESENT
    time: Time = Time.CURRENT
    subject: Subject = Subject.PATIENT
    cues: tuple[Cue, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether a rule may act on it; when unsure, the mention counts."""
        return self.polarity is not Polarity.ABSENT and self.time is Time.CURRENT and self.subject is Subject.PATIENT


class Quantity(Struct, frozen=True, gc=False):
    """A number in the base unit of its kind (`quantities.UNITS`): temperature in Celsius, age in months ..."""

    kind: str
    value: float
    unit: str


class Finding(Struct, frozen=True, gc=False):
    """A concept where it stands, with its assertion; `person` names whose it is when not the writer's own."""

    concept: str
    turn: int
    start: int
    end: int
    text: str
    assertion: Assertion = Assertion()
    quantity: Quantity | None = None
    person: str | None = None


@dataclass(frozen=True, slots=True)
class Disposition:
    urgency: Urgency = Urgency.NONE
    destination: Destination = Destination.NONE

    @property
    def seriousness(self) -> tuple[int, int]:
        return (self.urgency, DESTINATION_RANK[self.destination])


Tier = Literal["E1", "E2", "X1", "C1", "C2", "S1", "U1", "M1", "M0", "INFO"]

TIERS: Mapping[Tier, Disposition] = {
    "E1": Disposition(Urgency.EMERGENCY, Destination.AMBULANCE),
    "E2": Disposition(Urgency.EMERGENCY, Destination.EMERGENCY_DEPARTMENT),
    "X1": Disposition(Urgency.EMERGENCY, Destination.POISON_CENTRE),
    "C1": Disposition(Urgency.EMERGENCY, Destination.CRISIS_LINE),
    "C2": Disposition(Urgency.URGENT, Destination.CRISIS_LINE),
    "S1": Disposition(Urgency.URGENT, Destination.SPECIALIST_SERVICE),
    "U1": Disposition(Urgency.URGENT, Destination.SAME_DAY_CLINICIAN),
    "M1": Disposition(Urgency.URGENT, Destination.PRESCRIBER),
    "M0": Disposition(Urgency.ROUTINE, Destination.PHARMACIST),
    "INFO": Disposition(Urgency.ROUTINE, Destination.NONE),
}


class RuleHit(Struct, frozen=True, gc=False):
    """A rule that held, with the findings that made it hold. Shadow hits are recorded and never act."""

    rule: str
    title: str
    pack: str
    disposition: Disposition
    topics: frozenset[Topic]
    evidence: tuple[Finding, ...]
    sources: tuple[str, ...] = ()
    answer: str | None = None
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a conversation under one pack revision.

    `hits` are sorted most serious first. `answer` is what the patient reads when `action` is answer, and the notice
    that goes with the reply when it is annotate. `reminder` says an earlier escalation still stands though the
    patient has moved on.
    """

    disposition: Disposition
    topics: frozenset[Topic]
    action: Action
    hits: tuple[RuleHit, ...]
    findings: tuple[Finding, ...]
    answer: str | None
    revision: str
    language: str
    country: str | None
    reminder: bool = False
    not_evaluated: tuple[str, ...] = ()
    shadow_hits: tuple[RuleHit, ...] = field(default=())

    @property
    def urgency(self) -> Urgency:
        return self.disposition.urgency

    @property
    def destination(self) -> Destination:
        return self.disposition.destination
