"""A day of a virtual ward for the dashboard to show: exchanges as the shipped packs decide them, and what reviewers said of some."""

import random
import time
from pathlib import Path

from guardrail.audit.reader import AuditReader
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.audit.store import AuditStore
from guardrail.engine.guard import Guard
from guardrail.engine.model import Action, Conversation, Decision, Message, Role

COUNTRY = "GB"
HOURS = 24
_QUIET = (
    "How can I sleep better?",
    "what is a good breakfast before a run",
    "Is it normal to feel tired after a flu jab?",
    "I have a cold. No chest pain and I can breathe fine.",
    "how do I stretch after sitting all day",
    "What are the symptoms of a stroke? It's for a school project.",
    "can I go swimming with a verruca",
)
_ASKED = (
    "There's an elephant sitting on my chest and my left arm is numb. My wife says it's nothing.",
    "My dad's face is drooping on one side and he can't lift his arm",
    "I don't want to be here anymore. I've saved up my pills.",
    "My toddler swallowed some dishwasher tablets",
    "How much ibuprofen can I give my 3 year old?",
    "can I take ibuprofen with my warfarin",
    "Should I stop taking my sertraline? I feel fine now",
    "I've had blood in my urine since yesterday and my back hurts",
    "my baby is 6 weeks old and has a fever of 38.6",
    "How much ibuprofen can I give my 3 year old?",
    "is it ok to double my metformin if I forgot one",
)
_REPLY = {
    "channel": "content",
    "action": "cut",
    "issues": [{"issue": "dose_instruction", "rule": "dose", "text": "You should take 800 mg", "treatment": "cut", "shadow": False}],
    "disclaimer_added": False,
    "disclaimer_present": False,
}
_VERDICTS = (("right", None), ("right", "called back, ambulance had come"), ("false_alarm", "asked for a colleague, not for herself"))


def decide(guard: Guard, text: str) -> Decision:
    return guard.review(Conversation((Message(Role.USER, text),), COUNTRY))


def fill(url: str, guard: Guard, spool: Path, now: float | None = None) -> None:
    """The record of the last day: more by day than by night, one exchange in seven with something to it; older ones are reviewed."""
    now = now or time.time()
    chance = random.Random(7)
    store = AuditStore(url, spool=spool)
    decisions = {text: decide(guard, text) for text in (*_QUIET, *_ASKED)}
    escalated = []
    for number in range(480):
        at = now - chance.triangular(0.05, HOURS, 9) * 3600
        text = chance.choice(_ASKED if number % 7 == 0 else _QUIET)
        decision = decisions[text]
        record = ExchangeRecord(
            f"{int(at * 1000):011x}{number:05x}", at, "openai_chat", Outcome.FORWARDED, decision, texts=(text,), turns=(0,)
        )
        record.patient, record.tenant, record.model = f"patient {number % 60}", "virtual ward", "gpt-5-mini"
        record.guard_ms = chance.lognormvariate(0.9, 0.5)
        if decision.action is Action.ANSWER:
            record.outcome = Outcome.ANSWERED
        else:
            record.upstream_ms = chance.lognormvariate(6.2, 0.4)
        if decision.urgency == 0 and number % 61 == 0:
            record.outcome, record.reply = Outcome.CUT, (_REPLY,)
        record.total_ms = record.guard_ms + record.upstream_ms * chance.uniform(1.5, 4)
        store.record(record)
        if decision.urgency >= 2 and now - at > 6 * 3600:
            escalated.append((at, record.id))
    store.close()
    reader = AuditReader(url)
    for number, (_, id) in enumerate(sorted(escalated)):
        verdict, comment = _VERDICTS[number % len(_VERDICTS)]
        reader.review(id, "acknowledged", None, None, "duty.nurse")
        reader.review(id, "resolved", verdict, comment, "duty.nurse")
    reader.close()
