"""`guardrail test`, `lint`, `schema` and `packs`: for those who write rules."""

import sys
from itertools import chain
from pathlib import Path

import click
import orjson

from guardrail.commands.folders import packs_options, read_packs
from guardrail.engine.guard import Guard
from guardrail.packs.cases import run_cases, run_reply_cases
from guardrail.packs.lint import advise
from guardrail.packs.schema import schemas


@click.command()
@click.argument("packs", nargs=-1, metavar="[PACK|RULE]...")
@packs_options
def test(packs: tuple[str, ...], rules: Path | None, overrides: Path | None) -> None:
    """Run the cases of all packs, or of those named: every rule fires where it says and keeps quiet where it says."""
    loaded = read_packs(rules, overrides)
    names = set(packs)
    unknown = names - {c.pack for c in loaded.cases} - {c.rule for c in loaded.cases} - {c.rule for c in loaded.reply_cases} - {"replies"}
    if unknown:
        raise click.UsageError(f"there is no pack or rule {', '.join(sorted(unknown))}")
    if names:
        loaded.cases = tuple(c for c in loaded.cases if c.pack in names or c.rule in names)
        loaded.reply_cases = tuple(c for c in loaded.reply_cases if "replies" in names or c.rule in names)
    run = failed = improved = 0
    guard = Guard(loaded.knowledge)
    for result in chain(run_cases(loaded, guard), run_reply_cases(loaded, guard)):
        required = result.expectation in ("fires", "quiet")
        run += required
        if required and not result.held:
            failed += 1
            click.echo(str(result.place))
        elif not required and not result.held:
            improved += 1
            place = result.place
            click.echo(
                f"{place.file}:{place.line}:{place.column}: {result.expectation} no longer holds: move it to {_proper(result.expectation)}"
            )
    click.echo(f"{run} cases, {failed} failed" + (f", {improved} known ones got better" if improved else ""))
    sys.exit(1 if failed else 0)


def _proper(expectation: str) -> str:
    return "fires" if expectation == "known_miss" else "quiet"


@click.command()
@packs_options
def lint(rules: Path | None, overrides: Path | None) -> None:
    """Advice on packs that load: expired reviews and numbers, hard words, phrases that never match, unused lists."""
    found = sorted(advise(read_packs(rules, overrides)))
    for advice in found:
        click.echo(str(advice))
    click.echo(f"{len(found)} pieces of advice" if found else "nothing to advise")
    sys.exit(1 if found else 0)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def schema(folder: Path) -> None:
    """Write JSON Schemas to FOLDER, with which editors complete and check pack files while they are written."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in schemas().items():
        path = folder / f"{name}.schema.json"
        path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
        click.echo(str(path))


@click.command()
@packs_options
def packs(rules: Path | None, overrides: Path | None) -> None:
    """List the packs in force, with their version and who reviewed them, and what is overridden in them."""
    knowledge = read_packs(rules, overrides).knowledge
    click.echo(f"revision {knowledge.revision}")
    for pack in knowledge.packs:
        reviewed = f"reviewed by {pack.reviewed}" if pack.reviewed else "not yet reviewed by a clinician"
        click.echo(f"{pack.name:20} {pack.version:8} {pack.rules:4} rules  {pack.title} ({reviewed})")
    for override in knowledge.overrides:
        state = "" if override.state == "in force" else f", {override.state.upper()}"
        click.echo(f"\n{override.subject}: {override.change}  [{override.file}]")
        click.echo(f"    {override.reason} ({override.owner}, until {override.expires}{state})")
