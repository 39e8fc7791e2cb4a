"""`guardrail demo` over real sockets, and the same in a real browser."""

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from guardrail.demo.chatbot import OTHERWISE, REPLIES, reply_to

CHROMIUM = shutil.which("chromium")
SCREENSHOTS = os.environ.get("SCREENSHOTS")
"""A folder for pictures of the pages, to look at and to keep in docs/images."""
EMERGENCY = "There's an elephant sitting on my chest and my left arm is numb. My wife says it's nothing."
STARTED_WITHIN = 60.0


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The demo as its users start it; gives its address."""
    command = [sys.executable, "-m", "guardrail", "demo", "--no-browser", "--port", "0", "--folder", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], STARTED_WITHIN)[0], "the demo did not start"
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        yield found[0], process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        finally:
            process.kill()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("demo")) as (url, _):
        yield url


def ask(url: str, text: str, **more: Any) -> httpx.Response:
    body = {"model": "stand-in", "messages": [{"role": "user", "content": text}], **more}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20)


def content(response: httpx.Response) -> str:
    return str(response.json()["choices"][0]["message"]["content"])


def wait_for_exchange(url: str, id: str) -> dict[str, Any]:
    """The record appears a moment after the reply."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        response = httpx.get(f"{url}/-/dashboard/exchanges/{id}.json", timeout=10)
        if response.status_code == 200:
            found: dict[str, Any] = response.json()
            return found
        time.sleep(0.05)
    raise AssertionError("the exchange was not recorded")


def test_an_emergency_is_answered_and_stands_on_the_dashboard_with_its_evidence(demo: str) -> None:
    response = ask(demo, EMERGENCY)

    assert "elephant" not in content(response)
    assert response.headers["guardrail-decision"].startswith("answer; urgency=emergency")
    found = wait_for_exchange(demo, response.headers["guardrail-exchange"])
    marked = [s["text"] for s in found["texts"][0] if s["kind"] == "evidence"]
    assert any("elephant" in text for text in marked)
    page = httpx.get(f"{demo}/-/dashboard").text
    assert response.headers["guardrail-exchange"] in page


def test_an_emergency_is_answered_in_a_stream_too(demo: str) -> None:
    response = ask(demo, EMERGENCY, stream=True)

    assert response.headers["content-type"].startswith("text/event-stream")
    assert "911" not in response.text  # no country was sent, so there are no digits
    assert response.text.rstrip().endswith("data: [DONE]")


def test_the_country_chosen_on_the_page_decides_the_number(demo: str) -> None:
    body = {"messages": [{"role": "user", "content": EMERGENCY}]}

    response = httpx.post(f"{demo}/v1/chat/completions", json=body, headers={"guardrail-country": "GB"}, timeout=20)

    assert "999" in content(response)


def test_a_dose_from_the_chatbot_does_not_reach_the_patient(demo: str) -> None:
    response = ask(demo, "I have a mild headache after work, what can I do?")

    assert "800 mg" not in content(response)
    why = httpx.get(f"{demo}/demo/exchanges/{response.headers['guardrail-exchange']}").json()
    assert why["reply"]["issues"] == ["dose_instruction"]


def test_a_harmless_question_reaches_the_chatbot_and_comes_back_with_a_disclaimer(demo: str) -> None:
    response = ask(demo, "How can I sleep better?")

    assert content(response).startswith("Going to bed and getting up at the same time")
    assert "health professional" in content(response)


def test_the_chat_page_loads_nothing_from_elsewhere(demo: str) -> None:
    response = httpx.get(f"{demo}/")

    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert re.findall(r'(?:src|href)="(?:https?:)?//', response.text) == []


@pytest.mark.parametrize("path", ["/", "/-/dashboard", "/-/dashboard/exchanges.json"])
def test_another_name_for_this_machine_is_not_let_in(demo: str, path: str) -> None:
    """A hostile site can point its own name at 127.0.0.1."""
    response = httpx.get(f"{demo}{path}", headers={"host": "evil.example"})

    assert response.status_code == 403


def test_ctrl_c_stops_it_cleanly(tmp_path: Path) -> None:
    with running(tmp_path) as (url, process):
        assert httpx.get(f"{url}/-/health").status_code == 200

        process.send_signal(signal.SIGINT)

        assert process.wait(20) == 0
        assert process.stdout is not None
        assert process.stdout.read().endswith("Stopped.\n")


