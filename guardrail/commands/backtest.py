"""`guardrail backtest`: what would have been decided otherwise, had other packs been in force."""

import base64
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import orjson

from guardrail.audit.entry import with_words
from guardrail.audit.keys import TextKeys
from guardrail.audit.replay import conversation_of, is_as_recorded
from guardrail.check import read_item
from guardrail.commands.folders import packs_options, read_packs
from guardrail.engine.guard import Guard
from guardrail.errors import ConfigError, MalformedRequest
from guardrail.stress.backtest import Past, as_data, as_text, compare
from guardrail.stress.page import write_lines

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
NO_TEXT = (
    "no text is kept in these records, so nothing can be decided again; record with audit_text: redacted or encrypted, and export the "
    "latter with guardrail audit export --text-keys FILE, or give the keys here"
)


@click.command()
@click.argument("records", type=_FILE)
@packs_options
@click.option("--in-force", type=_FOLDER, metavar="FOLDER", help="The packs in force, where they are not the shipped ones.")
@click.option("--in-force-overrides", type=_FOLDER, metavar="FOLDER", help="The overrides in force.")
@click.option("--text-keys", type=_FILE, envvar="GUARDRAIL_AUDIT_TEXT_KEYS", metavar="FILE", help="The keys that open encrypted texts.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write what would change as JSONL.")
def backtest(
    records: Path,
    rules: Path | None,
    overrides: Path | None,
    in_force: Path | None,
    in_force_overrides: Path | None,
    text_keys: Path | None,
    out: Path | None,
) -> None:
    """Decide RECORDS under the packs in force and under the candidate (--rules, --overrides), and show what would change.

    RECORDS is what guardrail audit export wrote, or conversations as for check --jsonl. Ends with 1 when an emergency would be lost.
    """
    if rules is None and overrides is None:
        raise click.UsageError("name the candidate: --rules FOLDER, --overrides FOLDER or both")
    now = Guard(read_packs(in_force, in_force_overrides).knowledge)
    then = Guard(read_packs(rules or in_force, overrides).knowledge)
    keys = TextKeys.read(text_keys) if text_keys else None
    read = list(_read(records, now.knowledge.revision, keys))
    past = [one for one in read if one is not None]
    without = len(read) - len(past)
    if not past:
        raise ConfigError(f"{records}: {NO_TEXT if without else 'holds no exchanges and no conversations'}")
    with click.progressbar(compare(now, then, past), length=len(past), label=f"{len(past)} conversations", file=sys.stderr) as progress:
        compared = list(progress)
    click.echo(as_text(compared, now.knowledge.revision, then.knowledge.revision))
    if without:
        click.echo(f"\n{without} exchanges were passed over: {NO_TEXT}")
    if out is not None:
        write_lines(out, (as_data(one) for one in compared if one.changed))
        click.echo(f"\nwritten to {out}")
    sys.exit(1 if any(one.lost for one in compared) else 0)


def _read(path: Path, revision: str, keys: TextKeys | None) -> Iterator[Past | None]:
    """The conversations of a file; None for each exchange whose text is not there."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                item = orjson.loads(line)
                if not (isinstance(item, dict) and "writer" in item):
                    yield Past(str(item.get("id") or f"line {number}") if isinstance(item, dict) else "", read_item(item)[0])
                elif item["kind"] == "exchange":
                    yield _exchange(item, revision, keys)
            except (MalformedRequest, ValueError, KeyError, TypeError) as error:
                what = "is neither a line of guardrail audit export nor a conversation"
                raise ConfigError(f"{path}:{number}: {what}: {error}") from None


def _exchange(line: Mapping[str, Any], revision: str, keys: TextKeys | None) -> Past | None:
    entry = line["entry"]
    if entry is None or entry.get("decision") is None:
        return None
    if "opened" in line:
        entry = {**entry, **line["opened"]}
    elif "words" in line and keys is not None:
        words = line["words"]["key"], base64.b64decode(line["words"]["data"])
        entry = with_words(entry, words, keys) or entry
    conversation = conversation_of(entry)
    if conversation is None:
        return None
    recorded = entry["decision"]
    return Past(entry["id"], conversation, partial(is_as_recorded, recorded=recorded) if recorded["revision"] == revision else None)
