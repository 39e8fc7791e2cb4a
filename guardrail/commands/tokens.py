"""`guardrail tokens`: API tokens for programs that read the dashboard's JSON or reload packs."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import click

from guardrail.commands.audit import check_file, shown, url_option, who
from guardrail.dashboard.people import Role
from guardrail.dashboard.tables import Tables
from guardrail.dashboard.tokens import Token, Tokens
from guardrail.errors import ConfigError, StoreError

_DAY = 86_400
_LONGEST_DAYS = 3650


@click.group()
def tokens() -> None:
    """API tokens: make, list, revoke. They are kept in the audit store, as digests."""


@tokens.command()
@url_option
@click.argument("name")
@click.option("--role", type=click.Choice([role.word for role in Role]), default="viewer", show_default=True, help="What it may do.")
@click.option("--days", type=click.IntRange(1, _LONGEST_DAYS), default=90, show_default=True, metavar="N", help="How long it is valid.")
def create(url: str, name: str, role: str, days: int) -> None:
    """Make a token named for its use, and show it, this once. Programs send it as Authorization: Bearer TOKEN."""
    with _tokens(url) as kept:
        made, token = kept.create(name, Role[role.upper()], who(), days * _DAY)
    click.echo(made)
    click.echo(f"{token.id}: {name}, {role}, until {_day(token.expires_at)}. It cannot be shown again.", err=True)


@tokens.command("list")
@url_option
@click.option("--all", "every", is_flag=True, help="Those that expired or were revoked, too.")
def list_tokens(url: str, every: bool) -> None:
    """Say which tokens there are, and when each was last used."""
    now = time.time()
    with _tokens(url) as kept:
        found = [token for token in kept.all() if every or token.state(now) == "valid"]
    for token in found:
        click.echo(_line(token, now))
    if not found:
        click.echo("no tokens")


@tokens.command()
@url_option
@click.argument("id")
def revoke(url: str, id: str) -> None:
    """End a token at once, at every replica. ID is what list shows first."""
    with _tokens(url) as kept:
        done = kept.revoke(id)
    click.echo(f"{id} revoked" if done else f"there is no token {id} to revoke; guardrail tokens list shows them", err=not done)
    if not done:
        sys.exit(1)


@contextmanager
def _tokens(url: str) -> Iterator[Tokens]:
    check_file(url)
    try:
        with closing(Tables(url)) as tables:
            yield Tokens(tables, time.time)
    except StoreError as error:
        raise ConfigError(f"--audit: {shown(url)}: {error}") from error


def _line(token: Token, now: float) -> str:
    used = f"last used {_day(token.used_at)}" if token.used_at else "never used"
    made = f"made {_day(token.made_at)} by {token.made_by}"
    return f"{token.id}  {token.name}  {token.role.word}  {token.state(now)}  until {_day(token.expires_at)}  {used}  {made}"


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))
