"""`guardrail explain`: one decision in full: the text with what was understood, each rule with its reasons, and what would have changed it.

A text is explained as its record would be, so there is one form for both. `check` is the short one.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from guardrail.audit.chain import Chain
from guardrail.audit.entry import access_entry, entry_of
from guardrail.audit.keys import SigningKey, TextKeys
from guardrail.audit.reader import AuditReader
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.check import read_item
from guardrail.commands.audit import check_file, shown, who
from guardrail.commands.folders import packs_options, read_packs
from guardrail.dashboard.counterfactual import tell
from guardrail.dashboard.highlight import group, highlight
from guardrail.engine.guard import Guard
from guardrail.engine.knowledge import Knowledge
from guardrail.engine.rules import Rule
from guardrail.errors import ConfigError, StoreError

_FILE = click.Path(path_type=Path, dir_okay=False)
_BRACKETS = {"evidence": "[{}]", "cue": "{{{}}}", "finding": "<{}>", "": "{}"}


@click.command()
@click.argument("what", metavar="TEXT|EXCHANGE_ID")
@click.option("--audit", "url", envvar="GUARDRAIL_AUDIT", metavar="URL", help="The record that holds the exchange of this id.")
@click.option("--text", "is_text", is_flag=True, help="It is a text, though GUARDRAIL_AUDIT names a record.")
@click.option("--country", metavar="XX", help="Country of the patient, for phone numbers; of a text.")
@packs_options
@click.option("--text-keys", type=_FILE, envvar="GUARDRAIL_AUDIT_TEXT_KEYS", metavar="FILE", help="The keys that open encrypted texts.")
@click.option("--signing-key", type=_FILE, envvar="GUARDRAIL_AUDIT_SIGNING_KEY", metavar="FILE", help="Seals the entry that you looked.")
def explain(
    what: str,
    url: str | None,
    is_text: bool,
    country: str | None,
    rules: Path | None,
    overrides: Path | None,
    text_keys: Path | None,
    signing_key: Path | None,
) -> None:
    """Explain the decision about TEXT, or with --audit that about a recorded exchange. That you opened the exchange is recorded."""
    entry = None if url is None or is_text else _recorded(what, url, text_keys, signing_key)
    guard = Guard(read_packs(rules, overrides).knowledge)
    answer = None
    if entry is None:
        entry, answer = _decided(guard, what, country)
    click.echo("\n".join(_lines(guard, entry, answer)))


def _decided(guard: Guard, text: str, country: str | None) -> tuple[dict[str, Any], str | None]:
    """What would be recorded of a text, and what the patient would be told."""
    conversation, _ = read_item({"text": text, "country": country})
    decision = guard.review(conversation)
    record = ExchangeRecord("", 0.0, "", Outcome.ANSWERED, decision, texts=(text,), turns=(0,))
    return entry_of(record, b""), decision.answer


def _recorded(id_: str, url: str, text_keys: Path | None, signing_key: Path | None) -> dict[str, Any]:
    check_file(url)
    chain = Chain(SigningKey.read(signing_key) if signing_key else None)
    try:
        with closing(AuditReader(url, TextKeys.read(text_keys) if text_keys else None)) as reader:
            entry = reader.entry(id_, words=text_keys is not None)
            if entry is not None:
                reader.keep(chain, access_entry(who(), "opened", id_, time.time()))
    except StoreError as error:
        raise ConfigError(f"--audit: {shown(url)}: {error}") from error
    if entry is None:
        raise ConfigError(f'there is no exchange "{id_}" in {shown(url)}, or it was erased')
    return entry


def _lines(guard: Guard, entry: Mapping[str, Any], answer: str | None) -> Iterator[str]:
    knowledge, decision = guard.knowledge, entry["decision"]
    if entry["id"]:
        when = datetime.fromtimestamp(entry["at"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        yield f"exchange {entry['id']}, {when}, {entry['outcome'].replace('_', ' ')}"
    if decision is None:
        yield f"There was no decision: {entry['error'] or entry['outcome']}"
        return
    yield f"{decision['urgency'].upper()}, {decision['destination'].replace('_', ' ')}: {decision['action']}"
    if decision["reminder"]:
        yield "The patient had moved on from what was escalated before, and was reminded of it."
    yield from _text(entry, decision)
    rules = {named.id: named.rule for named in knowledge.rules}
    for title, hits in (("Why", decision["rules"]), ("Held in shadow, without effect", decision["shadow"])):
        if hits:
            yield from ("", f"{title}:")
            for hit in hits:
                yield from _rule(hit, rules.get(hit["id"]), knowledge)
    yield from _findings(decision, knowledge)
    yield from _otherwise(guard, entry)
    if answer:
        yield from ("", "The patient is told:" if decision["action"] == "answer" else "Added to the reply:")
        yield from (f"    {line}" for line in answer.splitlines())
    yield ""
    yield f"packs {decision['revision']}" + ("" if decision["revision"] == knowledge.revision else f"; reasons from {knowledge.revision}")


def _text(entry: Mapping[str, Any], decision: Mapping[str, Any]) -> Iterator[str]:
    texts = entry["texts"]
    if not texts or not all(isinstance(text, str) for text in texts):
        yield from ("", "The text is not kept, or is encrypted (--text-keys).")
        return
    evidence = [f for hit in decision["rules"] for f in hit["evidence"]]
    yield from ("", "The patient wrote, with [evidence], {words that change what a mention means} and <what else was found>:")
    for segments in highlight(texts, evidence, decision["findings"], entry.get("turns")):
        marked = "".join(_BRACKETS[s.kind].format(s.text) for s in segments)
        yield from (f"    {line}" for line in marked.splitlines())


def _rule(hit: Mapping[str, Any], rule: Rule | None, knowledge: Knowledge) -> Iterator[str]:
    yield f"  {hit['title']}  [{hit['pack']}/{hit['id']}]"
    if rule is None:
        yield "    no such rule in these packs"
        yield from (f"    source: {source}" for source in hit["sources"])
    else:
        yield from (f"    {line}" for line in rule.why.strip().splitlines())
        yield f"    tier {rule.tier}, {rule.maturity}; worse mistake: {rule.worse_mistake.replace('_', ' ')}"
        for source in rule.sources:
            yield f"    source: {source.name} (grade {source.grade}){f' {source.url}' if source.url else ''}"
    for row in group(hit["evidence"], knowledge.concepts):
        yield f"    {_finding(row)}"


def _findings(decision: Mapping[str, Any], knowledge: Knowledge) -> Iterator[str]:
    """What was found and was no evidence: first what did not count, with what said so."""
    evidence = {_key(f) for name in ("rules", "shadow") for hit in decision[name] for f in hit["evidence"]}
    others = group((f for f in decision["findings"] if _key(f) not in evidence), knowledge.concepts)
    for title, rows in (
        ("Found, and did not count", [r for r in others if not r["counts"]]),
        ("Found besides, and no rule needed it", [r for r in others if r["counts"]]),
    ):
        if rows:
            yield from ("", f"{title}:", *(f"    {_finding(row)}" for row in rows))


def _key(finding: Mapping[str, Any]) -> tuple[Any, ...]:
    return finding["concept"], finding["turn"], finding["start"], finding["end"]


def _finding(row: Mapping[str, Any]) -> str:
    cues = ", ".join(f'"{c["text"]}" ({c["kind"].replace("_", " ")})' for c in row["cues"] if c["text"])
    words = f'"{row["text"]}": ' if row["text"] else ""
    return f"{words}{', '.join(row['concepts'])}; {row['understood']}" + (f", by {cues}" if cues else "")


def _otherwise(guard: Guard, entry: Mapping[str, Any]) -> Iterator[str]:
    found = tell(guard, entry)
    yield from ("", "What would have changed the result:")
    if not found["told"]:
        yield f"    cannot be told: {found['reason']}"
    elif not found["changes"]:
        yield (
            f"    no single one of the {found['tried']} pieces of evidence and cues"
            if found["tried"]
            else "    there was nothing to leave out"
        )
    yield from _changes(found["changes"])


def _changes(changes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for change in changes:
        where = "" if change["destination"] == "none" else f", {change['destination'].replace('_', ' ')}"
        yield f'    without "{change["words"]}" ({change["kind"].replace("_", " ")}): {change["urgency"].upper()}{where}'
