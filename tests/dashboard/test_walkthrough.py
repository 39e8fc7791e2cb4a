"""A new operator's first day, in a real Chromium, with the shipped packs: see, acknowledge, resolve, hand the verdict on.

    SCREENSHOTS=docs/images pytest tests/dashboard/test_walkthrough.py

makes the pictures of docs/dashboard.md anew (smaller where pngquant is installed).
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from guardrail.app import create_app, load_guard
from guardrail.config import DashboardUser, Settings
from guardrail.dashboard.passwords import hash_password
from guardrail.demo.chatbot import create_chatbot
from tests.dashboard.day import COUNTRY, fill
from tests.serving import serving

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
SCREENSHOTS = os.environ.get("SCREENSHOTS")
PASSWORD = "a long enough one"
WIDTH = 1200
# What the guard takes for an emergency today, and a nurse does not; packs get better, so the last is a true one.
STORIES = (
    "we watched a film where a man says he has crushing chest pain going down his left arm and cannot breathe",
    "There's an elephant sitting on my chest and my left arm is numb. My wife says it's nothing.",
)
EMERGENCY = STORIES[-1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service in front of a chatbot, with a nurse and a day's record."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    folder = tmp_path_factory.mktemp("ward")
    url, guard = f"sqlite:///{folder}/audit.db", load_guard()
    fill(url, guard, folder / "day.spool")
    users = {
        name: DashboardUser(password=hash_password(PASSWORD), role=role) for name, role in (("duty.nurse", "reviewer"), ("ops", "admin"))
    }
    with serving(create_chatbot()) as chatbot:
        settings = Settings(upstream=chatbot, audit=url, country=COUNTRY, dashboard_users=users)
        with serving(create_app(settings, guard=guard)) as address:
            yield address


@pytest.fixture
def page(server: str) -> Iterator[Any]:
    complaints: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--font-render-hinting=none"])
        opened = browser.new_page(viewport={"width": WIDTH, "height": 900}, base_url=server, accept_downloads=True)
        opened.set_default_timeout(15_000)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        yield opened
        browser.close()
    assert complaints == []


def ask(server: str, text: str) -> tuple[str, str]:
    """What an app of patients sends; the exchange's id, and what the guard decided."""
    body = {"model": "stand-in", "messages": [{"role": "user", "content": text}]}
    headers = httpx.post(f"{server}/v1/chat/completions", json=body).headers
    return headers["guardrail-exchange"], headers["guardrail-decision"]


def picture(page: Any, name: str, height: int | None = None) -> None:
    """The whole page, or its first so many pixels, for docs/dashboard.md."""
    if SCREENSHOTS:
        path = Path(SCREENSHOTS) / f"{name}.png"
        clip = {"clip": {"x": 0, "y": 0, "width": WIDTH, "height": height}} if height else {}
        page.screenshot(path=path, full_page=True, animations="disabled", **clip)
        if shutil.which("pngquant"):
            subprocess.run(["pngquant", "--force", "--skip-if-larger", "--ext", ".png", "128", str(path)], check=False)


def sign_in(page: Any, name: str, to: str = "/-/dashboard") -> None:
    page.goto(to)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def test_a_nurse_sees_an_escalation_come_in_and_hands_her_verdict_on_as_a_test_case(server: str, page: Any) -> None:
    page.goto("/-/dashboard")
    picture(page, "dashboard-login", 520)
    sign_in(page, "duty.nurse")
    page.wait_for_selector("h1")

    answers = ((*ask(server, story), story) for story in STORIES)
    id, story = next((id, story) for id, decision, story in answers if "urgency=emergency" in decision)
    page.wait_for_selector(f"a[href$='{id}']")  # the page shows it by itself
    picture(page, "dashboard-overview")
    page.emulate_media(color_scheme="dark")
    picture(page, "dashboard-overview-dark", 900)
    page.emulate_media(color_scheme="light")

    page.locator(f"a[href$='{id}']").first.click()
    page.wait_for_selector("h1:has-text('Emergency')")
    page.get_by_role("button", name="Acknowledge").click()
    page.wait_for_selector(".badge.acknowledged")
    page.get_by_label("Comment").fill("She tells of a film")
    page.get_by_role("button", name="False alarm").click()
    page.wait_for_selector(".badge.false_alarm")
    assert "She tells of a film" in page.inner_text("main")
    with page.expect_download() as download:
        page.get_by_role("link", name="This verdict as a test case").click()

    case = yaml.safe_load(Path(download.value.path()).read_text())
    assert case == {"quiet": [{"text": story, "why": "She tells of a film"}]}
    picture(page, "dashboard-resolved")
    page.goto("/-/dashboard/review")
    assert page.locator(f"a[href$='{id}']").count() == 0
    picture(page, "dashboard-review", 900)


def test_every_page_answers_its_question(server: str, page: Any) -> None:
    id, _ = ask(server, EMERGENCY)
    sign_in(page, "ops", f"/-/dashboard/exchanges/{id}")
    page.wait_for_selector("mark.evidence")
    picture(page, "dashboard-exchange")
    for name, path, shown, height in (
        ("exchanges", "/exchanges?urgency=urgent", "thead", 900),
        ("rules", "/rules", "thead", 900),
        ("packs", "/packs", "thead", 900),
        ("problem", "/exchanges/none", "[role=alert]", 360),
    ):
        page.goto(f"/-/dashboard{path}")
        page.wait_for_selector(shown)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
        picture(page, f"dashboard-{name}", height)
