"""One attempt to bring one alert to one receiver, and what follows from how it went.

Redirects are not followed: a signature and a key are for the receiver that was named. The usual variables apply to HTTP: HTTPS_PROXY,
NO_PROXY, SSL_CERT_FILE.
"""

import asyncio
import smtplib
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import assert_never

import httpx
import structlog

from guardrail.alerts.alert import Alert
from guardrail.alerts.fhir import fhir
from guardrail.alerts.mail import mail, send_mail
from guardrail.alerts.message import Post
from guardrail.alerts.pagerduty import pagerduty
from guardrail.alerts.settings import (
    FhirReceiver,
    MailReceiver,
    PagerDutyReceiver,
    Receiver,
    SlackReceiver,
    TeamsReceiver,
    WebhookReceiver,
)
from guardrail.alerts.slack import slack
from guardrail.alerts.teams import teams
from guardrail.alerts.webhook import webhook

log = structlog.get_logger("guardrail")

# The same request would be refused again. Others of 4xx can be mended at the receiver: a key, an address, a limit.
_FINAL = frozenset({400, 405, 406, 410, 411, 413, 414, 415, 422})
# No receiver may put an alert off for longer.
_LONGEST_WAIT = 3600.0


@dataclass(frozen=True, slots=True)
class Sent:
    """It arrived; `answer` is how the receiver said so."""

    answer: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not. `final`: no use to try again. `retry_after` is what the receiver asked for, in seconds."""

    error: str
    final: bool = False
    retry_after: float | None = None


Result = Sent | Failed


async def deliver(client: httpx.AsyncClient, receiver: Receiver, alert: Alert, id: str, now: Callable[[], float], seconds: float) -> Result:
    """One attempt, within `seconds`. Never raises."""
    try:
        async with asyncio.timeout(seconds):
            if isinstance(receiver, MailReceiver):
                return await _mail(receiver, alert, id, seconds)
            return await _post(client, _write(receiver, alert, id, now()), now)
    except TimeoutError:
        return Failed(f"no answer within {seconds:g} s")
    except ValueError as error:
        # An address or a header that cannot be written, or an alert of a kind that the receiver, changed since, does not take.
        return Failed(f"cannot be written for this receiver: {type(error).__name__}", final=True)


def _write(receiver: Receiver, alert: Alert, id: str, now: float) -> Post:
    match receiver:
        case WebhookReceiver():
            return webhook(receiver, alert, id, now)
        case SlackReceiver():
            return slack(receiver, alert, id, now)
        case TeamsReceiver():
            return teams(receiver, alert, id, now)
        case PagerDutyReceiver():
            return pagerduty(receiver, alert, id, now)
        case FhirReceiver():
            return fhir(receiver, alert, id, now)
        case MailReceiver():
            raise AssertionError("mail is not sent by HTTP")
        case _:
            assert_never(receiver)


async def _post(client: httpx.AsyncClient, post: Post, now: Callable[[], float]) -> Result:
    try:
        response = await client.post(post.url, content=post.body, headers=dict(post.headers))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # Messages of connections name the host at most; the URL may be a secret.
        return Failed(f"{type(error).__name__}: {str(error).replace(post.url, '<url>')}"[:200])
    status = response.status_code
    if 200 <= status < 300:
        return Sent(str(status))
    return Failed(f"status {status}", status in _FINAL, _retry_after(response, now()))


def _retry_after(response: httpx.Response, now: float) -> float | None:
    """Seconds, written as such or as a date."""
    given = response.headers.get("retry-after", "").strip()
    if given.isdecimal():
        return min(float(given), _LONGEST_WAIT)
    try:
        return min(max(parsedate_to_datetime(given).timestamp() - now, 0.0), _LONGEST_WAIT) if given else None
    except ValueError:
        return None


async def _mail(receiver: MailReceiver, alert: Alert, id: str, seconds: float) -> Result:
    try:
        refused = await asyncio.to_thread(send_mail, receiver, mail(receiver, alert, id), seconds)
    except smtplib.SMTPAuthenticationError as error:
        return Failed(f"the server refused the login: {error.smtp_code}")
    except smtplib.SMTPRecipientsRefused as error:
        codes = sorted({code for code, _ in error.recipients.values()})
        return Failed(f"the server refused every address: {', '.join(map(str, codes))}", final=min(codes, default=0) >= 500)
    except smtplib.SMTPResponseException as error:
        return Failed(f"the server refused: {error.smtp_code}", final=error.smtp_code >= 500)
    except (smtplib.SMTPException, OSError) as error:
        return Failed(f"{type(error).__name__}: {error}"[:200])
    if refused:
        # Sent again it would reach the others twice.
        log.warning("alert_partly_refused", addresses=refused, of=len(receiver.to))
        return Sent(f"taken, except for {refused} of {len(receiver.to)} addresses")
    return Sent("taken")
