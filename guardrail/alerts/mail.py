"""A mail in plain text, sent through the site's SMTP server. Its Message-ID is the same in every attempt."""

import smtplib
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

from guardrail.alerts.alert import Alert
from guardrail.alerts.settings import MailReceiver


def mail(receiver: MailReceiver, alert: Alert, id: str) -> EmailMessage:
    """The mail of an alert."""
    message = EmailMessage()
    message["Subject"] = " ".join(f"[Guardrail] {alert.title}".split())
    message["From"] = receiver.sender
    message["To"] = ", ".join(receiver.to)
    message["Date"] = format_datetime(datetime.fromtimestamp(alert.at, UTC))
    message["Message-ID"] = f"<{id}@{receiver.sender.rpartition('@')[2].strip('>')}>"
    message["Auto-Submitted"] = "auto-generated"  # so that no out-of-office answers come back
    message["X-Priority"] = "1" if alert.severity == "critical" else "3"
    lines = [alert.title, "", *(f"{label}: {value}" for label, value in alert.lines().items())]
    if alert.escalation is not None and alert.escalation.words:
        lines += ["", "Words that were evidence:", *(f"  {words}" for words in alert.escalation.words)]
    if alert.link:
        lines += ["", alert.link]
    message.set_content("\n".join(lines) + "\n")
    return message


def send_mail(receiver: MailReceiver, message: EmailMessage, timeout_seconds: float) -> int:
    """Send it; gives how many addresses the server refused, where it took others. Raises smtplib.SMTPException or OSError.

    `timeout_seconds` is for each step, not for all.
    """
    context = ssl.create_default_context()
    if receiver.tls == "always":
        server: smtplib.SMTP = smtplib.SMTP_SSL(receiver.host, receiver.port, timeout=timeout_seconds, context=context)
    else:
        server = smtplib.SMTP(receiver.host, receiver.port, timeout=timeout_seconds)
    with server:
        if receiver.tls == "starttls":
            server.starttls(context=context)
        if receiver.user and receiver.password:
            server.login(receiver.user, receiver.password.get_secret_value())
        return len(server.send_message(message))
