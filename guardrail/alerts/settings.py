"""What is told to whom: the section `alerts:` of the settings file.

A rule says when, and to whom; a receiver says where and how. The word destination is kept for where a patient is sent.
A secret may be written `env:NAME`: it is then read from the environment variable NAME when the settings are loaded.
"""

import base64
import binascii
import os
import re
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from guardrail.audit.record import Outcome
from guardrail.engine.model import Destination, Topic

Severity = Literal["critical", "error", "warning", "info"]
# Shorter keys than 24 bytes are refused by receivers that follow the Standard Webhooks specification.
_SECRET_BYTES = 24


def _from_environment(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith("env:"):
        return value
    name = value.removeprefix("env:")
    if not os.environ.get(name):
        raise ValueError(f"the environment variable {name} is not set")
    return os.environ[name]


def secret_bytes(secret: str) -> bytes:
    """The key of a signature: base64, with or without `whsec_` before it. Raises ValueError."""
    remedy = 'make one with: echo "whsec_$(openssl rand -base64 32)"'
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError(f"is not base64; {remedy}") from None
    if len(key) < _SECRET_BYTES:
        raise ValueError(f"has {len(key)} bytes, {_SECRET_BYTES} are needed; {remedy}")
    return key


def _is_key(value: SecretStr) -> SecretStr:
    secret_bytes(value.get_secret_value())
    return value


Secret = Annotated[SecretStr, BeforeValidator(_from_environment)]
Key = Annotated[Secret, AfterValidator(_is_key)]
_HTTP = "^https?://[^/]"


def _is_http(value: SecretStr) -> SecretStr:
    if not re.match(_HTTP, value.get_secret_value()):
        raise ValueError("write a URL that begins with https:// (or http:// within one machine)")
    return value


# Whoever has the URL of a chat tool may post there: it is a secret.
SecretUrl = Annotated[Secret, AfterValidator(_is_http)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class WebhookReceiver(_Section):
    """Any HTTP endpoint. Signed as the Standard Webhooks specification says."""

    kind: Literal["webhook"]
    url: SecretUrl
    secret: Key = Field(description="The key of the signature: whsec_ and base64 of 24 bytes or more.")
    previous_secret: Key | None = Field(None, description="While keys change: signs as well, so that either verifies.")
    headers: dict[str, Secret] = Field({}, description="Further headers, such as Authorization.")


class SlackReceiver(_Section):
    """A channel of Slack, by its incoming webhook."""

    kind: Literal["slack"]
    url: SecretUrl


class TeamsReceiver(_Section):
    """A channel of Microsoft Teams, by a workflow that posts to it when a webhook request is received."""

    kind: Literal["teams"]
    url: SecretUrl


class PagerDutyReceiver(_Section):
    """A service of PagerDuty, by its Events API v2 integration."""

    kind: Literal["pagerduty"]
    routing_key: Secret
    url: str = Field("https://events.pagerduty.com/v2/enqueue", pattern=_HTTP, description="Elsewhere for accounts in the EU.")


class MailReceiver(_Section):
    """People with a mailbox."""

    kind: Literal["mail"]
    host: str
    port: int = Field(587, ge=1, le=65535)
    tls: Literal["starttls", "always", "never"] = "starttls"
    user: str | None = None
    password: Secret | None = None
    sender: str = Field(pattern="@", description="Address it comes from.")
    to: tuple[str, ...] = Field(min_length=1, description="Addresses it goes to.")


class FhirReceiver(_Section):
    """A FHIR R4 server: an escalation becomes a DetectedIssue and a Communication about it."""

    kind: Literal["fhir"]
    url: str = Field(pattern=_HTTP, description="Base URL of the server.")
    headers: dict[str, Secret] = Field({}, description="Further headers, such as Authorization.")
    recipient: str | None = Field(
        None, pattern="^[A-Z][A-Za-z]+/[A-Za-z0-9.-]+$", description="Who is told: Organization/er, CareTeam/7 ..."
    )
    patient_system: str | None = Field(
        None, description="System of the app's patient ids. With it the id goes to this server; without, only its pseudonym."
    )


Receiver = WebhookReceiver | SlackReceiver | TeamsReceiver | PagerDutyReceiver | MailReceiver | FhirReceiver


class _Rule(_Section):
    send: tuple[str, ...] = Field(min_length=1, description="Names of receivers.")
    severity: Severity | None = Field(None, description="In place of the usual one.")


class EscalationRule(_Rule):
    """A patient was sent to somebody. Every such exchange is told, unless `repeat_seconds` says otherwise."""

    when: Literal["escalation"]
    urgency: Literal["routine", "urgent", "emergency"] = Field("emergency", description="This or more urgent.")
    destinations: tuple[Destination, ...] = Field((), description="Only those sent there; none: wherever.")
    topics: tuple[Topic, ...] = Field((), description="Only with one of these topics; none: whatever.")
    tenants: tuple[str, ...] = Field((), description="Only of these callers; none: whoever.")
    repeat_seconds: float = Field(
        0.0, ge=0, description="The same patient, sent to the same place with the same urgency, is not told again within this time."
    )


class _Condition(_Rule):
    """Something that holds for a time."""

    tell_end: bool = Field(True, description="Say also when it is over, after a minute of calm.")


class ErrorRateRule(_Condition):
    """Too many exchanges ended badly. Each worker process counts its own."""

    when: Literal["error_rate"]
    above: float = Field(0.05, ge=0, lt=1, description="Share of exchanges.")
    window_seconds: int = Field(300, ge=10, le=86_400, description="Over how long.")
    at_least: int = Field(20, ge=1, description="Fewer exchanges than this say nothing.")
    outcomes: tuple[Outcome, ...] = Field(
        (Outcome.UPSTREAM_UNREACHABLE, Outcome.UPSTREAM_REFUSED, Outcome.UPSTREAM_LOST, Outcome.GUARD_FAILED),
        min_length=1,
        description="What counts as bad.",
    )
    repeat_seconds: float = Field(900.0, gt=0, description="While it lasts, told again after this time.")


class EngineFailureRule(_Rule):
    """The engine failed or ran out of time; the patient got the safe answer."""

    when: Literal["engine_failure"]
    repeat_seconds: float = Field(300.0, gt=0, description="Further failures are not told within this time.")


class StoreDownRule(_Condition):
    """The audit store is away. Told without it."""

    when: Literal["store_down"]
    after_seconds: float = Field(60.0, ge=0, description="Shorter absences are not told.")
    repeat_seconds: float = Field(900.0, gt=0, description="While it lasts, told again after this time.")


class SilenceRule(_Condition):
    """No exchange at all, at any replica: the app in front may be down, or no longer guarded."""

    when: Literal["silence"]
    after_seconds: float = Field(900.0, gt=0, description="How long.")
    hours: str = Field("00:00-24:00", description="Hours of the day in which traffic is expected.")
    timezone: str = Field("UTC", description="Where these hours are: Europe/London ...")
    repeat_seconds: float = Field(3600.0, gt=0, description="While it lasts, told again after this time.")

    @field_validator("hours")
    @classmethod
    def _is_hours(cls, value: str) -> str:
        read_hours(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f'unknown time zone "{value}"; write one like Europe/London') from None
        return value


Rule = EscalationRule | ErrorRateRule | EngineFailureRule | StoreDownRule | SilenceRule


def read_hours(text: str) -> tuple[int, int]:
    """`07:30-22:00` -> minutes of the day, (450, 1320). Raises ValueError."""
    found = re.fullmatch(r"(\d\d):([0-5]\d)-(\d\d):([0-5]\d)", text)
    start, end = (int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])) if found else (0, 0)
    if not start < end <= 24 * 60:
        raise ValueError('write hours of one day, like "07:00-22:00"')
    return start, end


