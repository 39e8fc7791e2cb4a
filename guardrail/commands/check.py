"""`guardrail check`: what would be decided, and why, without a server."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import orjson

from guardrail import check as contract
from guardrail.app import load_guard
from guardrail.commands.folders import packs_options
from guardrail.engine.guard import Guard
from guardrail.engine.model import Decision, Finding
from guardrail.errors import GuardrailError


@click.command()
@click.argument("text", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
@click.option("--jsonl", metavar="FILE", help="Check one JSON object a line; - reads standard input.")
@click.option("--reply", metavar="TEXT", help="A chatbot's reply to review with it.")
@click.option("--country", metavar="XX", help="Country of the patient, for phone numbers.")
@packs_options
def check(
    text: str | None,
    as_json: bool,
    jsonl: str | None,
    reply: str | None,
    country: str | None,
    rules: Path | None,
    overrides: Path | None,
) -> None:
    """Decide about TEXT as the proxy would, and show the evidence; `guardrail explain` tells more."""
    if (text is None) == (jsonl is None):
        raise click.UsageError('give either a text, as in guardrail check "my chest hurts", or --jsonl FILE')
    guard = load_guard(rules, overrides)
    if jsonl is not None:
        sys.exit(0 if _check_lines(guard, jsonl) else 1)
    item = {"text": text, "response": reply, "country": country}
    if as_json:
        click.echo(orjson.dumps(contract.check(guard, item), option=orjson.OPT_INDENT_2))
        return
    conversation, response = contract.read_item(item)
    decision = guard.review(conversation)
    click.echo("\n".join(_explain(guard, decision)))
    if response is not None:
        click.echo("\n".join(_explain_reply(contract.review_reply(guard, decision, conversation, response))))


def _check_lines(guard: Guard, name: str) -> bool:
    """One answer a line, in order, as soon as it is there; False when a line could not be used."""
    out = sys.stdout.buffer
    fine = True
    try:
        with click.open_file(name, "rb") as lines:
            for answer in _answers(guard, lines):
                fine = fine and "error" not in answer
                out.write(orjson.dumps(answer) + b"\n")
                out.flush()
    except OSError as error:
        raise click.UsageError(f"{name}: {error.strerror}") from None
    return fine


def _answers(guard: Guard, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        item: Any = None
        try:
            item = orjson.loads(line)
            yield contract.check(guard, item)
        except orjson.JSONDecodeError as error:
            yield {"id": None, "error": f"line {number}: is not JSON: {error.msg}"}
        except GuardrailError as error:
            yield {"id": item.get("id") if isinstance(item, dict) else None, "error": f"line {number}: {error}"}


def _explain(guard: Guard, decision: Decision) -> Iterator[str]:
    """The decision for a reader: what, why, on which words. `guardrail explain` is the long form."""
    where = f", {str(decision.destination).replace('_', ' ')}" if decision.destination != "none" else ""
    yield f"{decision.urgency.word.upper()}{where}: {decision.action}"
    for hit in decision.hits:
        yield ""
        yield f"{hit.title}  [{hit.pack}/{hit.rule}]"
        for finding in hit.evidence:
            yield f"    {_explain_finding(guard, finding)}"
    if decision.findings and not decision.hits:
        yield ""
        yield "Found, and no rule holds:"
        yield from (f"    {_explain_finding(guard, finding)}" for finding in decision.findings)
    if decision.answer:
        yield ""
        yield "The patient is told:" if decision.action == "answer" else "Added to the reply:"
        yield from (f"    {line}" for line in decision.answer.splitlines())
    yield ""
    yield f"packs {decision.revision}"


def _explain_finding(guard: Guard, finding: Finding) -> str:
    assertion = finding.assertion
    title = guard.knowledge.concepts.get(finding.concept, finding.concept.replace("_", " "))
    notes = [
        str(v) for v, usual in ((assertion.polarity, "present"), (assertion.time, "current"), (assertion.subject, "patient")) if v != usual
    ]
    if finding.person:
        notes.append(finding.person)
    if finding.quantity is not None:
        notes.append(f"{finding.quantity.value:g} {finding.quantity.unit}")
    cues = "".join(f', because of "{cue.text}"' for cue in assertion.cues)
    return f'"{finding.text}" (characters {finding.start}-{finding.end}): {title}' + (f", {', '.join(notes)}" if notes else "") + cues


def _explain_reply(reply: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield f"Reply: {reply['action']}" + (f" ({', '.join(reply['issues'])})" if reply["issues"] else "")
    yield from (f"    {line}" for line in reply["text"].splitlines())
