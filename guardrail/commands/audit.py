"""`guardrail audit`: is the record whole, give it out, erase from it, and look after its keys and tables."""

import csv
import getpass
import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
import orjson

from guardrail.audit import schema
from guardrail.audit.chain import Chain
from guardrail.audit.database import open_database
from guardrail.audit.entry import access_entry
from guardrail.audit.export import read_lines, seals_among, write_line
from guardrail.audit.keys import PublicKey, SigningKey, TextKeys, add_text_key
from guardrail.audit.reader import AuditReader
from guardrail.audit.row import as_bytes
from guardrail.audit.verify import Verification
from guardrail.audit.verify import verify as verify_rows
from guardrail.errors import ConfigError, StoreError

_FILE = click.Path(path_type=Path, dir_okay=False)
_URL: dict[str, Any] = {"envvar": "GUARDRAIL_AUDIT", "metavar": "URL", "help": "sqlite:///path or postgresql://user@host/name"}
url_option = click.option("--audit", "url", required=True, **_URL)
_signing_key = click.option(
    "--signing-key",
    type=_FILE,
    envvar="GUARDRAIL_AUDIT_SIGNING_KEY",
    metavar="FILE",
    help="Seals the entry that says so.",
)
_text_keys = click.option(
    "--text-keys", type=_FILE, envvar="GUARDRAIL_AUDIT_TEXT_KEYS", metavar="FILE", help="The keys that open encrypted texts."
)
_DAY = 86_400
_CSV = ("id", "time", "urgency", "destination", "action", "rules", "outcome", "dialect", "tenant", "guard_ms", "upstream_ms", "total_ms")
# A cell that begins so is a formula to a spreadsheet.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@click.group()
def audit() -> None:
    """The record of exchanges: verify, export, purge; its keys and tables."""


