"""The dashboard at `/-/dashboard`: rendered on the server, escaped, without scripts except one that refreshes what is shown.

Each page is a query (`queries.py`) and a template; the same path with `.json` gives the query's answer as it is. Nobody is served
without credentials (`access.py`), except that `guardrail demo` opens it to this machine. Nothing here decides about patients.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import jinja2
import orjson
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from guardrail.audit.keys import TextKeys
from guardrail.audit.reader import AuditReader
from guardrail.audit.record import Outcome
from guardrail.dashboard import queries
from guardrail.dashboard.access import COOKIE, LOOPBACK, SESSION_SECONDS, Access, Role, TooManyTries, Visitor
from guardrail.dashboard.cases import case_of
from guardrail.dashboard.chart import draw
from guardrail.engine.knowledge import Knowledge
from guardrail.engine.model import Destination, Urgency
from guardrail.errors import StoreError

HERE: Final = Path(__file__).parent
ROOT: Final = "/-/dashboard"
SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
# Not the root itself, which does not reach the overview's twin, /-/dashboard.json.
_COOKIE_PATH: Final = "/-"
_FORM_BYTES: Final = 20_000
_COMMENT_CHARS: Final = 2000

Build = Callable[[Request, Visitor], Awaitable[dict[str, Any] | None]]
RecordAccess = Callable[[str, str, str], None]
"""Keeps who did what (opened, exported) with which exchange."""


@dataclass(slots=True)
class Reader:
    """The store, opened when it is first needed and again after it was away."""

    url: str
    keys: TextKeys | None = None
    _reader: AuditReader | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, query: Callable[..., Any], *args: Any) -> Any:
        """Call `query(reader, *args)` in a thread; raises StoreError."""
        async with self._opening:
            if self._reader is None:
                self._reader = await asyncio.to_thread(AuditReader, self.url, self.keys)
        try:
            return await asyncio.to_thread(query, self._reader, *args)
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


def templates() -> jinja2.Environment:
    """Everything is escaped; a name that is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["words"] = lambda name: str(name).replace("_", " ")
    environment.filters["percent"] = lambda share: f"{share * 100:.1f} %"
    environment.filters["ms"] = lambda value: f"{value:,.1f} ms" if value < 1000 else f"{value / 1000:,.1f} s"
    environment.globals.update(root=ROOT, urgencies=[u.word for u in reversed(Urgency)], destinations=list(map(str, Destination)))
    environment.globals.update(outcomes=list(map(str, Outcome)), verdicts=queries.VERDICTS)
    return environment


