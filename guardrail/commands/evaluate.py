"""`guardrail evaluate`: how often the packs are right, on labelled messages and replies."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from guardrail.app import load_guard
from guardrail.check import read_item
from guardrail.commands.folders import packs_options
from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation
from guardrail.stress import report
from guardrail.stress.compare import compare, read_earlier
from guardrail.stress.labelled import UnusableCorpus, read_corpus
from guardrail.stress.measures import measure
from guardrail.stress.run import judge_all

_folder = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("corpus", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True), metavar="CORPUS...")
@click.option("--out", type=_folder, metavar="FOLDER", help="Write figures, misses, false alarms and a page to look at.")
@click.option("--against", type=_folder, metavar="FOLDER", help="The --out folder of an earlier run: show what changed.")
@packs_options
@click.option("--rules-only", is_flag=True, help="Without the trained second reader.")
def evaluate(
    corpus: tuple[Path, ...], out: Path | None, against: Path | None, rules: Path | None, overrides: Path | None, rules_only: bool
) -> None:
    """Measure the packs on labelled JSONL files or folders of them: what is recognised, and what is raised for nothing."""
    try:
        items = read_corpus(corpus, conversation_of)
    except UnusableCorpus as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    earlier = read_earlier(against) if against else None
    knowledge = load_guard(rules, overrides).knowledge
    # No cache: every message is timed as if never seen before.
    guard = Guard(replace(knowledge, scorer=None) if rules_only else knowledge, cache_messages=0)
    with click.progressbar(judge_all(guard, items), length=len(items), label=f"{len(items)} items", file=sys.stderr) as progress:
        outcomes = list(progress)
    run = report.Run(knowledge.revision, rules_only, outcomes, measure(outcomes), compare(earlier, outcomes) if earlier else None)
    click.echo(report.as_text(run))
    if out is not None:
        report.write(out, run)
        click.echo(f"\nwritten to {out}: {report.RESULTS}, {report.MISSES}, {report.ALARMS}, {report.PAGE}")


def conversation_of(item: Mapping[str, Any]) -> Conversation:
    """The conversation of one line of a corpus."""
    return read_item(item)[0]
