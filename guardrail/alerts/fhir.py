"""An escalation for a clinical system, in FHIR R4: a DetectedIssue, what was found, and a Communication about it, who was told.

Both go in one transaction, created only where the server has none of this exchange yet, so that a repeated attempt changes nothing.
The issue is `preliminary`: no clinician has looked at it. A test carries the tag HTEST, test health data.
"""

import html
import uuid
from typing import Any, Final

from guardrail.alerts.alert import Alert, Escalation
from guardrail.alerts.message import Post, json_post
from guardrail.alerts.settings import FhirReceiver

EXCHANGE: Final = "urn:guardrail:exchange"
RULE: Final = "urn:guardrail:rule"
PSEUDONYM: Final = "urn:guardrail:patient"
_SPACE = uuid.UUID("6f0f6a0e-6f0b-5d38-9f0a-4f1f3f1e9d51")  # any fixed one: resources of one exchange get the same ids in every attempt
_SEVERITY: Final = {"emergency": "high", "urgent": "moderate"}
_PRIORITY: Final = {"emergency": "stat", "urgent": "urgent"}
_TEST: Final = {"tag": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST", "display": "test health data"}]}
_GUARD: Final = {"type": "Device", "display": "Guardrail"}


def fhir(receiver: FhirReceiver, alert: Alert, id: str, now: float) -> Post:
    """POST of the transaction to the server's base."""
    headers = {name: value.get_secret_value() for name, value in receiver.headers.items()} | {"accept": "application/fhir+json"}
    return json_post(receiver.url.rstrip("/"), transaction(receiver, alert), headers, "application/fhir+json")


def transaction(receiver: FhirReceiver, alert: Alert) -> dict[str, Any]:
    """The Bundle. Raises ValueError where the alert is not an escalation; settings see to it that none such comes here."""
    told = alert.escalation
    if told is None:
        raise ValueError(f"{alert.kind} is not for a FHIR server")
    issue = f"urn:uuid:{uuid.uuid5(_SPACE, 'DetectedIssue ' + told.exchange)}"
    communication = f"urn:uuid:{uuid.uuid5(_SPACE, 'Communication ' + told.exchange)}"
    entries = [(issue, _detected_issue(receiver, alert, told)), (communication, _communication(receiver, alert, told, issue))]
    return {"resourceType": "Bundle", "type": "transaction", "entry": [_entry(url, resource, told.exchange) for url, resource in entries]}


def _entry(url: str, resource: dict[str, Any], exchange: str) -> dict[str, Any]:
    kind = resource["resourceType"]
    return {
        "fullUrl": url,
        "resource": resource,
        "request": {"method": "POST", "url": kind, "ifNoneExist": f"identifier={EXCHANGE}|{exchange}"},
    }


def _detected_issue(receiver: FhirReceiver, alert: Alert, told: Escalation) -> dict[str, Any]:
    resource = _resource("DetectedIssue", alert, told) | {
        "status": "preliminary",
        "code": _rules(told)[0] if told.rules else {"text": alert.title},
        "severity": _SEVERITY.get(told.urgency, "low"),
        "identifiedDateTime": alert.time,
        "author": _GUARD,
        "detail": _text(alert),
        "mitigation": [{"action": {"text": f"The patient was sent to: {told.destination.replace('_', ' ')}"}, "date": alert.time}],
    }
    if told.rules:
        resource["evidence"] = [{"code": _rules(told)}]
    if alert.link:
        resource["reference"] = alert.link
    patient = _patient(receiver, told)
    return resource | ({"patient": patient} if patient else {})


def _communication(receiver: FhirReceiver, alert: Alert, told: Escalation, issue: str) -> dict[str, Any]:
    category = {"system": "http://terminology.hl7.org/CodeSystem/communication-category", "code": "alert", "display": "Alert"}
    resource = _resource("Communication", alert, told) | {
        "status": "completed",
        "category": [{"coding": [category]}],
        "priority": _PRIORITY.get(told.urgency, "routine"),
        "topic": {"text": alert.title},
        "about": [{"reference": issue, "type": "DetectedIssue"}],
        "sent": alert.time,
        "sender": _GUARD,
        "payload": [{"contentString": _text(alert)}],
    }
    if told.rules:
        resource["reasonCode"] = _rules(told)
    if receiver.recipient:
        resource["recipient"] = [{"reference": receiver.recipient}]
    patient = _patient(receiver, told)
    return resource | ({"subject": patient} if patient else {})


def _resource(kind: str, alert: Alert, told: Escalation) -> dict[str, Any]:
    """What both have. The narrative is what a person reads where the system does not know the resource."""
    narrative = html.escape(_text(alert)).replace("\n", "<br/>")
    return {
        "resourceType": kind,
        **({"meta": _TEST} if alert.kind == "test" else {}),
        "text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{narrative}</div>'},
        "identifier": [{"system": EXCHANGE, "value": told.exchange}],
    }


def _rules(told: Escalation) -> list[dict[str, Any]]:
    return [{"coding": [{"system": RULE, "code": r.id, "display": r.title}], "text": r.title} for r in told.rules]


def _patient(receiver: FhirReceiver, told: Escalation) -> dict[str, Any] | None:
    """A logical reference: by the app's id where a setting names its system, otherwise by pseudonym."""
    if receiver.patient_system and told.patient_id:
        system, value = receiver.patient_system, told.patient_id
    elif told.patient:
        system, value = PSEUDONYM, told.patient
    else:
        return None
    return {"type": "Patient", "identifier": {"system": system, "value": value}}


def _text(alert: Alert) -> str:
    lines = [alert.title, *(f"{label}: {value}" for label, value in alert.lines().items())]
    if alert.escalation is not None and alert.escalation.words:
        lines += ["Words that were evidence:", *alert.escalation.words]
    return "\n".join(lines)
