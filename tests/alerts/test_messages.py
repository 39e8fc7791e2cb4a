"""What each kind of receiver is sent."""

import base64
import hmac
import re
import socket
from email.message import EmailMessage
from typing import Any

import orjson
import pytest

from guardrail.alerts.alert import Alert
from guardrail.alerts.fhir import fhir
from guardrail.alerts.mail import mail
from guardrail.alerts.pagerduty import pagerduty
from guardrail.alerts.settings import FhirReceiver, MailReceiver, PagerDutyReceiver, SlackReceiver, TeamsReceiver, WebhookReceiver
from guardrail.alerts.slack import slack
from guardrail.alerts.teams import teams
from guardrail.alerts.webhook import webhook
from tests.alerts.receiving import SECRET, alert

NOW = 1_700_000_123.9
OLD = "whsec_" + base64.b64encode(b"the key that was in force before").decode()
FACTS = {f"Fact {n}": "y" * 5000 for n in range(20)}
LONG = Alert(key="silence:s", rule="s", kind="silence", severity="warning", at=NOW, title="x" * 5000, facts=FACTS)


def hook(**more: Any) -> WebhookReceiver:
    return WebhookReceiver.model_validate({"kind": "webhook", "url": "https://a.example/x", "secret": SECRET, **more})


def test_a_webhook_holds_the_alert_and_is_signed() -> None:
    post = webhook(hook(headers={"Authorization": "Bearer t", "webhook-id": "forged"}), alert(), "d1", NOW)

    content = orjson.loads(post.body)
    assert (content["type"], content["timestamp"]) == ("guardrail.escalation", "2023-11-14T22:13:20Z")
    assert content["data"]["escalation"]["rules"] == [{"id": "acs", "title": "Chest pain <&> breathlessness"}]
    assert "patient_id" not in content["data"]["escalation"]
    assert (post.headers["webhook-id"], post.headers["webhook-timestamp"]) == ("d1", "1700000123")
    assert post.headers["Authorization"] == "Bearer t"
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.digest(key, b"d1.1700000123." + post.body, "sha256")).decode()
    assert post.headers["webhook-signature"] == f"v1,{expected}"


def test_while_keys_change_both_sign() -> None:
    both = webhook(hook(previous_secret=OLD), alert(), "d1", NOW).headers["webhook-signature"].split(" ")

    assert both[0] == webhook(hook(), alert(), "d1", NOW).headers["webhook-signature"]
    assert both[1] == webhook(hook(secret=OLD), alert(), "d1", NOW).headers["webhook-signature"]


def test_slack_is_sent_escaped_text_and_a_link() -> None:
    receiver = SlackReceiver.model_validate({"kind": "slack", "url": "https://hooks.slack.example/x"})
    content = orjson.loads(slack(receiver, alert(words=("my <!channel> chest",)), "d1", NOW).body)

    header, facts, words, link = content["blocks"]
    assert header["text"] == {"type": "plain_text", "text": "Emergency, ambulance: Chest pain <&> breathlessness", "emoji": False}
    assert {"type": "mrkdwn", "text": "*Held*\nChest pain &lt;&amp;&gt; breathlessness"} in facts["fields"]
    assert words["text"] == {"type": "plain_text", "text": "my <!channel> chest", "emoji": False}
    assert link["text"]["text"] == "<https://guard.example/-/dashboard/exchanges/id1|Open the dashboard>"
    assert content["text"] == "Emergency, ambulance: Chest pain &lt;&amp;&gt; breathlessness"


def test_slack_is_not_sent_more_than_it_takes() -> None:
    receiver = SlackReceiver.model_validate({"kind": "slack", "url": "https://hooks.slack.example/x"})
    header, facts = orjson.loads(slack(receiver, LONG, "d1", NOW).body)["blocks"]

    assert len(header["text"]["text"]) == 150
    assert (len(facts["fields"]), max(len(f["text"]) for f in facts["fields"])) == (10, 2000)


