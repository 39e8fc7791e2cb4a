"""A generic webhook, signed as the Standard Webhooks specification 1.0 says, for which receivers find libraries in most languages.

Three headers: `webhook-id`, the same in every attempt; `webhook-timestamp`, seconds since the epoch of this attempt; and
`webhook-signature`, `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`, one for each key in force, with spaces between.
"""

import base64
import hmac

from guardrail.alerts.alert import Alert
from guardrail.alerts.message import Post, json_post
from guardrail.alerts.settings import WebhookReceiver, secret_bytes


def webhook(receiver: WebhookReceiver, alert: Alert, id: str, now: float) -> Post:
    """`{"type": "guardrail.escalation", "timestamp": "...", "data": {...}}`."""
    data = alert.model_dump(mode="json", exclude={"kind", "at"}, exclude_none=True)
    content = {"type": f"guardrail.{alert.kind}", "timestamp": alert.time, "data": data}
    post = json_post(receiver.url.get_secret_value(), content, {n: v.get_secret_value() for n, v in receiver.headers.items()})
    signatures = " ".join(
        signature(secret_bytes(key.get_secret_value()), id, int(now), post.body)
        for key in (receiver.secret, receiver.previous_secret)
        if key is not None
    )
    headers = {"webhook-id": id, "webhook-timestamp": str(int(now)), "webhook-signature": signatures}
    return Post(post.url, post.body, {**post.headers, **headers})


def signature(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """`v1,...` of one message."""
    signed = f"{id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
