"""`guardrail audit`: is the record whole, give it out, erase what is too old."""

import csv
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import orjson

from guardrail.audit.store import AuditReader
from guardrail.audit.verify import verify as verify_rows
from guardrail.errors import ConfigError, StoreError

_url = click.option(
    "--audit", "url", required=True, envvar="GUARDRAIL_AUDIT", metavar="URL", help="sqlite:///path or postgresql://user@host/name"
)
_DAY = 86_400
_CSV = ("id", "time", "urgency", "destination", "action", "rules", "outcome", "dialect", "tenant", "guard_ms", "upstream_ms", "total_ms")
# A cell that begins so is a formula to a spreadsheet.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@click.group()
def audit() -> None:
    """The record of exchanges: verify, export, purge."""


@audit.command()
@_url
@click.option(
    "--heads",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Compare with the ends kept here, then keep the new ones.",
)
def verify(url: str, heads: Path | None) -> None:
    """Find edits, deletions and insertions. With --heads also a record that was cut short."""
    kept = _read_heads(heads) if heads else {}
    reader = _open(url)
    try:
        found = verify_rows(reader.chains(), kept)
    except StoreError as error:
        raise ConfigError(f"{_shown(url)}: {error}") from error
    finally:
        reader.close()
    for problem in found.problems:
        click.echo(problem)
    click.echo(f"{found.entries} entries of {len(found.heads)} writers, {found.erased} erased, {len(found.problems)} problems")
    if found.problems:
        sys.exit(1)
    if heads:
        # Replaced whole: heads that are half written would accuse an innocent store.
        fresh = heads.with_name(heads.name + ".new")
        fresh.write_bytes(orjson.dumps(found.heads, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
        fresh.replace(heads)


@audit.command()
@_url
@click.option(
    "--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", help="JSONL holds everything, CSV a line of figures."
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Otherwise standard output.")
def export(url: str, form: str, output: Path | None) -> None:
    """Write every exchange, oldest first within each writer."""
    reader = _open(url)
    try:
        lines = _jsonl(reader) if form == "jsonl" else _csv(reader)
        if output is None:
            for line in lines:
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            return
        with output.open("wb") as file:
            file.writelines(lines)
    except OSError as error:
        raise click.UsageError(f"{output}: {error.strerror}") from None
    except StoreError as error:
        raise ConfigError(f"{_shown(url)}: {error}") from error
    finally:
        reader.close()


@audit.command()
@_url
@click.option(
    "--older-than", "days", type=click.FloatRange(min=0), required=True, metavar="DAYS", help="Erase what is older than so many days."
)
def purge(url: str, days: float) -> None:
    """Erase the content of old exchanges. Their hashes stay, so that the record can still be verified."""
    reader = _open(url)
    try:
        erased = reader.purge(time.time() - days * _DAY)
    except StoreError as error:
        raise ConfigError(f"{_shown(url)}: {error}") from error
    finally:
        reader.close()
    click.echo(f"{erased} exchanges erased")


def _open(url: str) -> AuditReader:
    path = Path(url.removeprefix("sqlite:///"))
    # SQLite would make an empty file, and an empty record verifies.
    if url.startswith("sqlite:///") and not path.is_file():
        raise ConfigError(f"--audit: there is no record at {path}")
    try:
        return AuditReader(url)
    except StoreError as error:
        raise ConfigError(f"--audit: {_shown(url)}: {error}") from error


def _shown(url: str) -> str:
    return url.split("@")[-1]


def _read_heads(path: Path) -> dict[str, tuple[int, str]]:
    if not path.exists():
        return {}
    try:
        return {writer: (int(seq), str(digest)) for writer, (seq, digest) in orjson.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"--heads: {path} is not a file of heads: {error}") from error


def _jsonl(reader: AuditReader) -> Iterator[bytes]:
    """The entries as they were hashed, each with its place in its chain: enough to verify them elsewhere."""
    for writer, seq, exchange, at, kind, _, _, _, _, _, body, before, digest in reader.chains():
        line = {"writer": writer, "seq": seq, "id": exchange, "at": at, "kind": kind, "before": before, "hash": digest}
        yield orjson.dumps({**line, "entry": orjson.Fragment(bytes(body)) if body is not None else None}) + b"\n"


def _csv(reader: AuditReader) -> Iterator[bytes]:
    yield _csv_line(_CSV)
    for row in reader.chains():
        if row[10] is None:
            continue
        entry: dict[str, Any] = orjson.loads(bytes(row[10]))
        decision = entry["decision"] or {"urgency": "", "destination": "", "action": "", "rules": ()}
        rules = " ".join(hit["id"] for hit in decision["rules"])
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry["at"]))
        values = (entry["id"], at, decision["urgency"], decision["destination"], decision["action"], rules, entry["outcome"])
        yield _csv_line((*values, entry["dialect"], entry["tenant"] or "", entry["guard_ms"], entry["upstream_ms"], entry["total_ms"]))


def _csv_line(values: tuple[Any, ...]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow([f"'{v}" if isinstance(v, str) and v.startswith(_FORMULA) else v for v in values])
    return out.getvalue().encode()
