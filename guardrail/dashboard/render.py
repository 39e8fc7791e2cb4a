"""How pages and their JSON twins are written: templates, headers, and the page that says what is not possible."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import jinja2
import orjson
from starlette.requests import Request
from starlette.responses import Response

from guardrail.audit.record import Outcome
from guardrail.dashboard import queries
from guardrail.dashboard.people import Role, Visitor
from guardrail.engine.model import Destination, Urgency

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


_ENDINGS: Final[Mapping[str, str]] = {"answered": "answered by the guard", "forwarded": "passed on to the model", "cut": "reply cut"}
"""Outcomes whose names say too little."""


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
    environment.filters["ago"] = lambda text: queries.ago(text, queries.now())
    environment.filters["ending"] = lambda outcome: _ENDINGS.get(outcome, str(outcome).replace("_", " "))
    environment.filters["percent"] = lambda share: f"{share * 100:.1f} %"
    environment.filters["ms"] = lambda value: f"{value:,.1f} ms" if value < 1000 else f"{value / 1000:,.1f} s"
    environment.globals.update(root=ROOT, urgencies=[u.word for u in reversed(Urgency)], destinations=list(map(str, Destination)))
    environment.globals.update(outcomes=list(map(str, Outcome)), verdicts=queries.VERDICTS)
    return environment


class Renderer:
    """Renders for a visitor. `form_token` makes what their forms send back; `can_reload` says whether packs can be reloaded here."""

    def __init__(self, form_token: Callable[[Visitor], str], *, can_reload: bool = False) -> None:
        self._form_token = form_token
        self._can_reload = can_reload
        self._templates = templates()

    def page(self, name: str, request: Request, visitor: Visitor | None, status: int = 200, **values: Any) -> Response:
        values.setdefault("problems", ())
        values.setdefault("next_page", None)
        html = self._templates.get_template(f"{name}.html").render(
            page=name,
            visitor=visitor,
            may_review=visitor is not None and visitor.role >= Role.REVIEWER,
            may_reload=visitor is not None and visitor.role >= Role.ADMIN and self._can_reload,
            token=self._form_token(visitor) if visitor else "",
            twin=f"{request.url.path}.json" + (f"?{request.url.query}" if request.url.query else ""),
            **values,
        )
        return Response(html, status, SECURITY_HEADERS, "text/html")

    def problem(self, request: Request, visitor: Visitor | None, status: int, message: str, problems: Any = ()) -> Response:
        return self.page("problem", request, visitor, status, message=message, problems=problems)


def json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, {**SECURITY_HEADERS, **(headers or {})}, "application/json")
