"""`guardrail alerts`: does everybody get them, and what became of those that were due."""

import asyncio
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import click
import httpx

from guardrail import config
from guardrail.alerts.alert import Alert, Escalation, HitRule
from guardrail.alerts.deliver import Failed, Result, Sent, deliver
from guardrail.alerts.outbox import rows_of
from guardrail.alerts.settings import AlertSettings, Receiver
from guardrail.errors import ConfigError, StoreError

_config = click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Settings in YAML.")
_TITLE = "Test of Guardrail's alerts: no patient is concerned"


@click.group()
def alerts() -> None:
    """Alerts: try the receivers, list what is on its way."""


@alerts.command()
@_config
@click.option("--receiver", "names", multiple=True, metavar="NAME", help="Only this one; may be given several times.")
def test(config_file: Path | None, names: tuple[str, ...]) -> None:
    """Send a test alert to each receiver at once, without the outbox, and say what happened.

    A FHIR server gets resources that carry the tag HTEST, test health data.
    """
    loaded = config.load(config=config_file)
    settings = loaded.alerts
    if settings is None:
        raise ConfigError("there is no section alerts: in the settings file; deploy/alerts.example.yaml shows one")
    for name in names:
        if name not in settings.receivers:
            raise ConfigError(f'--receiver: there is no receiver "{name}"; there are: {", ".join(settings.receivers)}')
    chosen = {name: receiver for name, receiver in settings.receivers.items() if name in (names or settings.receivers)}
    if not asyncio.run(_try_all(settings, chosen, loaded.dashboard_url)):
        sys.exit(1)


@alerts.command(name="list")
@click.option("--audit", "url", required=True, envvar="GUARDRAIL_AUDIT", metavar="URL", help="sqlite:///path or postgresql://user@host/name")
@click.option("--all", "every", is_flag=True, help="Also those that arrived.")
def list_(url: str, every: bool) -> None:
    """What is on its way, and what was given up, newest first."""
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not path.is_file():  # SQLite would make an empty one
        raise ConfigError(f"--audit: there is no record at {path}")
    try:
        rows = rows_of(url)
    except StoreError as error:
        raise ConfigError(f"--audit: {url.split('@')[-1]}: {error}") from error
    shown = [row for row in rows if every or row["state"] != "sent"]
    for row in shown:
        at = datetime.fromtimestamp(row["made_at"], UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        why = f"  {row['error']}" if row["error"] else ""
        click.echo(f"{at}  {row['receiver']}  {row['state']}  attempts {row['attempts']}  {row['key']}{why}")
    click.echo(f"{len(shown)} alerts")


async def _try_all(settings: AlertSettings, receivers: dict[str, Receiver], link: str | None) -> bool:
    """Whether every receiver took it."""
    exchange = f"test-{uuid.uuid4().hex}"
    escalation = Escalation(exchange=exchange, urgency="none", destination="none", rules=(HitRule(id="test", title=_TITLE),))
    alert = Alert(
        key=f"test:{exchange}", rule="test", kind="test", severity="info", at=time.time(), title=_TITLE, link=link,
        escalation=escalation,
    )  # fmt: skip

    async def attempt(client: httpx.AsyncClient, name: str, receiver: Receiver) -> tuple[str, Result, float]:
        begun = time.perf_counter()
        result = await deliver(client, receiver, alert, exchange, time.time, settings.timeout_seconds)
        return f"{name} ({receiver.kind})", result, (time.perf_counter() - begun) * 1000

    passed = True
    async with httpx.AsyncClient() as client:
        for done in asyncio.as_completed([attempt(client, name, receiver) for name, receiver in receivers.items()]):
            what, result, took = await done
            match result:
                case Sent():
                    click.echo(f"{what}: sent in {took:.0f} ms: {result.answer}")
                case Failed():
                    passed = False
                    click.echo(f"{what}: failed after {took:.0f} ms: {result.error}")
    return passed
