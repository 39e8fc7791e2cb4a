"""A message in a channel of Slack, in Block Kit. Text is given as plain text, or escaped where Slack would read marks in it."""

from typing import Any

from guardrail.alerts.alert import Alert
from guardrail.alerts.message import Post, cut, json_post
from guardrail.alerts.settings import SlackReceiver

# Slack refuses what is longer.
_HEADER_CHARS = 150
_FIELD_CHARS = 2000
_TEXT_CHARS = 3000
_FIELDS = 10


def slack(receiver: SlackReceiver, alert: Alert, id: str, now: float) -> Post:
    """Title, facts, words if any, and a link to the dashboard."""
    blocks: list[dict[str, Any]] = [{"type": "header", "text": _plain(cut(alert.title, _HEADER_CHARS))}]
    fields = [{"type": "mrkdwn", "text": cut(f"*{label}*\n{_escaped(value)}", _FIELD_CHARS)} for label, value in alert.lines().items()]
    blocks.append({"type": "section", "fields": fields[:_FIELDS]})
    if alert.escalation is not None and alert.escalation.words:
        blocks.append({"type": "section", "text": _plain(cut("\n".join(alert.escalation.words), _TEXT_CHARS))})
    if alert.link:
        # A link, not a button: Slack warns of buttons where no app answers them.
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": f"<{_escaped(alert.link)}|Open the dashboard>"}})
    return json_post(receiver.url.get_secret_value(), {"text": _escaped(alert.title), "blocks": blocks})


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
