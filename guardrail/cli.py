"""The command line. Each command reads arguments, calls one function, prints.

Exit codes: 0 fine, 1 problems found, 2 wrong usage (settings included).
"""

import click

from guardrail import __version__
from guardrail.commands.alerts import alerts
from guardrail.commands.audit import audit
from guardrail.commands.backtest import backtest
from guardrail.commands.check import check
from guardrail.commands.demo import demo
from guardrail.commands.evaluate import evaluate
from guardrail.commands.explain import explain
from guardrail.commands.packs import lint, packs, schema, test
from guardrail.commands.password import password
from guardrail.commands.serve import serve
from guardrail.commands.stress import stress
from guardrail.commands.tokens import tokens
from guardrail.engine.compiled import COMPILED
from guardrail.errors import ConfigError, PackError

_FORM = "compiled" if COMPILED else "in Python"


class _Cli(click.Group):
    """Errors that name their remedy are printed as they are, not as a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except PackError as error:
            click.echo(str(error), err=True)
            ctx.exit(1)
        except ConfigError as error:
            click.echo(str(error), err=True)
            ctx.exit(2)


@click.group(cls=_Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="guardrail", message=f"%(prog)s, version %(version)s, engine {_FORM}")
def main() -> None:
    """A safety guard between patients and health chatbots."""


for _command in (demo, serve, check, explain, evaluate, stress, backtest, test, lint, schema, packs, audit, alerts, password, tokens):
    main.add_command(_command)