@audit.command()
@click.option("--audit", "url", **_URL)
@click.option("--export", "exported", type=_FILE, metavar="FILE", help="Verify this export (JSONL) in place of a store.")
@click.option(
    "--public-key", "public_keys", type=_FILE, multiple=True, metavar="FILE", help="Check the seals' signatures; again for older keys."
)
@click.option("--heads", type=_FILE, metavar="FILE", help="Compare with the ends kept here, then keep the new ones.")
def verify(url: str | None, exported: Path | None, public_keys: tuple[Path, ...], heads: Path | None) -> None:
    """Find edits, deletions, insertions, another order; with --public-key and --heads also what was made over or cut short."""
    keys = [PublicKey.read(path) for path in public_keys]
    kept = _read_heads(heads) if heads else {}
    if exported is not None:
        found = verify_rows(read_lines(exported), seals=seals_among(read_lines(exported)), keys=keys, kept_heads=kept)
    elif url is not None:
        with _opened(url) as reader, reader.snapshot():
            shown = reader.shown_reviews()
            found = verify_rows(reader.chains(), seals=reader.seals(), keys=keys, kept_heads=kept, shown_reviews=shown)
    else:
        raise click.UsageError("say what to verify: --audit URL or --export FILE")
    for line in _findings(found, checked=bool(keys)):
        click.echo(line)
    if found.problems:
        sys.exit(1)
    if heads:
        # Replaced whole: heads that are half written would accuse an innocent store.
        fresh = heads.with_name(heads.name + ".new")
        fresh.write_bytes(orjson.dumps(found.heads, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
        fresh.replace(heads)


def _findings(found: Verification, *, checked: bool) -> Iterator[str]:
    yield from found.problems
    yield f"{found.entries} entries of {len(found.heads)} writers, {found.erased} erased, {len(found.problems)} problems"
    if found.seals:
        yield f"{found.seals} seals; {found.unsealed} entries come after the last seal of their writer; a loss there shows with --heads"
        if not checked:
            yield "The seals' signatures were not checked: give --public-key"
    if found.reviews:
        yield f"{found.reviews} steps of reviews" + (
            f"; {found.taken_over} were taken over from an older version, and nobody sealed them before" if found.taken_over else ""
        )
    if found.open:
        yield f"{len(found.open)} writers without a closing seal: they run, were killed, or were cut short"


@audit.command()
@url_option
@click.option(
    "--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl", help="JSONL holds everything, CSV a line of figures."
)
@click.option("--output", type=_FILE, metavar="FILE", help="Otherwise standard output.")
@_text_keys
@_signing_key
def export(url: str, form: str, output: Path | None, text_keys: Path | None, signing_key: Path | None) -> None:
    """Write every exchange, oldest first within each writer. That you did is recorded."""
    keys = TextKeys.read(text_keys) if text_keys else None
    chain = _chain(signing_key)
    with _opened(url) as reader:
        reader.keep(chain, access_entry(who(), "exported", None, time.time()))
        with reader.snapshot():
            lines = (write_line(row, keys) for row in reader.chains()) if form == "jsonl" else _csv(reader)
            if output is None:
                for line in lines:
                    sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
                return
            try:
                with output.open("wb") as file:
                    file.writelines(lines)
            except OSError as error:
                raise click.UsageError(f"{output}: {error.strerror}") from None


@audit.command()
@url_option
@click.option("--older-than", "days", type=click.FloatRange(min=0), metavar="DAYS", help="Erase what is older than so many days.")
@click.option("--exchange", metavar="ID", help="Erase this exchange.")
@click.option("--patient", metavar="PSEUDONYM", help="Erase what a patient wrote; the pseudonym is that of the dashboard.")
@_signing_key
def purge(url: str, days: float | None, exchange: str | None, patient: str | None, signing_key: Path | None) -> None:
    """Erase the content of exchanges. Their hashes stay, so that the record can still be verified, and an entry says what was erased."""
    if sum(given is not None for given in (days, exchange, patient)) != 1:
        raise click.UsageError("say what to erase: one of --older-than, --exchange and --patient")
    chain = _chain(signing_key)
    with _opened(url) as reader:
        if signing_key is None and reader.is_sealed():
            raise ConfigError("--signing-key: this record is sealed, and so must be what says that something was erased")
        before = time.time() - days * _DAY if days is not None else None
        erased = reader.purge(chain, who(), before=before, exchange=exchange, patient=patient)
    click.echo(f"{erased} exchanges erased")


@audit.command()
@url_option
@click.option("--text-keys", type=_FILE, required=True, envvar="GUARDRAIL_AUDIT_TEXT_KEYS", metavar="FILE", help="The new key first.")
def rotate(url: str, text_keys: Path) -> None:
    """Encrypt kept texts anew under the first key of the file; then the others may go."""
    keys = TextKeys.read(text_keys)
    with _opened(url) as reader:
        done, lost = reader.rotate(keys)
    click.echo(f"{done} texts encrypted anew under {keys.current}, {lost} could not be opened with these keys")
    if lost:
        sys.exit(1)


@audit.command("signing-key")
@click.argument("file", type=_FILE)
def signing_key(file: Path) -> None:
    """Make the key that seals the record, and beside it FILE.pub, with which others verify."""
    public = SigningKey.new().write(file)
    click.echo(f"{file}: for audit_signing_key; keep it secret\n{public}: for guardrail audit verify --public-key; keep it elsewhere")


@audit.command("text-key")
@click.argument("file", type=_FILE)
def text_key(file: Path) -> None:
    """Put a new key for texts first in FILE, which is made if need be. It encrypts; the others go on decrypting."""
    click.echo(f"{file}: new key {add_text_key(file)}, for audit_text_keys; whoever loses the file loses the texts")


@audit.command()
@url_option
@click.option("--to", type=int, metavar="N", help="Another version than the newest. What older tables cannot hold is lost.")
def migrate(url: str, to: int | None) -> None:
    """Bring the tables to the newest version, or back to an older one. Stop everything that writes before going back."""
    check_file(url)
    try:
        with closing(open_database(url, migrate=False)) as database:
            before, after = schema.migrate(database, to)
    except StoreError as error:
        raise ConfigError(f"--audit: {shown(url)}: {error}") from error
    click.echo(f"schema {before}" if before == after else f"schema {before} to {after}")


@contextmanager
def _opened(url: str) -> Iterator[AuditReader]:
    """The store; what goes wrong with it is a matter of this option."""
    check_file(url)
    try:
        with closing(AuditReader(url)) as reader:
            yield reader
    except StoreError as error:
        raise ConfigError(f"--audit: {shown(url)}: {error}") from error


def check_file(url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    # SQLite would make an empty file, and an empty record verifies.
    if url.startswith("sqlite:///") and not path.is_file():
        raise ConfigError(f"--audit: there is no record at {path}")


def _chain(signing_key: Path | None) -> Chain:
    return Chain(SigningKey.read(signing_key) if signing_key else None)


def who() -> str:
    """Who calls, as the system knows them."""
    try:
        return f"{getpass.getuser()} (command line)"
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()} (command line)"


def shown(url: str) -> str:
    return url.split("@")[-1]


def _read_heads(path: Path) -> dict[str, tuple[int, str]]:
    if not path.exists():
        return {}
    try:
        return {writer: (int(seq), str(digest)) for writer, (seq, digest) in orjson.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"--heads: {path} is not a file of heads: {error}") from error


def _csv(reader: AuditReader) -> Iterator[bytes]:
    yield _csv_line(_CSV)
    for row in reader.chains():
        if row.body is None or row.kind != "exchange":
            continue
        entry: dict[str, Any] = orjson.loads(as_bytes(row.body))
        decision = entry["decision"] or {"urgency": "", "destination": "", "action": "", "rules": ()}
        rules = " ".join(hit["id"] for hit in decision["rules"])
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry["at"]))
        values = (entry["id"], at, decision["urgency"], decision["destination"], decision["action"], rules, entry["outcome"])
        yield _csv_line((*values, entry["dialect"], entry["tenant"] or "", entry["guard_ms"], entry["upstream_ms"], entry["total_ms"]))


def _csv_line(values: tuple[Any, ...]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow([f"'{v}" if isinstance(v, str) and v.startswith(_FORMULA) else v for v in values])
    return out.getvalue().encode()
