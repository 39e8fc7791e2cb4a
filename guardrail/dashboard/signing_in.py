"""The dashboard's door: signing in and out, and who somebody is that asks for a page.

People have a session in a cookie, programs an API token in `Authorization: Bearer`. The cookie is `SameSite=Lax`, not `Strict`, so that
links in alerts lead to the page for who is signed in; no GET changes anything, and every form carries a token of its session.
"""

import asyncio
from typing import Final
from urllib.parse import urlencode

import structlog
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from guardrail.dashboard.access import Access
from guardrail.dashboard.forms import Networks, address_of, is_forwarded, is_same_origin, read_form
from guardrail.dashboard.oidc import Provider, SignInFailed
from guardrail.dashboard.people import Role, Visitor
from guardrail.dashboard.render import ROOT, Renderer, json
from guardrail.dashboard.throttle import TooManyTries
from guardrail.errors import StoreError

COOKIE: Final = "guardrail_session"
SIGN_IN_COOKIE: Final = "guardrail_sign_in"
CALLBACK: Final = f"{ROOT}/oidc/callback"
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
AWAY: Final = "The audit store is away. Patients are still answered."
# Not the root itself, which does not reach the overview's twin, /-/dashboard.json.
_COOKIE_PATH: Final = "/-"
_SIGN_IN_SECONDS: Final = 600

log = structlog.get_logger("guardrail")


