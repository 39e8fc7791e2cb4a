"""Every page in a real Chromium, light and dark, wide and narrow, against axe-core's rules for WCAG 2.2 A and AA: nothing is wrong."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from guardrail.app import create_app
from guardrail.config import DashboardUser, Settings
from guardrail.dashboard.passwords import hash_password
from guardrail.demo.chat import COUNTRY_HEADER, Recent, chat_routes
from guardrail.engine.guard import Guard
from tests.dashboard.test_pages import HOSTILE, NoUpstream, keep
from tests.serving import serving

axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
PAGES = {
    "overview": "/-/dashboard",
    "exchanges": "/-/dashboard/exchanges",
    "nothing found": "/-/dashboard/exchanges?id=none",
    "exchange": "/-/dashboard/exchanges/id000001",
    "quiet exchange": "/-/dashboard/exchanges/id000004",
    "review": "/-/dashboard/review",
    "rules": "/-/dashboard/rules",
    "packs": "/-/dashboard/packs",
    "problem": "/-/dashboard/exchanges/none",
    "chat": "/",
}
CLOSED = {"login": "/-/dashboard/login", "no such sign-in": "/-/dashboard/oidc"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/audit.db"


@pytest.fixture(scope="module")
def open_server(url: str, small_guard: Guard) -> Iterator[str]:
    """The dashboard with exchanges of all kinds, and the demo's chat page."""
    keep(url, small_guard, {"id000001": HOSTILE, "id000002": "how much ibuprofen", "id000003": "hello", "id000004": "I have no chest pain"})
    recent = Recent()
    routes = chat_routes(recent, lambda: small_guard.knowledge, "US")
    settings = Settings(audit=url, country_header=COUNTRY_HEADER, trusted_proxies=("127.0.0.1",))
    app = create_app(settings, guard=small_guard, upstream=NoUpstream(), recorders=(recent,), routes=routes, open_dashboard=True)
    with serving(app) as server:
        yield server


@pytest.fixture(scope="module")
def closed_server(url: str, small_guard: Guard) -> Iterator[str]:
    users = {"nurse": DashboardUser(password=hash_password("a long enough one"), role="reviewer")}
    with serving(create_app(Settings(audit=url, dashboard_users=users), guard=small_guard, upstream=NoUpstream())) as server:
        yield server


def wrong(page: Any) -> list[str]:
    """What axe finds: the rule, the element, what to do."""
    results = axe_playwright.Axe().run(page, options={**RULES, "resultTypes": ["violations", "passes"]}).response
    assert results["passes"], "axe looked at nothing"
    return [f"{v['id']}: {node['html'][:150]} {node['failureSummary']}" for v in results["violations"] for node in v["nodes"]]


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Any) -> Iterator[Any]:
    with browser.new_context(color_scheme=request.param, viewport={"width": 1280, "height": 900}) as context:
        context.set_default_timeout(10_000)
        yield context.new_page()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_nothing_wrong(open_server: str, page: Any, name: str) -> None:
    page.goto(open_server + PAGES[name])
    found = wrong(page)
    page.set_viewport_size({"width": 375, "height": 800})

    assert found + wrong(page) == []


@pytest.mark.parametrize("name", CLOSED)
def test_a_page_for_strangers_has_nothing_wrong(closed_server: str, page: Any, name: str) -> None:
    page.goto(closed_server + CLOSED[name])

    assert wrong(page) == []


def test_a_refused_login_and_a_resolved_exchange_have_nothing_wrong(closed_server: str, open_server: str, page: Any) -> None:
    page.goto(f"{closed_server}/-/dashboard/exchanges/id000002")
    page.get_by_label("Name").fill("nurse")
    page.get_by_label("Password").fill("guess")
    page.get_by_role("button", name="Sign in").click()
    assert page.get_by_role("alert").inner_text() == "The name or the password is wrong."
    assert wrong(page) == []

    page.get_by_label("Name").fill("nurse")
    page.get_by_label("Password").fill("a long enough one")
    page.get_by_role("button", name="Sign in").click()
    if page.get_by_text("Change the verdict").count():  # resolved in the other colours
        page.get_by_text("Change the verdict").click()
        assert wrong(page) == []
    page.get_by_label("Comment").fill("seen on the ward")
    page.get_by_role("button", name="False alarm").click()
    page.wait_for_selector("text=seen on the ward")
    assert wrong(page) == []


def test_an_answer_in_the_chat_and_its_reasons_have_nothing_wrong(open_server: str, page: Any) -> None:
    page.goto(open_server)
    page.get_by_label("Your message").fill("I have chest pain")
    page.get_by_role("button", name="Send").click()
    page.wait_for_selector("aside h3")

    assert "This could be an emergency" in page.inner_text("#conversation")
    assert wrong(page) == []


def test_axe_does_find_what_is_wrong(open_server: str, page: Any) -> None:
    page.goto(f"{open_server}/-/dashboard/login")
    page.evaluate("document.body.append(document.createElement('input'))")

    assert [found.split(":")[0] for found in wrong(page)] == ["label"]
