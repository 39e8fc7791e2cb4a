"""Records to keep in tests."""

from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.engine.model import Action, Assertion, Decision, Destination, Disposition, Finding, RuleHit, Topic, Urgency


def exchange(number: int, urgency: Urgency = Urgency.EMERGENCY, text: str = "my chest is tight") -> ExchangeRecord:
    finding = Finding("chest_pain", 0, 3, 17, "chest is tight", Assertion())
    destination = Destination.AMBULANCE if urgency is Urgency.EMERGENCY else Destination.NONE
    hit = RuleHit("acs", "Chest pain", "cardiac", Disposition(urgency, destination), frozenset({Topic.ACUTE}), (finding,))
    decision = Decision(
        hit.disposition, frozenset({Topic.ACUTE}), Action.ANSWER, (hit,), (finding,), "Call.", "rev", "en", "GB"
    )
    return ExchangeRecord(
        f"id{number:06}", 1_000.0 + number, "chat_completions", Outcome.ANSWERED, decision, patient="patient-7", texts=(text,)
    )
