"""One attempt at a really listening receiver, and what follows from how it went."""

import asyncio
import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import Message
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiosmtpd.handlers import Message as MessageHandler
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from guardrail.alerts.alert import Alert
from guardrail.alerts.deliver import Failed, Result, Sent, deliver
from guardrail.alerts.settings import MailReceiver, Receiver, WebhookReceiver
from tests.alerts.receiving import SECRET, WITHIN, alert, hook, receiving

NOW = 1_700_000_000.0
IN_90_SECONDS = format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True)


def attempt(receiver: Receiver, told: Alert | None = None, seconds: float = 5.0, now: float = NOW) -> Result:
    async def run() -> Result:
        async with httpx.AsyncClient() as client:
            return await deliver(client, receiver, told or alert(), "d1", lambda: now, seconds)

    return asyncio.run(run())


def test_a_receiver_verifies_with_a_library_and_refuses_what_was_changed() -> None:
    """The documented way: the library `standardwebhooks`, the raw body, the headers."""
    with receiving() as receiver:
        assert attempt(WebhookReceiver.model_validate(hook(receiver)), now=time.time()) == Sent("200")
        got = receiver.next()
    verifier = Webhook(SECRET)

    assert verifier.verify(got.body, dict(got.headers))["data"]["escalation"]["exchange"] == "id1"
    with pytest.raises(WebhookVerificationError):
        verifier.verify(got.body.replace(b"ambulance", b"none"), dict(got.headers))
    with pytest.raises(WebhookVerificationError):
        verifier.verify(got.body, {**got.headers, "webhook-id": "d2"})
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "A" * 32).verify(got.body, dict(got.headers))


