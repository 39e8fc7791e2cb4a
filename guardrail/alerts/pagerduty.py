"""An event for PagerDuty's Events API v2. The key of the matter is the `dedup_key`: repeats join the incident that is open.

A condition that is over resolves its incident. Those of patients and of the guard's failures are not resolved from here: a person
looks, then closes.
"""

import socket
from typing import Any

from guardrail.alerts.alert import Alert, digest
from guardrail.alerts.message import Post, cut, json_post
from guardrail.alerts.settings import PagerDutyReceiver

# PagerDuty refuses what is longer.
_SUMMARY_CHARS = 1024
_KEY_CHARS = 255


def pagerduty(receiver: PagerDutyReceiver, alert: Alert, id: str, now: float) -> Post:
    """`event_action: trigger`, or `resolve` where it is over."""
    key = alert.key if len(alert.key) <= _KEY_CHARS else digest(alert.key)
    details: dict[str, Any] = dict(alert.lines())
    if alert.escalation is not None and alert.escalation.words:
        details["Words"] = list(alert.escalation.words)
    event: dict[str, Any] = {
        "routing_key": receiver.routing_key.get_secret_value(),
        "event_action": "resolve" if alert.over else "trigger",
        "dedup_key": key,
        "client": "Guardrail",
        "payload": {
            "summary": cut(alert.title, _SUMMARY_CHARS),
            "source": alert.escalation.tenant if alert.escalation and alert.escalation.tenant else socket.gethostname(),
            "severity": alert.severity,
            "timestamp": alert.time,
            "component": "guardrail",
            "class": alert.kind,
            "custom_details": details,
        },
    }
    if alert.link:
        event |= {"client_url": alert.link, "links": [{"href": alert.link, "text": "Dashboard"}]}
    return json_post(receiver.url, event)
