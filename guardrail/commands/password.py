"""`guardrail password`: what the settings hold in place of a password."""

import click

from guardrail.dashboard.passwords import hash_password

_SHORTEST = 12


@click.command()
@click.password_option(help="Otherwise asked for, which keeps it out of the shell's history.")
def password(password: str) -> None:
    """Turn a password into what dashboard_users in the settings file holds."""
    if len(password) < _SHORTEST:
        raise click.UsageError(f"a password needs at least {_SHORTEST} characters")
    click.echo(hash_password(password))