def test_a_receiver_verifies_by_hand_as_documented() -> None:
    """The code of docs/operations.md, as it stands there."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    names: dict[str, Any] = {}
    exec(re.search(r"### Verify a webhook.*?```python\n(.*?)```", page, re.DOTALL)[1], names)  # type: ignore[index]  # it fails if there is none
    verify = names["verify"]
    new = "whsec_bmV3IGtleSwgbmV3IGtleSwgbmV3IGtleSwgbmV3IGtleQ=="
    with receiving() as receiver:
        attempt(WebhookReceiver.model_validate({**hook(receiver), "secret": new, "previous_secret": SECRET}), now=time.time())
        attempt(WebhookReceiver.model_validate(hook(receiver)), now=time.time() - 301)
        got, old = receiver.next(), receiver.next()

    assert verify(SECRET, got.headers, got.body)
    assert verify(new, got.headers, got.body)
    assert not verify("whsec_" + "A" * 32, got.headers, got.body)
    assert not verify(SECRET, got.headers, got.body + b" ")
    assert not verify(SECRET, old.headers, old.body)


def test_a_receiver_refuses_what_is_sent_again_later() -> None:
    with receiving() as receiver:
        attempt(WebhookReceiver.model_validate(hook(receiver)), now=time.time() - 600)
        got = receiver.next()

    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(SECRET).verify(got.body, dict(got.headers))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (202, Sent("202")),
        (204, Sent("204")),
        (400, Failed("status 400", final=True)),
        (410, Failed("status 410", final=True)),
        (401, Failed("status 401")),
        (404, Failed("status 404")),
        (500, Failed("status 500")),
        (503, Failed("status 503")),
        ((429, {"Retry-After": "30"}), Failed("status 429", retry_after=30.0)),
        ((503, {"Retry-After": IN_90_SECONDS}), Failed("status 503", retry_after=90.0)),
        ((503, {"Retry-After": "999999"}), Failed("status 503", retry_after=3600.0)),
        ((503, {"Retry-After": "soon"}), Failed("status 503")),
        ((302, {"Location": "http://127.0.0.1:9/elsewhere"}), Failed("status 302")),
    ],
)
def test_what_a_status_means(answer: Any, expected: Result) -> None:
    with receiving(answer) as receiver:
        assert attempt(WebhookReceiver.model_validate(hook(receiver))) == expected


def test_a_receiver_that_is_down_or_silent_is_tried_again() -> None:
    with receiving(up=False) as receiver:
        found = attempt(WebhookReceiver.model_validate(hook(receiver)))
    assert isinstance(found, Failed)
    assert (found.error.split(":")[0], found.final) == ("ConnectError", False)

    with receiving(None) as receiver:
        assert attempt(WebhookReceiver.model_validate(hook(receiver)), seconds=0.2) == Failed("no answer within 0.2 s")


def test_what_cannot_be_written_is_not_tried_again() -> None:
    broken = WebhookReceiver.model_validate({"kind": "webhook", "url": "http://127.0.0.1:9/", "secret": SECRET, "headers": {"x": "ü\n"}})
    found = attempt(broken)

    assert isinstance(found, Failed)
    assert (found.error.startswith("cannot be written"), found.final) == (True, True)


class Postbox(MessageHandler):
    """Keeps mails; refuses addresses at `nobody.example`, and everything while it is `full`."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Message] = []
        self.full = False

    async def handle_RCPT(self, server: Any, session: Session, envelope: Envelope, address: str, options: Any) -> str:  # noqa: N802  # the library's name
        if address.endswith("@nobody.example"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:  # noqa: N802  # the library's name
        return "451 full" if self.full else str(await super().handle_DATA(server, session, envelope))

    def handle_message(self, message: Message) -> None:
        self.mails.append(message)


def check_login(server: Any, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    right = isinstance(data, LoginPassword) and (data.login, data.password) == (b"guard", b"right")
    return AuthResult(success=right, handled=False)  # the library answers


@contextlib.contextmanager
def mail_server(box: Postbox, **options: Any) -> Iterator[int]:
    """A real SMTP server on a free port; the library's own controller cannot pick one."""
    loop = asyncio.new_event_loop()
    sessions: list[SMTP] = []

    def session() -> SMTP:
        sessions.append(SMTP(box, loop=loop, hostname="test", **options))
        return sessions[-1]

    async def stop() -> None:
        server.close()
        for one in sessions:
            if isinstance(one.transport, asyncio.Transport):
                one.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        loop.stop()

    server = loop.run_until_complete(loop.create_server(session, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    asyncio.run_coroutine_threadsafe(stop(), loop)
    thread.join(WITHIN)
    loop.close()


@pytest.fixture
def postbox() -> Iterator[tuple[Postbox, int]]:
    box = Postbox()
    with mail_server(box, authenticator=check_login, auth_require_tls=False) as port:
        yield box, port


def mailer(port: int, **more: Any) -> MailReceiver:
    values = {"kind": "mail", "host": "127.0.0.1", "port": port, "tls": "never", "sender": "guard@clinic.example"}
    return MailReceiver.model_validate({**values, "to": ["a@clinic.example"], **more})


def test_a_mail_arrives(postbox: tuple[Postbox, int]) -> None:
    box, port = postbox
    assert attempt(mailer(port, to=["a@clinic.example", "b@clinic.example"], user="guard", password="right")) == Sent("taken")

    (message,) = box.mails
    assert message["X-RcptTo"] == "a@clinic.example, b@clinic.example"
    assert message["Message-ID"] == "<d1@clinic.example>"
    assert "Exchange: id1" in str(message.get_payload())


def test_what_an_answer_of_a_mail_server_means(postbox: tuple[Postbox, int]) -> None:
    box, port = postbox
    nobody = "x@nobody.example"

    assert attempt(mailer(port, user="guard", password="wrong")) == Failed("the server refused the login: 535")
    assert attempt(mailer(port, to=[nobody])) == Failed("the server refused every address: 550", final=True)
    assert attempt(mailer(port, to=[nobody, "a@clinic.example"])) == Sent("taken, except for 1 of 2 addresses")
    box.full = True
    assert attempt(mailer(port)) == Failed("the server refused: 451")
    assert len(box.mails) == 1


def test_a_mail_server_without_tls_does_not_get_a_mail_that_needs_it(postbox: tuple[Postbox, int]) -> None:
    box, port = postbox
    found = attempt(mailer(port, tls="starttls"))

    assert isinstance(found, Failed)
    assert (found.error.split(":")[0], box.mails) == ("SMTPNotSupportedError", [])


def test_a_mail_server_with_a_certificate_nobody_knows_is_refused(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    box = Postbox()
    with mail_server(box, tls_context=context) as port:
        found = attempt(mailer(port, tls="starttls"))

    assert isinstance(found, Failed)
    assert (found.error.split(":")[0], box.mails) == ("SSLCertVerificationError", [])


def test_a_silent_mail_server_costs_no_more_than_its_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        found = attempt(mailer(silent.getsockname()[1]), seconds=0.2)

    assert isinstance(found, Failed)
    assert not found.final
    assert time.monotonic() - begun < 2


def self_signed(folder: Path) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
    certificate = builder.sign(key, hashes.SHA256())
    (folder / "c.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "k.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "c.pem", folder / "k.pem"