class SigningIn:
    """`provider` is the single sign-on, `secure` whether browsers reach us by https, `proxies` who may speak for their address."""

    def __init__(
        self, access: Access, render: Renderer, *, provider: Provider | None = None, secure: bool = False, proxies: Networks = ()
    ) -> None:
        self._access = access
        self._render = render
        self._provider = provider
        self._secure = secure
        self._proxies = proxies

    def routes(self) -> list[Route]:
        return [
            Route(f"{ROOT}/login", self.login, methods=["GET", "POST"]),
            Route(f"{ROOT}/logout", self.logout, methods=["POST"]),
            Route(f"{ROOT}/oidc", self.begin, methods=["GET"]),
            Route(CALLBACK, self.finish, methods=["GET"]),
        ]

    async def visitor(self, request: Request, role: Role = Role.VIEWER, *, html: bool = True) -> Visitor | Response:
        """Who asks, or the answer for somebody who may not."""
        if self._access.open_access:
            # The name too: another site's name that was pointed at this machine is not let in.
            local = request.client is not None and request.client.host in LOOPBACK and request.url.hostname in LOOPBACK
            return self._access.demo() if local and not is_forwarded(request) else self._closed(request)
        try:
            visitor = await asyncio.to_thread(self._known, request)
            again = visitor is None and await asyncio.to_thread(self._access.must_ask_again, request.cookies.get(COOKIE, ""))
        except StoreError:
            return self._render.problem(request, None, 503, AWAY) if html else json({"error": "the audit store is away"}, 503)
        if visitor is None:
            return self._unknown(request, html, again)
        if visitor.role < role:
            needed = f"This needs the role {role.word}."
            return self._render.problem(request, visitor, 403, needed) if html else json({"error": needed}, 403)
        return visitor

    async def is_own_form(self, request: Request, visitor: Visitor) -> bool:
        return self._access.is_form_token(visitor, (await read_form(request)).get("token", ""))

    def refuse_form(self, request: Request, visitor: Visitor) -> Response:
        return self._render.problem(request, visitor, 403, "The form is too old, or another site sent it. Go back and reload.")

    def _known(self, request: Request) -> Visitor | None:
        # A token that was shown counts alone: a program that meant it is not helped by a browser's cookie.
        if (shown := request.headers.get("authorization")) is not None:
            return self._access.holder(shown)
        return self._access.visitor(request.cookies.get(COOKIE, ""), seen="guardrail-refresh" not in request.headers)

    def _unknown(self, request: Request, html: bool, again: bool) -> Response:
        """`again`: the provider of the single sign-on is asked at once, and most often nobody notices."""
        if not html or "authorization" in request.headers:
            error = "sign in at /-/dashboard, or send an API token as Authorization: Bearer (guardrail tokens create makes one)"
            return json({"error": error}, 401, {"www-authenticate": 'Bearer realm="Guardrail"'})
        if not (self._access.has_users or self._provider):
            return self._closed(request)
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "") if request.method == "GET" else ROOT
        return RedirectResponse(f"{ROOT}/{'oidc' if again else 'login'}?{urlencode({'next': here})}", 303)

    def _closed(self, request: Request) -> Response:
        message = "The dashboard has no users. Add dashboard_users to the settings file; guardrail password makes what to write there."
        if self._access.open_access:
            message = "The demo's dashboard is for this machine only."
        return self._render.problem(request, None, 403, message)

    # Routes

    async def login(self, request: Request) -> Response:
        if not (self._access.has_users or self._provider) or self._access.open_access:
            return self._closed(request)
        if request.method == "GET":
            return self._form(request, _own_path(request.query_params.get("next", "")))
        form = await read_form(request)
        page = _own_path(form.get("next", ""))
        if not is_same_origin(request):
            return self._render.problem(request, None, 403, "This form was sent from another site.")
        name, address = form.get("name", ""), address_of(request, self._proxies)
        before = request.cookies.get(COOKIE, "")
        try:
            secret = await asyncio.to_thread(self._access.sign_in, name, form.get("password", ""), address, before)
        except TooManyTries as error:
            log.warning("sign_in_throttled", address=address)
            response = self._form(request, page, f"{str(error).capitalize()}.", 429)
            response.headers["retry-after"] = str(error.seconds)
            return response
        except StoreError:
            return self._render.problem(request, None, 503, f"{AWAY} Nobody can sign in meanwhile.")
        if secret is None:
            log.warning("sign_in_refused", address=address)  # without the name: people type passwords there
            return self._form(request, page, "The name or the password is wrong.", 401)
        log.info("signed_in", user=name, by="password", address=address)
        return self._let_in(request, secret, page)

    async def logout(self, request: Request) -> Response:
        visitor = await self.visitor(request)
        if isinstance(visitor, Response):
            return visitor
        if not await self.is_own_form(request, visitor):
            return self.refuse_form(request, visitor)
        try:
            await asyncio.to_thread(self._access.sign_out, visitor.session)
        except StoreError:
            return self._render.problem(request, visitor, 503, "The audit store is away; you are still signed in. Try again.")
        log.info("signed_out", user=visitor.name)
        response = RedirectResponse(f"{ROOT}/login", 303)
        response.delete_cookie(COOKIE, path=_COOKIE_PATH)
        return response

    async def begin(self, request: Request) -> Response:
        """Send the browser to the provider of the single sign-on."""
        if self._provider is None:
            return self._render.problem(request, None, 404, "There is no single sign-on here (setting dashboard_oidc).")
        try:
            address, begun = await self._provider.begin(_own_path(request.query_params.get("next", "")))
            secret = await asyncio.to_thread(self._access.begin_sign_in, begun)
        except SignInFailed as error:
            return self._render.problem(request, None, error.status, str(error))
        except StoreError:
            return self._render.problem(request, None, 503, f"{AWAY} Nobody can sign in meanwhile.")
        response = RedirectResponse(address, 303)
        self._set_cookie(request, response, SIGN_IN_COOKIE, secret, _SIGN_IN_SECONDS)
        return response

    async def finish(self, request: Request) -> Response:
        """What the provider sent the browser back with."""
        if self._provider is None:
            return self._render.problem(request, None, 404, "There is no single sign-on here (setting dashboard_oidc).")
        try:
            begun = await asyncio.to_thread(self._access.end_sign_in, request.cookies.get(SIGN_IN_COOKIE, ""))
            if begun is None:
                return self._render.problem(request, None, 403, "This sign-in was not begun here, or took too long. Try again.")
            name, role = await self._provider.finish(begun, request.query_params)
            secret = await asyncio.to_thread(self._access.admit, name, role, request.cookies.get(COOKIE, ""))
        except SignInFailed as error:
            return self._render.problem(request, None, error.status, str(error))
        except StoreError:
            return self._render.problem(request, None, 503, f"{AWAY} Nobody can sign in meanwhile.")
        log.info("signed_in", user=name, by="oidc", role=role.word, address=address_of(request, self._proxies))
        response = self._let_in(request, secret, begun.page)
        response.delete_cookie(SIGN_IN_COOKIE, path=_COOKIE_PATH)
        return response

    def _form(self, request: Request, page: str, message: str = "", status: int = 200) -> Response:
        methods = {"passwords": self._access.has_users, "oidc": self._provider is not None}
        return self._render.page("login", request, None, status, message=message, next=page, **methods)

    def _let_in(self, request: Request, secret: str, page: str) -> Response:
        response = RedirectResponse(page, 303)
        self._set_cookie(request, response, COOKIE, secret, int(self._access.session_seconds))
        return response

    def _set_cookie(self, request: Request, response: Response, name: str, value: str, seconds: int) -> None:
        secure = self._secure or request.url.scheme == "https"
        response.set_cookie(name, value, seconds, path=_COOKIE_PATH, secure=secure, httponly=True, samesite="lax")


def _own_path(path: str) -> str:
    """A page of the dashboard to go to after the login, and never another site."""
    return path if path == ROOT or path.startswith((f"{ROOT}/", f"{ROOT}?")) else ROOT
