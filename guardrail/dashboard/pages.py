"""The dashboard at `/-/dashboard`: rendered on the server, escaped, without scripts except one that refreshes what is shown.

Each page is a query (`queries.py`) and a template; the same path with `.json` gives the query's answer as it is, which `openapi.py`
describes. Nobody is served without credentials (`signing_in.py`), except that `guardrail demo` opens it to this machine. Nothing here
decides about patients.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from guardrail.audit.keys import SigningKey, TextKeys
from guardrail.audit.reader import AuditReader
from guardrail.dashboard import queries
from guardrail.dashboard.access import Access
from guardrail.dashboard.cases import case_of
from guardrail.dashboard.chart import draw
from guardrail.dashboard.counterfactual import Counterfactual
from guardrail.dashboard.forms import Networks, read_form
from guardrail.dashboard.oidc import Provider
from guardrail.dashboard.openapi import description
from guardrail.dashboard.people import Role, Visitor
from guardrail.dashboard.render import HERE, ROOT, SECURITY_HEADERS, Renderer, json
from guardrail.dashboard.signing_in import AWAY, SigningIn
from guardrail.engine.knowledge import Knowledge
from guardrail.errors import StoreError

_COMMENT_CHARS: Final = 2000
_PROBLEMS: Final = {
    "audit": "The audit store is away. Patients are still answered, and records wait in the spool until it is back.",
    "upstream": "The model cannot be reached. Emergencies are still answered; other questions get an error that says so.",
    "packs": "Newer packs do not load. Those before them stay in force: see the page of packs.",
}

Build = Callable[[Request, Visitor], Awaitable[dict[str, Any] | None]]
RecordAccess = Callable[[str, str, str], None]
"""Keeps who did what (opened, exported) with which exchange."""


@dataclass(slots=True)
class Reader:
    """The store, opened when it is first needed and again after it was away."""

    url: str
    keys: TextKeys | None = None
    signing: SigningKey | None = None
    _reader: AuditReader | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, query: Callable[..., Any], *args: Any) -> Any:
        """Call `query(reader, *args)` in a thread; raises StoreError."""
        async with self._opening:
            if self._reader is None:
                self._reader = await asyncio.to_thread(AuditReader, self.url, self.keys, self.signing)
        try:
            return await asyncio.to_thread(query, self._reader, *args)
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


class Dashboard:
    """The pages. `knowledge` gives the packs in force, `parts` what works by name, `reload` swaps the packs; `workers` is how many workers
    of this server have which revision, `problems` what keeps newer packs from being in force.

    `provider`, `secure` and `proxies` are those of `SigningIn`.
    """

    def __init__(
        self,
        reader: Reader,
        knowledge: Callable[[], Knowledge],
        parts: Callable[[], Mapping[str, bool | None]],
        access: Access,
        reload: Callable[[], Awaitable[tuple[int, dict[str, Any]]]] | None = None,
        record_access: RecordAccess = lambda by, action, exchange: None,
        *,
        workers: Callable[[], Mapping[str, int]] = dict,
        problems: Callable[[], Sequence[str]] = tuple,
        provider: Provider | None = None,
        secure: bool = False,
        proxies: Networks = (),
    ) -> None:
        self._reader = reader
        self._knowledge = knowledge
        self._parts = parts
        self._access = access
        self._reload = reload
        self._workers = workers
        self._problems = problems
        self._record_access = record_access
        self._counterfactual = Counterfactual()
        self._render = Renderer(access.form_token, can_reload=reload is not None)
        self._door = SigningIn(access, self._render, provider=provider, secure=secure, proxies=proxies)

    def routes(self) -> list[BaseRoute]:
        routes: list[BaseRoute] = [
            *self._door.routes(),
            Route(f"{ROOT}/exchanges/{{id}}/review", self.review, methods=["POST"]),
            Route(f"{ROOT}/exchanges/{{id}}/case.yaml", self.case),
            Route(f"{ROOT}/openapi.json", self.openapi),
            Route(f"{ROOT}/packs/reload", self.reload, methods=["POST"]),
            Mount(f"{ROOT}/static", StaticFiles(directory=HERE / "static")),
        ]
        pages: tuple[tuple[str, str, Build], ...] = (
            ("", "overview", self._overview),
            ("/exchanges", "exchanges", self._exchanges),
            ("/exchanges/{id}", "exchange", self._exchange),
            ("/review", "review", self._review_queue),
            ("/rules", "rules", self._rules),
            ("/packs", "packs", self._packs),
        )
        for path, name, build in pages:
            # The twin first: `{id}` would take `.json` for a part of the id.
            routes.append(Route(f"{ROOT}{path}.json", self._json(build)))
            routes.append(Route(f"{ROOT}{path}", self._html(name, build)))
        routes.append(Route(f"{ROOT}/", lambda request: RedirectResponse(ROOT, 308)))
        return routes

    # Pages

    async def _overview(self, request: Request, visitor: Visitor) -> dict[str, Any]:
        span = request.query_params.get("span", "24h")
        span = span if span in queries.SPANS else "24h"
        data: dict[str, Any] = await self._reader.run(queries.overview, self._knowledge(), self._parts(), span, queries.now())
        return data

    async def _exchanges(self, request: Request, visitor: Visitor) -> dict[str, Any]:
        data: dict[str, Any] = await self._reader.run(queries.exchanges, queries.Filter.read(request.query_params))
        return data

    async def _exchange(self, request: Request, visitor: Visitor) -> dict[str, Any] | None:
        id = request.path_params["id"]
        may_read = visitor.role >= Role.REVIEWER
        data: dict[str, Any] | None = await self._reader.run(queries.exchange, id, self._knowledge(), may_read)
        if data is not None:
            self._record_access(visitor.name, "opened", id)
            data["otherwise"] = await asyncio.to_thread(self._counterfactual.of, data["exchange"], self._knowledge())
        return data

    async def _review_queue(self, request: Request, visitor: Visitor) -> dict[str, Any]:
        data: dict[str, Any] = await self._reader.run(queries.queue)
        return data

    async def _rules(self, request: Request, visitor: Visitor) -> dict[str, Any]:
        data: dict[str, Any] = await self._reader.run(queries.rules, self._knowledge())
        return data

    async def _packs(self, request: Request, visitor: Visitor) -> dict[str, Any]:
        return queries.packs(self._knowledge(), self._workers(), self._problems())

    def _html(self, name: str, build: Build) -> Callable[[Request], Awaitable[Response]]:
        async def page(request: Request) -> Response:
            visitor = await self._door.visitor(request)
            if isinstance(visitor, Response):
                return visitor
            try:
                data = await build(request, visitor)
            except StoreError:
                return self._render.problem(request, visitor, 503, AWAY)
            if data is None:
                return self._render.problem(request, visitor, 404, "There is no such exchange, or it was erased.")
            extra: dict[str, Any] = {"query": dict(request.query_params)}
            if name == "exchanges":
                extra["rules"] = [(named.id, named.rule.title) for named in self._knowledge().rules]
            if name == "overview":
                extra["problems_of"] = _PROBLEMS
                extra["chart"] = draw(data["bars"], list(data["destinations"]))
            if name == "exchanges" and data["next"]:
                extra["next_page"] = "?" + urlencode({**request.query_params, "cursor": data["next"]})
            return self._render.page(name, request, visitor, data=data, **extra)

        return page

    def _json(self, build: Build) -> Callable[[Request], Awaitable[Response]]:
        async def twin(request: Request) -> Response:
            visitor = await self._door.visitor(request, html=False)
            if isinstance(visitor, Response):
                return visitor
            try:
                data = await build(request, visitor)
            except StoreError:
                return json({"error": "the audit store is away"}, 503)
            return json(data) if data is not None else json({"error": "there is no such exchange"}, 404)

        return twin

    async def openapi(self, request: Request) -> Response:
        """The description of the twins."""
        visitor = await self._door.visitor(request, html=False)
        return visitor if isinstance(visitor, Response) else json(description())

    # Forms

    async def review(self, request: Request) -> Response:
        """Acknowledge an exchange, or resolve it with a verdict."""
        visitor = await self._door.visitor(request, Role.REVIEWER)
        if isinstance(visitor, Response):
            return visitor
        form = await read_form(request)
        if not self._access.is_form_token(visitor, form.get("token", "")):
            return self._door.refuse_form(request, visitor)
        verdict = form.get("verdict") or None
        state = "resolved" if verdict else "acknowledged"
        if verdict is not None and verdict not in queries.VERDICTS:
            return self._render.problem(request, visitor, 400, "There is no such verdict.")
        id = request.path_params["id"]
        comment = form.get("comment", "").replace("\0", "").strip()[:_COMMENT_CHARS] or None
        try:
            if await self._reader.run(AuditReader.entry, id) is None:
                return self._render.problem(request, visitor, 404, "There is no such exchange, or it was erased.")
            await self._reader.run(AuditReader.review, id, state, verdict, comment, visitor.name)
        except StoreError:
            return self._render.problem(request, visitor, 503, "The audit store is away; nothing was saved. Try again.")
        return RedirectResponse(f"{ROOT}/review" if form.get("back") == "review" else f"{ROOT}/exchanges/{id}", 303)

    async def case(self, request: Request) -> Response:
        """The verdict as a test case."""
        visitor = await self._door.visitor(request, Role.REVIEWER)
        if isinstance(visitor, Response):
            return visitor
        id = request.path_params["id"]
        try:
            entry = await self._reader.run(queries.entry_with_words, id)
            reviews = await self._reader.run(AuditReader.reviews, id)
        except StoreError:
            return self._render.problem(request, visitor, 503, "The audit store is away.")
        resolved = [r for r in reviews if r["state"] == "resolved"]
        text = case_of(entry, resolved[-1]) if entry and resolved else None
        if text is None:
            message = "There is no verdict on this exchange yet, or its text was not kept."
            return self._render.problem(request, visitor, 404, message)
        self._record_access(visitor.name, "exported", id)
        headers = {**SECURITY_HEADERS, "content-disposition": "attachment; filename=case.yaml"}
        return Response(text, media_type="application/yaml", headers=headers)

    async def reload(self, request: Request) -> Response:
        visitor = await self._door.visitor(request, Role.ADMIN)
        if isinstance(visitor, Response):
            return visitor
        if not await self._door.is_own_form(request, visitor):
            return self._door.refuse_form(request, visitor)
        if self._reload is None:
            return self._render.problem(request, visitor, 404, "Packs cannot be reloaded here.")
        status, answer = await self._reload()
        if status != 200:
            return self._render.problem(request, visitor, status, answer["error"], problems=answer.get("problems", ()))
        return RedirectResponse(f"{ROOT}/packs", 303)
