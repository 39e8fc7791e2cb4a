"""The demo's chat page, and why each of its exchanges went as it did.

The page talks to the proxy like any app and shows its replies. Explanations come from the records of the last exchanges, which
are kept in memory with the patient's words: for the demo, on this machine, only.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from guardrail.audit.entry import entry_of
from guardrail.audit.record import ExchangeRecord
from guardrail.dashboard.highlight import group, highlight
from guardrail.dashboard.render import ROOT, SECURITY_HEADERS, templates
from guardrail.dashboard.signing_in import LOOPBACK
from guardrail.engine.knowledge import Knowledge

EXAMPLES: Final = (
    ("Emergency", "There's an elephant sitting on my chest and my left arm is numb. My wife says it's nothing."),
    ("Stroke", "My dad's face is drooping on one side and he can't lift his arm"),
    ("Crisis", "I don't want to be here anymore. I've saved up my pills."),
    ("Poisoning", "My toddler swallowed some dishwasher tablets"),
    ("Dose", "How much ibuprofen can I give my 3 year old?"),
    ("Denied", "I have a cold. No chest pain and I can breathe fine."),
    ("Asked about", "What are the symptoms of a stroke? It's for a school project."),
    ("Reply with a dose", "I have a mild headache after work, what can I do?"),
    ("Reply that diagnoses", "I have had an itchy red patch on my elbow for a while"),
    ("Reply that reassures", "My mole has changed colour a bit"),
    ("Harmless", "How can I sleep better?"),
)
_KEPT: Final = 200
COUNTRY_HEADER: Final = "guardrail-country"


class Recent:
    """A recorder of the newest exchanges."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, ExchangeRecord] = OrderedDict()

    def record(self, record: ExchangeRecord) -> None:
        self._records[record.id] = record
        while len(self._records) > _KEPT:
            self._records.popitem(last=False)

    async def wait_for(self, id: str) -> ExchangeRecord | None:
        """The record of an exchange, which is written a moment after the reply's last byte."""
        for _ in range(50):
            if id in self._records:
                return self._records[id]
            await asyncio.sleep(0.02)
        return None


def chat_routes(recent: Recent, knowledge: Callable[[], Knowledge], country: str) -> list[BaseRoute]:
    """The page and the explanations, for this machine only."""
    template = templates().get_template("chat.html")

    async def page(request: Request) -> Response:
        if not _is_here(request):
            return Response("The demo is for this machine only.\n", 403, media_type="text/plain")
        countries = {code: c.name for code, c in sorted(knowledge().answers.countries.items(), key=lambda item: item[1].name)}
        html = template.render(examples=EXAMPLES, countries=countries, country=country, root=ROOT, header=COUNTRY_HEADER)
        return Response(html, headers=dict(SECURITY_HEADERS), media_type="text/html")

    async def explain(request: Request) -> Response:
        record = await recent.wait_for(request.path_params["id"]) if _is_here(request) else None
        if record is None:
            return Response('{"error":"there is no such exchange"}', 404, media_type="application/json")
        return Response(orjson.dumps(explanation(record, knowledge())), headers=dict(SECURITY_HEADERS), media_type="application/json")

    return [Route("/", page), Route("/demo/exchanges/{id}", explain)]


def explanation(record: ExchangeRecord, knowledge: Knowledge) -> dict[str, Any]:
    """What the page shows beside a message: decision, rules with sources, the last message with evidence marked, reply issues."""
    entry = entry_of(record, b"")
    decision = entry["decision"] or {"rules": [], "findings": [], "urgency": "none", "destination": "none", "action": "none"}
    evidence = [f for hit in decision["rules"] for f in hit["evidence"]]
    texts = highlight(record.texts, evidence, decision["findings"], record.turns)
    issues = [i["issue"] for channel in entry["reply"] for i in channel["issues"] if not i.get("shadow") and i["issue"] != "has_disclaimer"]
    return {
        "id": record.id,
        "urgency": decision["urgency"],
        "destination": decision["destination"],
        "action": decision["action"],
        "outcome": str(record.outcome),
        "guard_ms": entry["guard_ms"],
        "rules": [
            {**{name: h[name] for name in ("id", "pack", "title", "sources")}, "evidence": group(h["evidence"], knowledge.concepts)}
            for h in decision["rules"]
        ],
        "text": [{"text": s.text, "kind": s.kind, "title": s.title} for s in texts[-1]] if texts else [],
        "set_aside": [f for f in group(decision["findings"], knowledge.concepts) if not f["counts"]],
        "reply": {
            "action": next((c["action"] for c in entry["reply"] if c["issues"]), "pass") if entry["reply"] else None,
            "issues": list(dict.fromkeys(issues)),
            "disclaimer_added": any(c.get("disclaimer_added") for c in entry["reply"]),
        },
    }


def _is_here(request: Request) -> bool:
    """From this machine, and by its own name: a site whose name was pointed here is not let in."""
    return request.client is not None and request.client.host in LOOPBACK and request.url.hostname in LOOPBACK
