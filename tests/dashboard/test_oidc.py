"""Single sign-on against oidc-provider, a certified OpenID provider from npm, and against answers that a provider must not give."""

import asyncio
import base64
import hashlib
import hmac
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import orjson
import pytest
from starlette.testclient import TestClient

from guardrail.app import create_app
from guardrail.config import Settings
from guardrail.dashboard.oidc import Provider, SignInFailed
from guardrail.dashboard.people import Role
from guardrail.dashboard.sessions import Begun
from guardrail.dashboard.tables import Tables
from guardrail.engine.guard import Guard
from guardrail.errors import ConfigError
from tests.clients.environments import node_packages
from tests.dashboard.test_pages import NoUpstream
from tests.serving import serving

OWN = "http://127.0.0.1"
REDIRECT = f"{OWN}/-/dashboard/oidc/callback"
ROLES = {"everyone": "viewer", "nurses": "reviewer", "clinic-admins": "admin"}
SECRET = "s/e+c r%t"


@contextmanager
def running(groups_in: str, redirect: str = REDIRECT) -> Iterator[str]:
    """The provider in a process of its own; gives its issuer."""
    folder = node_packages(Path(__file__).parent / "provider")
    command = ["node", "provider.mjs", redirect, groups_in]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            if line.startswith("issuer "):
                break
            said += line
        else:
            raise AssertionError(f"the provider did not start: {said}")
        yield line.split()[1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module", params=["id_token", "userinfo"])
def issuer(request: pytest.FixtureRequest) -> Iterator[str]:
    with running(request.param) as issuer:
        yield issuer


@pytest.fixture
def client(tmp_path: Path, small_guard: Guard, issuer: str) -> Iterator[TestClient]:
    with app(tmp_path, small_guard, issuer) as client:
        yield client


def app(folder: Path, guard: Guard, issuer: str, **oidc: Any) -> TestClient:
    given = {"issuer": issuer, "client_id": "guardrail", "client_secret": SECRET, "roles": ROLES, "scopes": ["email", "groups"], **oidc}
    settings = Settings(audit=f"sqlite:///{folder}/audit.db", dashboard_url=OWN, dashboard_oidc=given)
    return TestClient(create_app(settings, guard=guard, upstream=NoUpstream()), base_url=OWN, follow_redirects=False)


def consent(address: str, person: str) -> str:
    """What a browser does at the provider for somebody who signs in and agrees: the address it is sent back to."""
    with httpx.Client() as browser:
        response = browser.get(address)
        while not response.headers.get("location", "").startswith(OWN + "/"):
            if response.is_redirect:
                response = browser.get(httpx.URL(address).join(response.headers["location"]))
                continue
            assert response.status_code == 200, response.text
            action = re.search(r'action="([^"]+)"', response.text)
            prompt = re.search(r'name="prompt" value="(\w+)"', response.text)
            assert action
            assert prompt
            response = browser.post(action[1], data={"prompt": prompt[1], "login": person, "password": "x"})
        return response.headers["location"]


def sign_in(client: TestClient, person: str, page: str = "/-/dashboard") -> httpx.Response:
    begun = client.get("/-/dashboard/oidc", params={"next": page})
    assert begun.status_code == 303
    back = consent(begun.headers["location"], person)
    return client.get(back)  # type: ignore[return-value]  # the test client's response is httpx's


@pytest.mark.parametrize(("person", "name", "role"), [("ann", "ann@clinic.example", "admin"), ("bob", "bob", "viewer")])
def test_people_get_the_highest_role_of_their_groups_and_their_verified_name(client: TestClient, person: str, name: str, role: str) -> None:
    response = sign_in(client, person, "/-/dashboard/rules?x=1")

    assert (response.status_code, response.headers["location"]) == (303, "/-/dashboard/rules?x=1")
    page = client.get("/-/dashboard/packs").text
    assert f"{name} ({role})" in page
    assert ("Reload" in page) == (role == "admin")


def test_who_is_in_no_group_with_a_role_is_told_so(client: TestClient) -> None:
    response = sign_in(client, "eve")

    assert response.status_code == 403
    assert "You are in no group that may see the dashboard" in response.text
    assert client.get("/-/dashboard").status_code == 303


def test_the_login_page_offers_what_there_is(client: TestClient) -> None:
    assert client.get("/-/dashboard").headers["location"] == "/-/dashboard/login?next=%2F-%2Fdashboard"
    page = client.get("/-/dashboard/login?next=/-/dashboard/rules").text

    assert 'href="/-/dashboard/oidc?next=/-/dashboard/rules"' in page
    assert "Password" not in page


def test_who_has_left_a_group_is_out_when_the_provider_is_asked_again(tmp_path: Path, small_guard: Guard, issuer: str) -> None:
    with app(tmp_path, small_guard, issuer, recheck_minutes=30) as client:
        sign_in(client, "ann", "/-/dashboard/rules")
        before = client.get("/-/dashboard/rules").status_code
        with closing(Tables(f"sqlite:///{tmp_path}/audit.db")) as tables:
            tables.use(lambda database: database.execute("UPDATE access_sessions SET opened_at = opened_at - 1801"))
        refreshed = client.get("/-/dashboard/rules", headers={"guardrail-refresh": "1"}).status_code
        after = client.get("/-/dashboard/rules?x=1")
        again = client.get(consent(client.get(after.headers["location"]).headers["location"], "eve"))  # as ann without her groups
        then = client.get("/-/dashboard/rules")

    assert (before, refreshed) == (200, 200)
    assert (after.status_code, after.headers["location"]) == (303, "/-/dashboard/oidc?next=%2F-%2Fdashboard%2Frules%3Fx%3D1")
    assert again.status_code == 403
    assert then.status_code == 303


def test_what_comes_back_can_be_used_once_by_the_browser_that_began(client: TestClient) -> None:
    back = consent(client.get("/-/dashboard/oidc").headers["location"], "ann")
    cookies = dict(client.cookies)

    client.cookies.clear()
    assert client.get(back).status_code == 403  # another browser: somebody was lured into another's account
    client.cookies.update(cookies)
    assert client.get(back).status_code == 303
    client.cookies.clear()
    client.cookies.update(cookies)
    again = client.get(back)
    assert (again.status_code, "was not begun here" in again.text) == (403, True)


def test_a_state_that_is_not_ours_is_refused(client: TestClient) -> None:
    back = consent(client.get("/-/dashboard/oidc").headers["location"], "ann")

    assert client.get(re.sub(r"state=[^&]+", "state=other", back)).status_code == 403


def test_who_declines_is_told_so(client: TestClient) -> None:
    address = client.get("/-/dashboard/oidc").headers["location"]
    state = parse_qs(urlsplit(address).query)["state"][0]

    response = client.get(f"{REDIRECT}?error=access_denied&state={state}")

    assert (response.status_code, "did not sign you in" in response.text) == (403, True)


def test_a_wrong_secret_of_ours_is_an_error_page_and_nobody_is_signed_in(tmp_path: Path, small_guard: Guard, issuer: str) -> None:
    with app(tmp_path, small_guard, issuer, client_secret="wrong") as client:
        response = sign_in(client, "ann")

        assert response.status_code == 502
        assert client.get("/-/dashboard").status_code == 303


def test_signing_out_ends_the_session(client: TestClient) -> None:
    sign_in(client, "ann")
    token = re.search(r'name="token" value="([^"]+)"', client.get("/-/dashboard").text)
    assert token

    assert client.post("/-/dashboard/logout", data={"token": token[1]}).status_code == 303
    assert client.get("/-/dashboard").status_code == 303


def test_the_provider_may_be_away(tmp_path: Path, small_guard: Guard) -> None:
    with app(tmp_path, small_guard, "http://127.0.0.1:9") as client:
        response = client.get("/-/dashboard/oidc")

    assert (response.status_code, "cannot be reached" in response.text) == (502, True)


def test_without_a_provider_there_is_no_single_sign_on(tmp_path: Path, small_guard: Guard) -> None:
    settings = Settings(audit=f"sqlite:///{tmp_path}/audit.db")
    with TestClient(create_app(settings, guard=small_guard, upstream=NoUpstream()), base_url=OWN) as client:
        assert client.get("/-/dashboard/oidc").status_code == 404
        assert client.get("/-/dashboard/oidc/callback").status_code == 404


def test_in_a_browser_the_way_there_and_back_crosses_sites(tmp_path: Path, small_guard: Guard) -> None:
    """What cookies go along is the browser's to decide; and a session that ends under an open page leads to the login."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    own = "http://guardrail.test"
    with running("id_token", f"{own}/-/dashboard/oidc/callback") as issuer:
        oidc = {"issuer": issuer, "client_id": "guardrail", "client_secret": SECRET, "roles": ROLES, "scopes": ["email", "groups"]}
        settings = Settings(audit=f"sqlite:///{tmp_path}/audit.db", dashboard_url=own, dashboard_oidc=oidc)
        with serving(create_app(settings, guard=small_guard, upstream=NoUpstream())) as url, sync_api.sync_playwright() as playwright:
            arguments = ["--no-sandbox", f"--host-resolver-rules=MAP guardrail.test:80 {url.removeprefix('http://')}"]
            browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
            page = browser.new_page()
            page.set_default_timeout(15_000)
            page.goto(f"{own}/-/dashboard/rules")
            page.get_by_role("link", name="Sign in with single sign-on").click()
            page.locator("[name=login]").fill("ann")
            page.locator("[name=password]").fill("x")
            page.locator("[type=submit]").click()
            page.locator("[type=submit]").click()
            page.wait_for_url(f"{own}/-/dashboard/rules")
            assert "ann@clinic.example (admin)" in page.inner_text("header")

            with closing(Tables(f"sqlite:///{tmp_path}/audit.db")) as tables:
                tables.use(lambda database: database.execute("DELETE FROM access_sessions"))
            page.wait_for_url(f"{own}/-/dashboard/login?*")
            browser.close()


# Below: a provider that lies. Its answers are written here, since no honest one gives them.


class Liar:
    """Signs what it is told to; keeps what it was sent."""

    def __init__(self, **claims: Any) -> None:
        from joserfc.jwk import RSAKey

        self.key = RSAKey.generate_key(2048, {"kid": "one"}, auto_kid=False)
        self.claims = claims
        self.signing_key = self.key
        self.shared_secret: bytes | None = None
        self.metadata: dict[str, Any] = {}
        self.sent: dict[str, str] = {}

    def answer(self, request: httpx.Request) -> httpx.Response:
        from joserfc import jwt

        base = "https://id.example"
        if request.url.path.endswith("openid-configuration"):
            endpoints = {"authorization_endpoint": f"{base}/authorize", "token_endpoint": f"{base}/token", "jwks_uri": f"{base}/jwks"}
            return httpx.Response(200, json={"issuer": base, **endpoints, **self.metadata})
        if request.url.path == "/jwks":
            return httpx.Response(200, json={"keys": [self.key.as_dict(private=False)]})
        self.sent = dict(parse_qsl(request.content.decode()))
        self.sent["authorization"] = request.headers.get("authorization", "")
        claims = {"iss": base, "aud": "guardrail", "sub": "ann", "iat": 1, "exp": 4_000_000_000, "nonce": "n", "groups": ["everyone"]}
        claims = {name: value for name, value in {**claims, **self.claims}.items() if value is not None}
        token = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.signing_key)
        if self.shared_secret is not None:  # by hand: the library refuses to
            signed = b".".join(_b64(orjson.dumps(part)) for part in ({"alg": "HS256", "kid": "one"}, claims))
            token = b".".join((signed, _b64(hmac.digest(self.shared_secret, signed, "sha256")))).decode()
        return httpx.Response(200, json={"id_token": token, "access_token": "a", "token_type": "Bearer"})

    def provider(self, **given: Any) -> Provider:
        settings = {"client_secret": "secret", "roles": {"everyone": Role.VIEWER}, **given}
        transport = httpx.MockTransport(self.answer)
        return Provider("https://id.example", "guardrail", redirect=REDIRECT, transport=transport, **settings)


def _b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def finish(provider: Provider, begun: Begun, answer: dict[str, str]) -> tuple[str, Role]:
    return asyncio.run(provider.finish(begun, answer))


BEGUN = Begun("s", "n", "a verifier", "/-/dashboard")
ANSWER = {"state": "s", "code": "c"}


def test_an_honest_answer_is_believed() -> None:
    assert finish(Liar().provider(), BEGUN, ANSWER) == ("ann", Role.VIEWER)
    assert finish(Liar(aud=["guardrail"], groups="everyone").provider(), BEGUN, ANSWER) == ("ann", Role.VIEWER)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"aud": "other"},
        {"aud": ["guardrail", "other"]},
        {"azp": "other"},
        {"nonce": "of another sign-in"},
        {"nonce": None},
        {"exp": 1},
        {"exp": None},
        {"sub": None},
    ],
    ids=str,
)
def test_an_id_token_that_is_not_for_this_sign_in_is_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(SignInFailed, match="cannot be trusted"):
        finish(Liar(**claims).provider(), BEGUN, ANSWER)


def test_an_id_token_that_another_key_signed_is_refused() -> None:
    liar = Liar()
    liar.signing_key = Liar().key

    with pytest.raises(SignInFailed, match="cannot be trusted"):
        finish(liar.provider(), BEGUN, ANSWER)


def test_an_id_token_signed_with_what_everybody_knows_is_refused() -> None:
    """The public key taken for a shared secret, as some libraries did."""
    liar = Liar()
    liar.shared_secret = liar.key.as_pem(private=False)

    with pytest.raises(SignInFailed, match="cannot be trusted"):
        finish(liar.provider(), BEGUN, ANSWER)


@pytest.mark.parametrize("groups", [[], None, ["Everyone"], [["everyone"]], {"everyone": True}, 7])
def test_groups_without_a_role_let_nobody_in(groups: Any) -> None:
    with pytest.raises(SignInFailed, match="no group"):
        finish(Liar(groups=groups).provider(), BEGUN, ANSWER)


def test_a_provider_that_calls_itself_otherwise_is_refused() -> None:
    liar = Liar()
    liar.metadata = {"issuer": "https://other.example"}

    with pytest.raises(SignInFailed, match="another name"):
        asyncio.run(liar.provider().begin("/-/dashboard"))


def test_an_answer_of_another_issuer_is_refused() -> None:
    with pytest.raises(SignInFailed, match="not begun here"):
        finish(Liar().provider(), BEGUN, {**ANSWER, "iss": "https://other.example"})


def test_the_code_is_bound_to_the_browser_that_asked_for_it() -> None:
    liar = Liar()
    address, begun = asyncio.run(liar.provider().begin("/-/dashboard"))
    asked = parse_qs(urlsplit(address).query)

    with pytest.raises(SignInFailed):  # its nonce is another
        finish(liar.provider(), begun, {"state": begun.state, "code": "c"})

    challenge = _b64(hashlib.sha256(liar.sent["code_verifier"].encode()).digest()).decode()
    assert (asked["code_challenge"], asked["code_challenge_method"]) == ([challenge], ["S256"])
    assert liar.sent["redirect_uri"] == asked["redirect_uri"][0] == REDIRECT


@pytest.mark.parametrize(
    ("secret", "methods", "sent"),
    [
        ("a:b c", ["client_secret_basic"], ("Basic Z3VhcmRyYWlsOmElM0FiK2M=", None, None)),
        ("a:b c", ["client_secret_post"], ("", "guardrail", "a:b c")),
        (None, ["none"], ("", "guardrail", None)),
    ],
)
def test_we_say_who_we_are_as_the_provider_wants(secret: str | None, methods: list[str], sent: tuple[str | None, ...]) -> None:
    liar = Liar()
    liar.metadata = {"token_endpoint_auth_methods_supported": methods}

    finish(liar.provider(client_secret=secret), BEGUN, ANSWER)

    assert (liar.sent["authorization"], liar.sent.get("client_id"), liar.sent.get("client_secret")) == sent


def test_an_issuer_elsewhere_without_tls_is_refused() -> None:
    with pytest.raises(ConfigError, match="must begin with https://"):
        Provider("http://id.example", "guardrail", None, REDIRECT, {})