class Dashboard:
    """The pages. `knowledge` gives the packs in force, `parts` what works by name, `reload` swaps the packs."""

    def __init__(
        self,
        reader: Reader,
        knowledge: Callable[[], Knowledge],
        parts: Callable[[], Mapping[str, bool]],
        access: Access,
        reload: Callable[[], Awaitable[tuple[int, dict[str, Any]]]] | None = None,
        record_access: RecordAccess = lambda by, action, exchange: None,
    ) -> None:
        self._reader = reader
        self._knowledge = knowledge
        self._parts = parts
        self._access = access
        self._reload = reload
        self._record_access = record_access
        self._templates = templates()

    def routes(self) -> list[BaseRoute]:
        routes: list[BaseRoute] = [
            Route(f"{ROOT}/login", self.login, methods=["GET", "POST"]),
            Route(f"{ROOT}/logout", self.logout, methods=["POST"]),
            Route(f"{ROOT}/exchanges/{{id}}/review", self.review, methods=["POST"]),
            Route(f"{ROOT}/exchanges/{{id}}/case.yaml", self.case),
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
        return data

    async def _review_queue(self, request: Request, visitor: Visitor) -> dict[str, Any]:
        data: dict[str, Any] = await self._reader.run(queries.queue)
        return data

    async def _rules(self, request: Request, visitor: Visitor) -> dict[str, Any]:
        data: dict[str, Any] = await self._reader.run(queries.rules, self._knowledge())
        return data

    async def _packs(self, request: Request, visitor: Visitor) -> dict[str, Any]:
        return queries.packs(self._knowledge())

    def _html(self, name: str, build: Build) -> Callable[[Request], Awaitable[Response]]:
        async def page(request: Request) -> Response:
            visitor = await self._visitor(request)
            if isinstance(visitor, Response):
                return visitor
            try:
                data = await build(request, visitor)
            except StoreError:
                return self._render("problem", request, visitor, 503, message="The audit store is away. Patients are still answered.")
            if data is None:
                return self._render("problem", request, visitor, 404, message="There is no such exchange, or it was erased.")
            extra: dict[str, Any] = {"query": dict(request.query_params)}
            if name == "overview":
                extra["chart"] = draw(data["bars"], list(data["destinations"]))
            if name == "exchanges" and data["next"]:
                extra["next_page"] = "?" + urlencode({**request.query_params, "cursor": data["next"]})
            return self._render(name, request, visitor, data=data, **extra)

        return page

    def _json(self, build: Build) -> Callable[[Request], Awaitable[Response]]:
        async def twin(request: Request) -> Response:
            visitor = await self._visitor(request, html=False)
            if isinstance(visitor, Response):
                return visitor
            try:
                data = await build(request, visitor)
            except StoreError:
                return _json({"error": "the audit store is away"}, 503)
            return _json(data) if data is not None else _json({"error": "there is no such exchange"}, 404)

        return twin

    # Forms

    async def login(self, request: Request) -> Response:
        if not self._access.has_users:
            return await self._closed(request)
        if request.method == "GET":
            return self._render("login", request, None, message="", next=_own_path(request.query_params.get("next", "")))
        form = await _read_form(request)
        if not _is_same_origin(request):
            return self._render("problem", request, None, 403, message="This form was sent from another site.")
        next_page = _own_path(form.get("next", ""))
        try:
            user = await asyncio.to_thread(self._access.check, form.get("name", ""), form.get("password", ""), _address(request))
        except TooManyTries as error:
            response = self._render("login", request, None, 429, message=f"{str(error).capitalize()}.", next=next_page)
            response.headers["retry-after"] = str(error.seconds)
            return response
        if user is None:
            return self._render("login", request, None, 401, message="The name or the password is wrong.", next=next_page)
        response = RedirectResponse(next_page, 303)
        secure = request.url.scheme == "https"
        response.set_cookie(
            COOKIE, self._access.open_session(user), SESSION_SECONDS, path=_COOKIE_PATH, secure=secure, httponly=True, samesite="strict"
        )
        return response

    async def logout(self, request: Request) -> Response:
        visitor = await self._visitor(request)
        if isinstance(visitor, Response):
            return visitor
        if not await self._is_own_form(request, visitor):
            return self._refuse_form(request, visitor)
        response = RedirectResponse(f"{ROOT}/login", 303)
        response.delete_cookie(COOKIE, path=_COOKIE_PATH)
        return response

    async def review(self, request: Request) -> Response:
        """Acknowledge an exchange, or resolve it with a verdict."""
        visitor = await self._visitor(request, Role.REVIEWER)
        if isinstance(visitor, Response):
            return visitor
        form = await _read_form(request)
        if not self._access.is_form_token(visitor, form.get("token", "")):
            return self._refuse_form(request, visitor)
        verdict = form.get("verdict") or None
        state = "resolved" if verdict else "acknowledged"
        if verdict is not None and verdict not in queries.VERDICTS:
            return self._render("problem", request, visitor, 400, message="There is no such verdict.")
        id = request.path_params["id"]
        comment = form.get("comment", "").strip()[:_COMMENT_CHARS] or None
        try:
            if await self._reader.run(AuditReader.entry, id) is None:
                return self._render("problem", request, visitor, 404, message="There is no such exchange, or it was erased.")
            await self._reader.run(AuditReader.review, id, state, verdict, comment, visitor.name)
        except StoreError:
            return self._render("problem", request, visitor, 503, message="The audit store is away; nothing was saved. Try again.")
        return RedirectResponse(f"{ROOT}/review" if form.get("back") == "review" else f"{ROOT}/exchanges/{id}", 303)

    async def case(self, request: Request) -> Response:
        """The verdict as a test case."""
        visitor = await self._visitor(request, Role.REVIEWER)
        if isinstance(visitor, Response):
            return visitor
        id = request.path_params["id"]
        try:
            entry = await self._reader.run(queries.entry_with_words, id)
            reviews = await self._reader.run(AuditReader.reviews, id)
        except StoreError:
            return self._render("problem", request, visitor, 503, message="The audit store is away.")
        resolved = [r for r in reviews if r["state"] == "resolved"]
        text = case_of(entry, resolved[-1]) if entry and resolved else None
        if text is None:
            message = "There is no verdict on this exchange yet, or its text was not kept."
            return self._render("problem", request, visitor, 404, message=message)
        self._record_access(visitor.name, "exported", id)
        headers = {**SECURITY_HEADERS, "content-disposition": "attachment; filename=case.yaml"}
        return Response(text, media_type="application/yaml", headers=headers)

    async def reload(self, request: Request) -> Response:
        visitor = await self._visitor(request, Role.ADMIN)
        if isinstance(visitor, Response):
            return visitor
        if not await self._is_own_form(request, visitor):
            return self._refuse_form(request, visitor)
        if self._reload is None:
            return self._render("problem", request, visitor, 404, message="Packs cannot be reloaded here.")
        status, answer = await self._reload()
        if status != 200:
            return self._render("problem", request, visitor, status, message=answer["error"], problems=answer.get("problems", ()))
        return RedirectResponse(f"{ROOT}/packs", 303)

    # Access

    async def _visitor(self, request: Request, role: Role = Role.VIEWER, *, html: bool = True) -> Visitor | Response:
        """Who asks, or the answer for somebody who may not."""
        if self._access.open_access:
            # The name too: another site's name that was pointed at this machine is not let in.
            local = request.client is not None and request.client.host in LOOPBACK and request.url.hostname in LOOPBACK
            forwarded = any(name in request.headers for name in ("x-forwarded-for", "forwarded", "x-real-ip"))
            if local and not forwarded:
                return Visitor("demo", Role.ADMIN, "demo")
            return await self._closed(request)
        if not self._access.has_users:
            return await self._closed(request)
        visitor = self._access.read_session(request.cookies.get(COOKIE, ""))
        if visitor is None and "authorization" in request.headers:
            try:
                user = await asyncio.to_thread(self._access.check_basic, request.headers["authorization"], _address(request))
            except TooManyTries as error:
                return Response(f"{error}\n", 429, {**SECURITY_HEADERS, "retry-after": str(error.seconds)}, "text/plain")
            visitor = Visitor(user.name, user.role, "basic") if user else None
        if visitor is None:
            if html and request.method == "GET" and "authorization" not in request.headers:
                here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                return RedirectResponse(f"{ROOT}/login?{urlencode({'next': here})}", 303)
            headers = {**SECURITY_HEADERS, "www-authenticate": 'Basic realm="Guardrail", charset="UTF-8"'}
            return Response('{"error":"name and password are needed"}', 401, headers, "application/json")
        if visitor.role < role:
            return self._render("problem", request, visitor, 403, message=f"This needs the role {role.name.lower()}.")
        return visitor

    async def _closed(self, request: Request) -> Response:
        message = "The dashboard has no users. Add dashboard_users to the settings file; guardrail password makes what to write there."
        if self._access.open_access:
            message = "The demo's dashboard is for this machine only."
        return self._render("problem", request, None, 403, message=message)

    async def _is_own_form(self, request: Request, visitor: Visitor) -> bool:
        return self._access.is_form_token(visitor, (await _read_form(request)).get("token", ""))

    def _refuse_form(self, request: Request, visitor: Visitor) -> Response:
        return self._render("problem", request, visitor, 403, message="The form is too old, or another site sent it. Go back and reload.")

    def _render(self, name: str, request: Request, visitor: Visitor | None, status: int = 200, **values: Any) -> Response:
        values.setdefault("problems", ())
        values.setdefault("next_page", None)
        html = self._templates.get_template(f"{name}.html").render(
            page=name,
            visitor=visitor,
            may_review=visitor is not None and visitor.role >= Role.REVIEWER,
            may_reload=visitor is not None and visitor.role >= Role.ADMIN and self._reload is not None,
            token=self._access.form_token(visitor) if visitor else "",
            twin=f"{request.url.path}.json" + (f"?{request.url.query}" if request.url.query else ""),
            **values,
        )
        return Response(html, status, SECURITY_HEADERS, "text/html")


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, SECURITY_HEADERS, "application/json")


async def _read_form(request: Request) -> dict[str, str]:
    """A plain form, read without a library for uploads; one that is too large is read as empty."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _FORM_BYTES:
            return {}
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in fields.items()}


def _is_same_origin(request: Request) -> bool:
    """Browsers say where a form comes from; a program that says nothing carries no cookies either."""
    if (site := request.headers.get("sec-fetch-site")) is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def _own_path(path: str) -> str:
    """A page of the dashboard to go to after the login, and never another site."""
    return path if path == ROOT or path.startswith((f"{ROOT}/", f"{ROOT}?")) else ROOT


def _address(request: Request) -> str:
    return request.client.host if request.client else "local"