class AlertSettings(_Section):
    """The whole section."""

    include_words: bool = Field(False, description="Put the words that were evidence into alerts, redacted. Otherwise none of a patient's.")
    timeout_seconds: float = Field(10.0, gt=0, le=120, description="Time for one attempt.")
    retry_seconds: float = Field(1.0, gt=0, description="Pause after a first failure; it doubles each time.")
    retry_at_most_seconds: float = Field(300.0, gt=0, description="Longest pause.")
    give_up_seconds: float = Field(86_400.0, gt=0, description="Not tried any longer than this.")
    receivers: dict[str, Annotated[Receiver, Field(discriminator="kind")]] = Field(min_length=1)
    rules: dict[str, Annotated[Rule, Field(discriminator="when")]] = Field(min_length=1)

    @model_validator(mode="after")
    def _receivers_exist(self) -> "AlertSettings":
        for name, rule in self.rules.items():
            for receiver in rule.send:
                if receiver not in self.receivers:
                    raise ValueError(f'rules.{name}.send: there is no receiver "{receiver}"; there are: {", ".join(self.receivers)}')
                if self.receivers[receiver].kind == "fhir" and rule.when != "escalation":
                    raise ValueError(f"rules.{name}.send: {receiver} is a FHIR server and takes escalations only")
        return self
