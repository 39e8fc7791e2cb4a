"""Single sign-on by OpenID Connect: authorization code with PKCE, the ID token verified by joserfc, groups mapped to roles.

`begin` gives the address to send the browser to, `finish` reads what it brings back. The provider's description and keys are
fetched anew for each sign-in: keys change, and people sign in rarely. Does not sign anybody out at the provider.
"""

import base64
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx
import structlog

from guardrail.dashboard.people import Role
from guardrail.dashboard.sessions import Begun
from guardrail.errors import ConfigError

TIMEOUT_SECONDS: Final = 10.0
# Signed with a key that only the provider has: neither `none` nor a secret that is shared.
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
_LEEWAY_SECONDS: Final = 60
_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "::1"})

log = structlog.get_logger("guardrail")


class SignInFailed(Exception):
    """The message is for the person; `status` is that of the page. What went wrong in detail is in the log."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Provider:
    """One provider. `roles` maps groups to roles, of which the highest counts; `redirect` is our own address that it sends people to.

    Raises ConfigError where joserfc is not installed or the issuer's address is not https.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str | None,
        redirect: str,
        roles: Mapping[str, Role],
        *,
        groups_claim: str = "groups",
        name_claim: str = "email",
        scopes: Iterable[str] = ("openid", "email", "profile"),
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        try:
            import joserfc  # noqa: F401  # only whether it is there
        except ImportError:
            raise ConfigError("dashboard_oidc needs the extra: pip install 'guardrail[oidc]'") from None
        _check_address("dashboard_oidc.issuer", issuer)
        self.name = f"{issuer} {client_id}"
        self._issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect = redirect
        self._roles = roles
        self._groups_claim = groups_claim
        self._name_claim = name_claim
        self._scope = " ".join(dict.fromkeys(("openid", *scopes)))
        self._transport = transport

    async def begin(self, page: str) -> tuple[str, Begun]:
        """Where to send the browser, and what to keep until it comes back. Raises SignInFailed."""
        begun = Begun(secrets.token_urlsafe(), secrets.token_urlsafe(), secrets.token_urlsafe(48), page)
        async with self._http() as http:
            endpoint = (await self._metadata(http))["authorization_endpoint"]
        challenge = base64.urlsafe_b64encode(hashlib.sha256(begun.verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect,
            "scope": self._scope,
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}", begun

    async def finish(self, begun: Begun, query: Mapping[str, str]) -> tuple[str, Role]:
        """Name and role of who came back. Raises SignInFailed."""
        if not secrets.compare_digest(query.get("state", "").encode(), begun.state.encode()):
            raise _failed("state", "This sign-in was not begun here. Try again.", 403)
        if query.get("iss", self._issuer) != self._issuer:  # RFC 9207: another provider's answer
            raise _failed("issuer of the answer", "This sign-in was not begun here. Try again.", 403)
        if "code" not in query:
            raise _failed(query.get("error", "no code"), "The provider did not sign you in.", 403)
        async with self._http() as http:
            metadata = await self._metadata(http)
            tokens = await self._redeem(http, metadata, query["code"], begun.verifier)
            claims = self._verified(tokens.get("id_token"), await _get(http, metadata["jwks_uri"]), begun.nonce)
            if self._groups_claim not in claims and "userinfo_endpoint" in metadata:
                claims = await _with_userinfo(http, metadata["userinfo_endpoint"], tokens, claims)
        return self._person(claims)

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=TIMEOUT_SECONDS, transport=self._transport)

    async def _metadata(self, http: httpx.AsyncClient) -> dict[str, Any]:
        metadata = await _get(http, f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if metadata.get("issuer") != self._issuer:
            raise _failed("issuer", "The provider calls itself by another name than dashboard_oidc.issuer.", 502)
        if missing := {"authorization_endpoint", "token_endpoint", "jwks_uri"} - metadata.keys():
            raise _failed(f"no {sorted(missing)[0]}", "The provider does not describe itself completely.", 502)
        return metadata

    async def _redeem(self, http: httpx.AsyncClient, metadata: Mapping[str, Any], code: str, verifier: str) -> dict[str, Any]:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self._redirect, "code_verifier": verifier}
        methods = metadata.get("token_endpoint_auth_methods_supported", ("client_secret_basic",))
        auth: httpx.Auth = httpx.Auth()
        if self._client_secret is None:
            form["client_id"] = self._client_id
        elif "client_secret_basic" in methods:
            auth = httpx.BasicAuth(quote_plus(self._client_id), quote_plus(self._client_secret))  # RFC 6749, 2.3.1
        else:
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        try:
            response = await http.post(metadata["token_endpoint"], data=form, auth=auth)
        except httpx.HTTPError as error:
            raise _away(error) from error
        return _json(response)

    def _verified(self, id_token: Any, keys: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """The claims of an ID token that is for us, from this provider, about this sign-in, and not too old."""
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        registry = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._client_id},
            nonce={"essential": True, "value": nonce},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            token = jwt.decode(str(id_token), KeySet.import_key_set({"keys": keys["keys"]}), algorithms=_ALGORITHMS)
            registry.validate(token.claims)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise _failed(f"ID token: {type(error).__name__}: {error}", "What the provider sent cannot be trusted.", 502) from error
        claims = token.claims
        if (isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and "azp" not in claims) or claims.get(
            "azp", self._client_id
        ) != self._client_id:
            raise _failed("ID token: azp", "What the provider sent cannot be trusted.", 502)
        return claims

    def _person(self, claims: Mapping[str, Any]) -> tuple[str, Role]:
        groups = claims.get(self._groups_claim, ())
        groups = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
        roles = [self._roles[group] for group in groups if isinstance(group, str) and group in self._roles]
        if not roles:
            raise _failed("no group with a role", "You are in no group that may see the dashboard. Ask whoever runs Guardrail.", 403)
        name = claims.get(self._name_claim)
        # An address that nobody has verified may be anybody's.
        if not isinstance(name, str) or not name or (self._name_claim == "email" and claims.get("email_verified") is False):
            name = claims["sub"]
        return name[:200], max(roles)


async def _with_userinfo(http: httpx.AsyncClient, endpoint: str, tokens: Mapping[str, Any], claims: dict[str, Any]) -> dict[str, Any]:
    """Some providers tell groups only there."""
    info = await _get(http, endpoint, {"authorization": f"Bearer {tokens.get('access_token', '')}"})
    if info.get("sub") != claims["sub"]:
        raise _failed("userinfo of somebody else", "What the provider sent cannot be trusted.", 502)
    return {**info, **claims}


async def _get(http: httpx.AsyncClient, url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    try:
        return _json(await http.get(url, headers=headers))
    except httpx.HTTPError as error:
        raise _away(error) from error


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _failed(f"{response.status_code} without JSON", "The provider of the single sign-on does not work.", 502)
    if response.status_code != 200:
        raise _failed(f"{response.status_code} {str(found.get('error', ''))[:100]}", "The provider did not sign you in.", 502)
    return found


def _away(error: httpx.HTTPError) -> SignInFailed:
    return _failed(type(error).__name__, "The provider of the single sign-on cannot be reached. Try again.", 502)


def _failed(reason: str, message: str, status: int) -> SignInFailed:
    log.warning("sign_in_failed", reason=reason[:200])
    return SignInFailed(message, status)


def _check_address(setting: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
        raise ConfigError(f"{setting}: {url} must begin with https://")
