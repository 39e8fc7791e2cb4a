"""`guardrail stress`: how much of the accuracy is left when the same is put differently."""

import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import click

from guardrail.commands.evaluate import conversation_of
from guardrail.commands.folders import packs_options, read_packs
from guardrail.engine.guard import Guard
from guardrail.stress import robustness_report as report
from guardrail.stress.labelled import UnusableCorpus, read_corpus
from guardrail.stress.perturb import PERTURBATIONS
from guardrail.stress.robustness import can_be_perturbed, labelled_cases, rows
from guardrail.stress.robustness import stress as stress_all

_CASES = 400
"""Messages drawn from the packs' cases when no corpus is named: under a minute."""


@click.command()
@click.argument("corpus", nargs=-1, type=click.Path(path_type=Path, exists=True), metavar="[CORPUS]...")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER", help="Write table, examples and a page to look at."
)
@click.option("--only", multiple=True, metavar="NAME", help="This perturbation, or family of them; may be given again.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help=f"Draw so many messages; {_CASES} where no corpus is named.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed perturbs, and draws, otherwise.")
@packs_options
@click.option("--rules-only", is_flag=True, help="Without the trained second reader.")
@click.option("--list", "listing", is_flag=True, help="Only name the perturbations.")
def stress(
    corpus: tuple[Path, ...],
    out: Path | None,
    only: tuple[str, ...],
    sample: int | None,
    seed: int,
    rules: Path | None,
    overrides: Path | None,
    rules_only: bool,
    listing: bool,
) -> None:
    """Perturb labelled messages in ways that must not change what is decided, and count what is lost and what is raised.

    CORPUS are JSONL files or folders of them, as for evaluate; without one the cases of the packs are taken. Conversations of several
    turns, mentions and replies are passed over.
    """
    names = {p.name for p in PERTURBATIONS} | {p.family for p in PERTURBATIONS}
    if unknown := sorted(set(only) - names):
        raise click.UsageError(f"there is no perturbation {unknown[0]}; --list names them")
    chosen = [p for p in PERTURBATIONS if not only or p.name in only or p.family in only]
    if listing:
        width = max(len(p.name) for p in chosen)
        for p in chosen:
            click.echo(
                f"{p.name:{width}}  {p.family:9} {p.title}{' (English only)' if p.english else ''}{' (may raise)' if p.raises else ''}"
            )
        return
    loaded = read_packs(rules, overrides)
    try:
        items = read_corpus(corpus, conversation_of) if corpus else list(labelled_cases(loaded))
    except UnusableCorpus as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    items = [item for item in items if can_be_perturbed(item)]
    count = sample or (len(items) if corpus else _CASES)
    if count < len(items):
        items = Random(seed).sample(items, count)  # noqa: S311  # repeatable on purpose
    knowledge = loaded.knowledge
    guard = Guard(replace(knowledge, scorer=None) if rules_only else knowledge, cache_messages=64)
    with click.progressbar(
        stress_all(guard, items, chosen, seed), length=len(items), label=f"{len(items)} messages", file=sys.stderr
    ) as bar:
        pairs = [pair for of_item in bar for pair in of_item]
    run = report.StressRun(knowledge.revision, rules_only, seed, len(items), pairs, rows(pairs, chosen))
    click.echo(report.as_text(run))
    if out is not None:
        report.write(out, run)
        click.echo(f"\nwritten to {out}: {report.RESULTS}, {report.LOST}, {report.RAISED}, {report.PAGE}")
