"""An Adaptive Card in a channel of Microsoft Teams, posted to a workflow "When a Teams webhook request is received".

The connectors that took the older message cards are retired. Texts are runs of rich text, in which marks stay what they are; facts
are Markdown, so theirs are escaped.
"""

import re
from typing import Any, Final

from guardrail.alerts.alert import Alert
from guardrail.alerts.message import Post, cut, json_post
from guardrail.alerts.settings import Severity, TeamsReceiver

# A workflow refuses messages over 28 KB.
_TEXT_CHARS = 4000
_VALUE_CHARS = 1000
_MARKS = re.compile(r"([\\`*_{}\[\]()#!|~<>])")
_COLOURS: Final[dict[Severity, str]] = {"critical": "attention", "error": "attention", "warning": "warning", "info": "default"}


def teams(receiver: TeamsReceiver, alert: Alert, id: str, now: float) -> Post:
    """Title, facts, words if any, and an action that opens the dashboard."""
    title = {
        "type": "TextRun",
        "text": cut(alert.title, _VALUE_CHARS),
        "weight": "bolder",
        "size": "large",
        "color": "good" if alert.over else _COLOURS[alert.severity],
    }
    facts = [{"title": label, "value": _MARKS.sub(r"\\\1", cut(value, _VALUE_CHARS))} for label, value in alert.lines().items()]
    body: list[dict[str, Any]] = [_rich(title), {"type": "FactSet", "facts": facts}]
    if alert.escalation is not None and alert.escalation.words:
        body.append(_rich({"type": "TextRun", "text": cut("\n".join(alert.escalation.words), _TEXT_CHARS)}))
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "fallbackText": alert.title,
        "body": body,
    }
    if alert.link:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open", "url": alert.link}]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return json_post(receiver.url.get_secret_value(), {"type": "message", "attachments": [attachment]})


def _rich(run: dict[str, Any]) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [run]}
