"""The section `alerts:`; each problem says where it stands and what to do."""

from pathlib import Path
from typing import get_args

import pytest

from guardrail.alerts.settings import AlertSettings, Receiver, Rule, WebhookReceiver
from guardrail.config import load
from guardrail.errors import ConfigError
from tests.alerts.receiving import SECRET

EXAMPLE = Path(__file__).parents[2] / "deploy" / "alerts.example.yaml"
ENVIRONMENT = {
    "ALERTS_WEBHOOK_SECRET": SECRET,
    "ALERTS_SLACK_URL": "https://hooks.slack.example/services/T/B/x",
    "ALERTS_TEAMS_URL": "https://prod.logic.example/workflows/x",
    "ALERTS_PAGERDUTY_KEY": "0" * 32,
    "ALERTS_SMTP_PASSWORD": "p",
    "ALERTS_FHIR_AUTHORIZATION": "Bearer t",
}
GOOD = f"""alerts:
  receivers:
    a: {{kind: webhook, url: "https://a.example/x", secret: {SECRET}}}
    ehr: {{kind: fhir, url: "https://ehr.example/r4"}}
  rules:
    r: {{when: escalation, send: [a, ehr]}}
"""


def problem(tmp_path: Path, text: str) -> str:
    path = tmp_path / "guardrail.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(config=path, environment={})
    return str(caught.value).replace(str(path), "FILE")


def test_the_example_loads_and_shows_every_rule_and_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    alerts = load(config=EXAMPLE, environment={}).alerts

    assert alerts is not None
    assert {r.when for r in alerts.rules.values()} == {"escalation", "engine_failure", "error_rate", "store_down", "silence"}
    assert {r.kind for r in alerts.receivers.values()} == {"webhook", "slack", "teams", "pagerduty", "mail", "fhir"}
    assert alerts.include_words is False


def test_everything_of_the_section_is_in_the_documentation() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "operations.md").read_text()
    example = EXAMPLE.read_text()

    for part, key in ((Rule, "when"), (Receiver, "kind")):
        for shape in get_args(part):
            (name,) = get_args(shape.model_fields[key].annotation)
            assert f"`{name}`" in page
            assert f"{key}: {name}\n" in example
    for setting in AlertSettings.model_fields:
        assert f"{setting}:" in example


def test_the_example_names_the_variable_that_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"alerts\.receivers\.safety_channel\.slack\.url: .*ALERTS_SLACK_URL is not set"):
        load(config=EXAMPLE, environment={})


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "guardrail.yaml"
    path.write_text(GOOD)
    settings = load(config=path, environment={})

    assert settings.alerts is not None
    receiver = settings.alerts.receivers["a"]
    assert isinstance(receiver, WebhookReceiver)
    assert receiver.secret.get_secret_value() == SECRET
    assert SECRET not in repr(settings)
    assert "a.example" not in repr(settings)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("send: [a, ehr]", "send: [a, b]", 'FILE:1:1: alerts: value error, rules.r.send: there is no receiver "b"; there are: a, ehr'),
        ("when: escalation", "when: store_down", "rules.r.send: ehr is a FHIR server and takes escalations only"),
        ("when: escalation", "when: escalated", "FILE:6:5: alerts.rules.r: input tag 'escalated' found using 'when'"),
        (SECRET, "whsec_c2hvcnQ=", "FILE:3:5: alerts.receivers.a.webhook.secret: value error, has 5 bytes, 24 are needed; make one with"),
        (SECRET, "not-base64", "alerts.receivers.a.webhook.secret: value error, is not base64; make one with"),
        ('"https://a.example/x"', "a.example", "alerts.receivers.a.webhook.url: value error, write a URL that begins with https://"),
        ("send: [a, ehr]", "send: []", "alerts.rules.r.escalation.send: tuple should have at least 1 item"),
        ("send: [a, ehr]", "send: [a], urgencies: x", "alerts.rules.r.escalation.urgencies: extra inputs are not permitted"),
        ("{when: escalation, ", '{when: silence, hours: "7-22", ', 'hours: value error, write hours of one day, like "07:00-22:00"'),
        ("{when: escalation, ", "{when: silence, timezone: Mars/Base, ", 'timezone: value error, unknown time zone "Mars/Base"'),
    ],
)
def test_a_mistake_says_where_and_what(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert expected in problem(tmp_path, GOOD.replace(old, new))


def test_alerts_are_written_in_the_file() -> None:
    with pytest.raises(ConfigError, match="GUARDRAIL_ALERTS: alerts are written in the settings file"):
        load(environment={"GUARDRAIL_ALERTS": "{}"})