def test_a_port_that_is_taken_is_named_with_the_remedy(demo: str) -> None:
    port = demo.rsplit(":", 1)[1]

    done = subprocess.run(
        [sys.executable, "-m", "guardrail", "demo", "--no-browser", "--port", port], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 2
    assert f"port {port} cannot be used" in done.stderr
    assert "--port" in done.stderr


def test_the_stand_in_has_a_reply_for_everything() -> None:
    assert reply_to("My MOLE looks odd") == dict(REPLIES)["mole"]
    assert reply_to("what is health") == OTHERWISE


@pytest.fixture
def page() -> Iterator[Any]:
    """A page in a real browser that fails the test when a script fails or the policy refuses something."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    arguments = [
        "--no-sandbox",
        "--headless",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
    ]
    complaints: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        opened = browser.new_page(viewport={"width": 1180, "height": 860})
        opened.set_default_timeout(15_000)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        yield opened
        browser.close()
    assert complaints == []


def picture(page: Any, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png")


def fits(page: Any) -> bool:
    """Nothing hangs out at the side."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def test_a_person_sees_the_redirect_and_its_evidence_and_a_nurse_reviews_it(demo: str, page: Any) -> None:
    page.goto(f"{demo}/")
    page.fill("#say", EMERGENCY)
    page.keyboard.press("Enter")
    page.wait_for_selector("aside.emergency")
    assert "The guard" in page.inner_text(".bubble.bot.answered .by")
    assert "911" in page.inner_text(".bubble.bot .words")
    assert any("elephant" in text for text in page.locator(".bubble mark.evidence").all_inner_texts())
    assert "My wife says" in page.inner_text(".bubble.patient")
    picture(page, "chat")

    # The page beside the chat knows the exchange at once, the store some milliseconds later.
    recorded = demo + page.locator("text=on the dashboard").get_attribute("href")
    for _ in range(100):
        if page.request.get(recorded).ok:
            break
        page.wait_for_timeout(50)
    page.click("text=on the dashboard")
    page.wait_for_selector("h1:has-text('Emergency')")
    assert any("elephant" in text for text in page.locator("blockquote mark.evidence").all_inner_texts())
    picture(page, "exchange")
    page.click("button:has-text('Acknowledge')")
    page.wait_for_selector(".badge.acknowledged")
    page.fill("textarea[name=comment]", "As it should be")
    page.click("button:has-text('Right')")
    page.wait_for_selector(".badge.right")
    assert "As it should be" in page.inner_text("main")
    case = page.request.get(page.url + "/case.yaml").text()
    assert "fires:" in case
    assert "elephant" in case

    page.goto(f"{demo}/-/dashboard/review")
    assert "As it should be" not in page.inner_text("main")


def test_the_chat_works_on_a_phone_in_the_dark_and_by_keyboard(demo: str, page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    page.goto(f"{demo}/")
    page.focus("[data-example] >> nth=7")
    page.keyboard.press("Enter")
    page.wait_for_selector("aside .badge.cut")

    assert "800 mg" not in page.inner_text("#conversation")
    assert fits(page)
    picture(page, "chat-360")


def test_what_was_denied_is_shown_with_the_word_that_denied_it(demo: str, page: Any) -> None:
    page.goto(f"{demo}/")
    page.click("button:has-text('Denied')")
    page.wait_for_selector("aside h3:has-text('set aside')")

    assert "because of “No”" in page.inner_text("aside")
    assert fits(page)
    picture(page, "chat-denied")


def test_the_overview_shows_a_new_escalation_by_itself(demo: str, page: Any) -> None:
    page.goto(f"{demo}/-/dashboard")
    before = page.locator("section:has(h2:text('Latest escalations')) tbody tr").count()

    for text in (EMERGENCY, "I don't want to be here anymore. I've saved up my pills.", "How much ibuprofen can I give my 3 year old?"):
        ask(demo, text)

    page.wait_for_function(
        "n => document.querySelectorAll('.figures dd')[0].innerText !== '0' && document.querySelectorAll('table tbody tr').length > n",
        arg=before,
    )
    picture(page, "dashboard")


@pytest.mark.parametrize("name", ["", "/exchanges", "/review", "/rules", "/packs"])
@pytest.mark.parametrize("width", [1180, 360])
def test_pages_fit_their_screen(demo: str, page: Any, name: str, width: int) -> None:
    ask(demo, EMERGENCY)
    page.set_viewport_size({"width": width, "height": 800})

    page.goto(f"{demo}/-/dashboard{name}")

    assert page.inner_text("h1")
    assert fits(page)
    picture(page, f"page{name.replace('/', '-')}-{width}")