def test_teams_is_sent_an_adaptive_card() -> None:
    receiver = TeamsReceiver.model_validate({"kind": "teams", "url": "https://prod.example/x"})
    content = orjson.loads(teams(receiver, alert(words=("[click](http://evil.example)",)), "d1", NOW).body)

    (attachment,) = content["attachments"]
    assert (content["type"], attachment["contentType"]) == ("message", "application/vnd.microsoft.card.adaptive")
    card = attachment["content"]
    title, facts, words = card["body"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert title["inlines"][0]["text"] == "Emergency, ambulance: Chest pain <&> breathlessness"
    assert {"title": "Held", "value": r"Chest pain \<&\> breathlessness"} in facts["facts"]
    assert (words["type"], words["inlines"][0]["text"]) == ("RichTextBlock", "[click](http://evil.example)")
    assert card["actions"] == [{"type": "Action.OpenUrl", "title": "Open", "url": "https://guard.example/-/dashboard/exchanges/id1"}]
    assert len(teams(receiver, LONG, "d1", NOW).body) < 28_000


def test_pagerduty_is_sent_an_event_whose_repeats_join() -> None:
    receiver = PagerDutyReceiver.model_validate({"kind": "pagerduty", "routing_key": "k" * 32})
    post = pagerduty(receiver, alert(), "d1", NOW)

    event = orjson.loads(post.body)
    assert post.url == "https://events.pagerduty.com/v2/enqueue"
    assert (event["routing_key"], event["event_action"], event["dedup_key"]) == ("k" * 32, "trigger", "escalation:emergencies:id1")
    payload = event["payload"]
    assert (payload["severity"], payload["source"], payload["timestamp"]) == ("critical", "clinic", "2023-11-14T22:13:20Z")
    assert payload["summary"] == "Emergency, ambulance: Chest pain <&> breathlessness"
    assert event["links"] == [{"href": "https://guard.example/-/dashboard/exchanges/id1", "text": "Dashboard"}]
    long = orjson.loads(pagerduty(receiver, LONG.model_copy(update={"key": "k" * 256}), "d1", NOW).body)
    assert (len(long["payload"]["summary"]), len(long["dedup_key"]), long["payload"]["source"]) == (1024, 32, socket.gethostname())


def test_what_is_over_resolves_its_incident_and_is_green_in_teams() -> None:
    told = {"rule": "store", "kind": "store_down", "at": NOW, "title": "The audit store is away", "severity": "error"}
    held = Alert.model_validate({"key": "store_down:" + "k" * 300, **told})
    over = held.model_copy(update={"over": True, "severity": "info", "title": "Over: the audit store is back"})
    receiver = PagerDutyReceiver.model_validate({"kind": "pagerduty", "routing_key": "k" * 32})
    events = [orjson.loads(pagerduty(receiver, one, id, NOW).body) for one, id in ((held, "d1"), (over, "d2"))]
    ward = TeamsReceiver.model_validate({"kind": "teams", "url": "https://teams.example/hook"})
    card = orjson.loads(teams(ward, over, "d2", NOW).body)["attachments"][0]["content"]

    assert [event["event_action"] for event in events] == ["trigger", "resolve"]
    assert events[0]["dedup_key"] == events[1]["dedup_key"]
    assert card["body"][0]["inlines"][0]["color"] == "good"


def letter(told: Alert) -> EmailMessage:
    receiver = MailReceiver.model_validate(
        {"kind": "mail", "host": "h", "sender": "Guardrail <guard@clinic.example>", "to": ["a@clinic.example", "b@clinic.example"]}
    )
    return mail(receiver, told, "d1")


def test_a_mail_is_plain_text_with_the_same_id_in_every_attempt() -> None:
    message = letter(alert(words=("my chest",)))

    assert message["Subject"] == "[Guardrail] Emergency, ambulance: Chest pain <&> breathlessness"
    assert (message["To"], message["Message-ID"]) == ("a@clinic.example, b@clinic.example", "<d1@clinic.example>")
    assert message["Auto-Submitted"] == "auto-generated"
    text = message.get_content()
    assert "Exchange: id1\n" in text
    assert "Words that were evidence:\n  my chest\n" in text
    assert text.endswith("https://guard.example/-/dashboard/exchanges/id1\n")


def test_a_title_cannot_add_headers_to_a_mail() -> None:
    message = letter(alert().model_copy(update={"title": "x\r\nBcc: all@evil.example"}))

    assert message["Subject"] == "[Guardrail] x Bcc: all@evil.example"
    assert message["Bcc"] is None


def resources(**more: Any) -> tuple[Any, Any]:
    """Issue and communication, validated as R4B; both resources are the same in R4."""
    pytest.importorskip("fhir.resources.R4B", reason="needs the dev extra")
    from fhir.resources.R4B.bundle import Bundle

    told = alert(words=more.pop("words", ()), patient_id=more.pop("patient_id", None))
    changes = more.pop("changes", {})
    receiver = FhirReceiver.model_validate({"kind": "fhir", "url": "https://ehr.example/r4/", **more})
    post = fhir(receiver, told.model_copy(update=changes), "d1", NOW)
    assert (post.url, post.headers["content-type"]) == ("https://ehr.example/r4", "application/fhir+json")
    bundle: Any = Bundle.model_validate_json(post.body)
    assert bundle.type == "transaction"
    for entry in bundle.entry:
        assert (entry.request.method, entry.request.url) == ("POST", entry.resource.get_resource_type())
        assert entry.request.ifNoneExist == "identifier=urn:guardrail:exchange|id1"
        for name, field in type(entry.resource).model_fields.items():  # the library knows the codes, and does not ask for them
            codes, value = (field.json_schema_extra or {}).get("enum_values"), getattr(entry.resource, name)
            assert not codes or value is None or value in codes
    assert bundle.entry[1].resource.about[0].reference == bundle.entry[0].fullUrl
    return bundle.entry[0].resource, bundle.entry[1].resource


def test_fhir_is_sent_a_detected_issue_and_a_communication_about_it() -> None:
    issue, communication = resources(recipient="CareTeam/7")

    assert (issue.get_resource_type(), communication.get_resource_type()) == ("DetectedIssue", "Communication")
    assert (issue.status, issue.severity, issue.identifiedDateTime.isoformat()) == ("preliminary", "high", "2023-11-14T22:13:20+00:00")
    assert (issue.code.coding[0].system, issue.code.coding[0].code) == ("urn:guardrail:rule", "acs")
    assert issue.evidence[0].code[0].text == "Chest pain <&> breathlessness"
    assert issue.mitigation[0].action.text == "The patient was sent to: ambulance"
    assert issue.reference == "https://guard.example/-/dashboard/exchanges/id1"
    assert (communication.status, communication.priority) == ("completed", "stat")
    assert communication.category[0].coding[0].code == "alert"
    assert communication.recipient[0].reference == "CareTeam/7"
    assert "Exchange: id1" in communication.payload[0].contentString
    assert re.search("Chest pain &lt;&amp;&gt; breathlessness<br/>", communication.text.div)
    assert issue.meta is None


def test_fhir_names_the_patient_by_pseudonym_unless_the_system_of_ids_is_given() -> None:
    issue, communication = resources(patient_id="MRN 7")
    for subject in (issue.patient, communication.subject):
        assert (subject.type, subject.identifier.system, subject.identifier.value) == ("Patient", "urn:guardrail:patient", "f00dfeed")

    issue, communication = resources(patient_id="MRN 7", patient_system="https://clinic.example/mrn")
    for subject in (issue.patient, communication.subject):
        assert (subject.identifier.system, subject.identifier.value) == ("https://clinic.example/mrn", "MRN 7")


def test_a_test_is_marked_as_test_health_data() -> None:
    for resource in resources(changes={"kind": "test", "severity": "info"}):
        assert [tag.code for tag in resource.meta.tag] == ["HTEST"]


def test_fhir_takes_escalations_only() -> None:
    with pytest.raises(ValueError, match="silence is not for a FHIR server"):
        fhir(FhirReceiver.model_validate({"kind": "fhir", "url": "https://ehr.example/r4"}), LONG, "d1", NOW)
