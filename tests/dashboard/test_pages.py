"""The pages: what they show, to whom, and that nothing hostile gets through them."""

import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from guardrail.app import create_app
from guardrail.audit.keys import add_text_key
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.audit.store import AuditStore
from guardrail.config import DashboardUser, Settings
from guardrail.dashboard.passwords import hash_password
from guardrail.dashboard.people import Role
from guardrail.dashboard.tables import Tables
from guardrail.dashboard.tokens import Tokens
from guardrail.engine.guard import Guard
from guardrail.engine.model import Conversation, Message
from guardrail.engine.model import Role as Speaker
from guardrail.errors import UpstreamUnreachable
from guardrail.packs.load import Case
from guardrail.proxy.upstream import UpstreamReply
from tests.conftest import SMALL_RULES

PASSWORD = "a long enough one"
HASH = hash_password(PASSWORD)
HOSTILE = '<script>alert(1)</script> "><img src=x onerror=alert(1)> I have chest pain {{ 7*7 }}'
PAGES = ["", "/exchanges", "/exchanges/id000001", "/review", "/rules", "/packs"]


class NoUpstream:
    """An upstream that is always away."""

    async def open(self, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> UpstreamReply:
        raise UpstreamUnreachable("nothing listens there")

    async def aclose(self) -> None:
        pass


def keep(url: str, guard: Guard, texts: Mapping[str, str], **record: Any) -> None:
    """Record one exchange for each id and text."""
    store = AuditStore(url)
    for number, (id, text) in enumerate(texts.items()):
        decision = guard.review(Conversation((Message(Speaker.USER, text),)))
        at = time.time() - 60 + number
        store.record(ExchangeRecord(id, at, "chat_completions", Outcome.ANSWERED, decision, texts=(text,), guard_ms=0.4, **record))
    store.close()


def app_of(url: str | None, guard: Guard, *, open_dashboard: bool = False, **settings: Any) -> TestClient:
    users = {name: DashboardUser(password=HASH, role=name) for name in ("viewer", "reviewer", "admin")}
    app = create_app(
        Settings(audit=url, **{"dashboard_users": users, **settings}), guard=guard, upstream=NoUpstream(), open_dashboard=open_dashboard
    )
    return TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50000), follow_redirects=False)


@pytest.fixture
def url(tmp_path: Path, small_guard: Guard) -> str:
    url = f"sqlite:///{tmp_path}/audit.db"
    keep(url, small_guard, {"id000001": HOSTILE, "id000002": "how much ibuprofen", "id000003": "hello"})
    return url


@pytest.fixture
def client(url: str, small_guard: Guard) -> Iterator[TestClient]:
    with app_of(url, small_guard) as client:
        yield client


def sign_in(client: TestClient, name: str) -> None:
    response = client.post("/-/dashboard/login", data={"name": name, "password": PASSWORD})
    assert response.status_code == 303


def token_of(client: TestClient, page: str = "/-/dashboard/exchanges/id000001") -> str:
    found = re.search(r'name="token" value="([^"]+)"', client.get(page).text)
    assert found
    return found[1]


@pytest.mark.parametrize("page", PAGES)
def test_nobody_is_served_without_credentials(client: TestClient, page: str) -> None:
    response = client.get(f"/-/dashboard{page}")
    assert (response.status_code, "chest" in response.text) == (303, False)
    assert response.headers["location"].startswith("/-/dashboard/login?next=")

    twin = client.get(f"/-/dashboard{page}.json")
    assert twin.status_code == 401
    assert twin.headers["www-authenticate"] == 'Bearer realm="Guardrail"'


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_shown_to_a_viewer_with_a_strict_policy_and_has_its_twin(client: TestClient, page: str) -> None:
    sign_in(client, "viewer")

    response = client.get(f"/-/dashboard{page}")
    twin = client.get(f"/-/dashboard{page}.json")

    assert (response.status_code, twin.status_code) == (200, 200)
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["cache-control"] == "no-store"
    assert isinstance(twin.json(), dict)
    # Styles and handlers in the page would need an unsafe policy.
    assert re.findall(r"<style|<[^>]*\s(?:style|on\w+)=", response.text) == []


def test_hostile_text_is_shown_and_does_nothing(client: TestClient) -> None:
    sign_in(client, "viewer")

    page = client.get("/-/dashboard/exchanges/id000001").text

    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in re.sub(r"</?mark[^>]*>", "", page)
    assert "{{ 7*7 }}" in page
    assert re.search(r'<mark class="evidence"[^>]*>chest pain</mark>', page)


def test_filters_come_back_escaped(client: TestClient) -> None:
    sign_in(client, "viewer")

    page = client.get(
        "/-/dashboard/exchanges", params={"rule": '"><script>x</script>', "id": "", "urgency": "nonsense", "cursor": "x"}
    ).text

    assert "<script>x" not in page
    assert "Nothing fits." in page


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({}, ["id000003", "id000002", "id000001"]),
        ({"urgency": "emergency"}, ["id000001"]),
        ({"destination": "pharmacist"}, ["id000002"]),
        ({"rule": "chest_pain"}, ["id000001"]),
        ({"outcome": "cut"}, []),
        ({"after": "2100-01-01T00:00"}, []),
        ({"before": "2100-01-01T00:00", "id": "id000003"}, ["id000003"]),
    ],
)
def test_the_list_is_filtered(client: TestClient, query: dict[str, str], ids: list[str]) -> None:
    sign_in(client, "viewer")

    found = client.get("/-/dashboard/exchanges.json", params=query).json()

    assert [e["id"] for e in found["exchanges"]] == ids


def test_paging_shows_everything_once(tmp_path: Path, small_guard: Guard) -> None:
    url = f"sqlite:///{tmp_path}/many.db"
    keep(url, small_guard, {f"id{n:06}": "I have chest pain" for n in range(120)})

    with app_of(url, small_guard) as client:
        sign_in(client, "viewer")
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = client.get("/-/dashboard/exchanges.json", params={"cursor": cursor, "rule": "chest_pain"}).json()
            seen += [e["id"] for e in page["exchanges"]]
            cursor = page["next"]

    assert seen == [f"id{n:06}" for n in reversed(range(120))]


def test_an_unknown_exchange_is_not_found(client: TestClient) -> None:
    sign_in(client, "viewer")

    assert client.get("/-/dashboard/exchanges/nope").status_code == 404
    assert client.get("/-/dashboard/exchanges/nope.json").status_code == 404


def test_the_packs_say_in_plain_sight_that_nobody_reviewed_them(client: TestClient) -> None:
    sign_in(client, "viewer")

    assert "not yet reviewed by a clinician" in client.get("/-/dashboard/packs").text
    assert "Not yet reviewed by a clinician" in client.get("/-/dashboard").text


def test_the_overview_counts(client: TestClient) -> None:
    sign_in(client, "viewer")

    found = client.get("/-/dashboard.json", params={"span": "1h"}).json()

    assert (found["exchanges"], found["escalations"], found["emergencies"], found["waiting"]) == (3, 1, 1, 1)
    assert found["destinations"] == {"ambulance": 1}
    assert sum(bar["counts"].get("ambulance", 0) for bar in found["bars"]) == 1
    assert found["parts"] == {"packs": True, "audit": True, "upstream": None}
    assert found["latency"]["guard_ms"]["p50"] == 0.4


def test_a_reviewer_acknowledges_and_resolves_and_the_verdict_becomes_a_case(client: TestClient) -> None:
    sign_in(client, "reviewer")
    token = token_of(client)
    assert [e["id"] for e in client.get("/-/dashboard/review.json").json()["exchanges"]] == ["id000001"]

    assert client.post("/-/dashboard/exchanges/id000001/review", data={"token": token}).status_code == 303
    assert client.get("/-/dashboard/review.json").json()["exchanges"][0]["state"] == "acknowledged"
    form = {"token": token, "verdict": "false_alarm", "comment": "a film: <b>x</b>"}
    assert client.post("/-/dashboard/exchanges/id000001/review", data=form).status_code == 303

    assert client.get("/-/dashboard/review.json").json()["exchanges"] == []
    reviews = client.get("/-/dashboard/exchanges/id000001.json").json()["reviews"]
    assert [(r["state"], r["verdict"], r["reviewer"]) for r in reviews] == [
        ("acknowledged", None, "reviewer"),
        ("resolved", "false_alarm", "reviewer"),
    ]
    assert "a film: &lt;b&gt;" in client.get("/-/dashboard/exchanges/id000001").text
    case = yaml.safe_load(client.get("/-/dashboard/exchanges/id000001/case.yaml").text)
    assert Case(**case["quiet"][0]) == Case(text=HOSTILE, why="a film: <b>x</b>")
    rules = client.get("/-/dashboard/rules.json").json()["rules"]
    assert {r["id"]: r["verdicts"]["false_alarm"] for r in rules}["chest_pain"] == 1


def test_a_form_without_the_token_changes_nothing(client: TestClient) -> None:
    sign_in(client, "reviewer")

    for data in ({"verdict": "right"}, {"verdict": "right", "token": "guess"}, {"verdict": "right", "token": "x" * 30_000}):
        assert client.post("/-/dashboard/exchanges/id000001/review", data=data).status_code == 403
    assert client.post("/-/dashboard/logout").status_code == 403
    assert client.get("/-/dashboard/exchanges/id000001.json").json()["reviews"] == []


def test_a_viewer_reads_and_does_not_judge(client: TestClient) -> None:
    sign_in(client, "viewer")

    assert client.post("/-/dashboard/exchanges/id000001/review", data={"verdict": "right"}).status_code == 403
    assert client.get("/-/dashboard/exchanges/id000001/case.yaml").status_code == 403
    assert "Acknowledge" not in client.get("/-/dashboard/exchanges/id000001").text


def test_only_an_admin_reloads_the_packs(client: TestClient) -> None:
    sign_in(client, "reviewer")
    assert client.post("/-/dashboard/packs/reload", data={"token": token_of(client)}).status_code == 403
    assert "Reload" not in client.get("/-/dashboard/packs").text

    client.cookies.clear()
    sign_in(client, "admin")
    assert client.post("/-/dashboard/packs/reload").status_code == 403  # no token
    assert "Reload" in client.get("/-/dashboard/packs").text


def test_an_unknown_verdict_is_refused(client: TestClient) -> None:
    sign_in(client, "reviewer")

    assert client.post("/-/dashboard/exchanges/id000001/review", data={"token": token_of(client), "verdict": "maybe"}).status_code == 400


def test_wrong_passwords_are_refused_and_then_throttled(client: TestClient) -> None:
    statuses = [client.post("/-/dashboard/login", data={"name": "admin", "password": "guess"}).status_code for _ in range(11)]

    assert statuses == [401] * 10 + [429]
    assert client.post("/-/dashboard/login", data={"name": "admin", "password": PASSWORD}).status_code == 429


def test_a_login_from_another_site_is_refused(client: TestClient) -> None:
    data = {"name": "admin", "password": PASSWORD}

    assert client.post("/-/dashboard/login", data=data, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.post("/-/dashboard/login", data=data, headers={"origin": "https://evil.example"}).status_code == 403


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/-/dashboardevil", "/v1/models"])
def test_a_login_leads_to_the_dashboard_only(client: TestClient, elsewhere: str) -> None:
    response = client.post("/-/dashboard/login", data={"name": "admin", "password": PASSWORD, "next": elsewhere})

    assert response.headers["location"] == "/-/dashboard"


def test_the_session_cookie_is_for_the_dashboard_alone(client: TestClient) -> None:
    response = client.post("/-/dashboard/login", data={"name": "admin", "password": PASSWORD})

    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/-;" in cookie
    assert "max-age=43200" in cookie
    assert "secure" not in cookie  # this machine, without TLS


def test_the_session_cookie_goes_by_https_only_where_browsers_come_by_https(url: str, small_guard: Guard) -> None:
    with app_of(url, small_guard, dashboard_url="https://guardrail.example.org") as client:
        response = client.post("/-/dashboard/login", data={"name": "admin", "password": PASSWORD})

    assert "secure" in response.headers["set-cookie"].lower().split("; ")


def test_signing_out_ends_it(client: TestClient) -> None:
    sign_in(client, "viewer")

    assert client.post("/-/dashboard/logout", data={"token": token_of(client, "/-/dashboard")}).status_code == 303
    assert client.get("/-/dashboard").status_code == 303


def test_a_stolen_cookie_is_worth_nothing_after_signing_out(client: TestClient) -> None:
    sign_in(client, "viewer")
    stolen = client.cookies["guardrail_session"]

    client.post("/-/dashboard/logout", data={"token": token_of(client, "/-/dashboard")})
    client.cookies.set("guardrail_session", stolen)

    assert client.get("/-/dashboard").status_code == 303


def test_signing_in_ends_the_session_that_the_browser_had(client: TestClient) -> None:
    sign_in(client, "viewer")
    before = client.cookies["guardrail_session"]

    sign_in(client, "admin")

    after = client.cookies["guardrail_session"]
    assert after != before
    client.cookies.clear()
    client.cookies.set("guardrail_session", before)
    assert client.get("/-/dashboard.json").status_code == 401


def token(url: str, role: Role, name: str = "program") -> dict[str, str]:
    """The header that a program sends."""
    with closing(Tables(url)) as tables:
        return {"authorization": f"Bearer {Tokens(tables, time.time).create(name, role, 'a test', 60)[0]}"}


@pytest.mark.parametrize("page", PAGES)
def test_programs_show_a_token_for_every_twin(url: str, client: TestClient, page: str) -> None:
    assert client.get(f"/-/dashboard{page}.json", headers=token(url, Role.VIEWER)).status_code == 200
    assert client.get(f"/-/dashboard{page}.json", headers={"authorization": "Bearer guardrail_0_x"}).status_code == 401


def test_a_token_that_is_wrong_is_not_helped_by_a_session(client: TestClient) -> None:
    sign_in(client, "admin")

    assert client.get("/-/dashboard.json", headers={"authorization": "Bearer guardrail_0_x"}).status_code == 401


def test_what_a_token_opens_is_recorded_under_its_name(url: str, small_guard: Guard) -> None:
    with app_of(url, small_guard) as client:
        client.get("/-/dashboard/exchanges/id000001.json", headers=token(url, Role.VIEWER, "export"))
    with app_of(url, small_guard) as client:
        found = client.get("/-/dashboard/exchanges/id000001.json", headers=token(url, Role.VIEWER)).json()

    assert [(a["by"], a["action"]) for a in found["accesses"]] == [("token export", "opened")]


@pytest.mark.parametrize(
    ("role", "statuses"),
    [(Role.VIEWER, (200, 403)), (Role.REVIEWER, (200, 403)), (Role.ADMIN, (200, 200))],
    ids=["viewer", "reviewer", "admin"],
)
def test_tokens_list_and_reload_the_packs_from_elsewhere_as_their_role_allows(
    url: str, small_guard: Guard, role: Role, statuses: tuple[int, int]
) -> None:
    with app_of(url, small_guard, rules=SMALL_RULES) as client:
        away = {"x-forwarded-for": "10.0.0.1"}
        shown = {**away, **token(url, role)}

        assert (client.get("/-/packs", headers=shown).status_code, client.post("/-/reload", headers=shown).status_code) == statuses
        assert (client.get("/-/packs", headers=away).status_code, client.post("/-/reload", headers=away).status_code) == (403, 403)


def test_a_token_does_not_judge(url: str, client: TestClient) -> None:
    """Verdicts are people's: forms need a session."""
    response = client.post("/-/dashboard/exchanges/id000001/review", data={"verdict": "right", "token": ""}, headers=token(url, Role.ADMIN))

    assert response.status_code == 403


def test_guesses_are_counted_for_who_asks_behind_a_trusted_proxy(url: str, small_guard: Guard) -> None:
    def status(client: TestClient, address: str, password: str) -> int:
        headers = {"x-forwarded-for": f"1.2.3.4, {address}"}
        return client.post("/-/dashboard/login", data={"name": "admin", "password": password}, headers=headers).status_code

    with app_of(url, small_guard, trusted_proxies=("127.0.0.1",)) as client:
        assert [status(client, "10.0.0.1", "guess") for _ in range(11)] == [401] * 10 + [429]
        assert status(client, "10.0.0.2", PASSWORD) == 303
    with app_of(url, small_guard) as client:
        assert status(client, "10.0.0.3", "guess") == 401
        assert status(client, "10.0.0.1", PASSWORD) == 303  # nobody believes the header: it is this machine's tries that count


def test_too_many_guesses_are_remembered_when_a_worker_starts_again(url: str, small_guard: Guard) -> None:
    with app_of(url, small_guard) as client:
        for _ in range(10):
            client.post("/-/dashboard/login", data={"name": "admin", "password": "guess"})
    with app_of(url, small_guard) as client:
        response = client.post("/-/dashboard/login", data={"name": "admin", "password": PASSWORD})

    assert response.status_code == 429
    assert 0 < int(response.headers["retry-after"]) <= 301


def test_without_users_nothing_is_served_and_the_page_says_what_to_do(url: str, small_guard: Guard) -> None:
    with app_of(url, small_guard, dashboard_users={}) as client:
        response = client.get("/-/dashboard")

    assert response.status_code == 403
    assert "dashboard_users" in response.text


def test_an_open_dashboard_is_for_this_machine_by_its_own_name(url: str, small_guard: Guard) -> None:
    with app_of(url, small_guard, open_dashboard=True) as client:
        assert client.get("/-/dashboard").status_code == 200
        assert client.get("/-/dashboard", headers={"host": "evil.example"}).status_code == 403
        assert client.get("/-/dashboard", headers={"x-forwarded-for": "10.0.0.1"}).status_code == 403


def test_the_dashboard_can_be_off(url: str, small_guard: Guard) -> None:
    with app_of(url, small_guard, dashboard=False) as client:
        assert client.get("/-/dashboard").status_code == 404


def test_without_audit_there_is_no_dashboard(small_guard: Guard) -> None:
    with app_of(None, small_guard) as client:
        assert client.get("/-/dashboard").status_code == 404
        assert client.get("/-/ready").json() == {"status": "ready", "parts": {"packs": True, "upstream": None}}


def test_an_emergency_is_answered_though_the_store_is_gone_and_readiness_says_so(tmp_path: Path, small_guard: Guard) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    body = {"model": "m", "messages": [{"role": "user", "content": "I have chest pain"}]}

    with app_of(f"sqlite:///{blocked}/audit.db", small_guard) as client:
        first = client.post("/v1/chat/completions", json=body)
        end = time.monotonic() + 10
        while client.get("/-/ready").status_code == 200 and time.monotonic() < end:
            time.sleep(0.02)
        second = client.post("/v1/chat/completions", json=body)
        ready = client.get("/-/ready")
        page = client.post("/-/dashboard/login", data={"name": "viewer", "password": PASSWORD})

    assert first.json()["choices"][0]["message"]["content"].startswith("This could be an emergency")
    assert second.status_code == 200
    assert (ready.status_code, ready.json()["parts"]["audit"]) == (503, False)
    assert (page.status_code, "The audit store is away" in page.text) == (503, True)


def test_what_was_asked_is_in_the_store_when_the_app_has_stopped(tmp_path: Path, small_guard: Guard) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "I have chest pain"}]}
    with app_of(f"sqlite:///{tmp_path}/audit.db", small_guard, audit_text="absent") as client:
        id = client.post("/v1/chat/completions", json=body).headers["guardrail-exchange"]

    rows = sqlite3.connect(tmp_path / "audit.db").execute("SELECT id, body FROM entries").fetchall()

    assert [row[0] for row in rows] == [id]
    assert b"chest pain" not in rows[0][1].lower().replace(b"rule for chest_pain", b"")


def test_a_page_without_kept_text_says_so(tmp_path: Path, small_guard: Guard) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "I have chest pain"}]}
    url = f"sqlite:///{tmp_path}/audit.db"
    with app_of(url, small_guard, audit_text="absent") as client:
        id = client.post("/v1/chat/completions", json=body).headers["guardrail-exchange"]

    with app_of(url, small_guard) as client:
        sign_in(client, "reviewer")
        page = client.get(f"/-/dashboard/exchanges/{id}").text
        client.post(
            f"/-/dashboard/exchanges/{id}/review", data={"token": token_of(client, f"/-/dashboard/exchanges/{id}"), "verdict": "right"}
        )
        case = client.get(f"/-/dashboard/exchanges/{id}/case.yaml")

    assert "The text was not kept" in page
    assert case.status_code == 404


def test_encrypted_words_are_shown_to_reviewers_only(tmp_path: Path, small_guard: Guard) -> None:
    add_text_key(tmp_path / "keys")
    body = {"model": "m", "messages": [{"role": "user", "content": "I have chest pain"}]}
    settings: dict[str, Any] = {"audit_text": "encrypted", "audit_text_keys": tmp_path / "keys"}
    url = f"sqlite:///{tmp_path}/audit.db"
    with app_of(url, small_guard, **settings) as client:
        id = client.post("/v1/chat/completions", json=body).headers["guardrail-exchange"]

    seen = {}
    for role in ("viewer", "reviewer"):
        with app_of(url, small_guard, **settings) as client:
            sign_in(client, role)
            pages = [client.get(f"/-/dashboard/exchanges/{id}{form}").text for form in ("", ".json")]
            seen[role] = ["chest pain</mark>" in pages[0], "I have chest pain" in pages[1], "kept encrypted" in pages[0]]

    assert seen == {"viewer": [False, False, True], "reviewer": [True, True, False]}


def test_who_opened_or_exported_an_exchange_is_recorded_and_shown(url: str, small_guard: Guard) -> None:
    with app_of(url, small_guard) as client:
        sign_in(client, "viewer")
        first = client.get("/-/dashboard/exchanges/id000001").text
        client.get("/-/dashboard/exchanges/id000001.json")
        client.get("/-/dashboard/exchanges/no-such-id")
    with app_of(url, small_guard) as client:
        sign_in(client, "reviewer")
        client.post("/-/dashboard/exchanges/id000001/review", data={"token": token_of(client), "verdict": "right"})
        client.get("/-/dashboard/exchanges/id000001/case.yaml")
    with app_of(url, small_guard) as client:
        sign_in(client, "admin")
        shown = client.get("/-/dashboard/exchanges/id000001.json").json()["accesses"]
        page = client.get("/-/dashboard/exchanges/id000001").text

    assert "Nobody before you" in first
    assert [(a["by"], a["action"]) for a in shown] == [
        ("viewer", "opened"),
        ("viewer", "opened"),
        ("reviewer", "opened"),
        ("reviewer", "exported"),
    ]
    assert "Who looked" in page
    assert "exported 20" in page


def test_figures_and_the_list_of_a_rule_count_every_exchange(url: str, client: TestClient) -> None:
    sign_in(client, "viewer")

    overview = client.get("/-/dashboard.json?span=1h").json()
    rules = {row["id"]: row["hits"] for row in client.get("/-/dashboard/rules.json").json()["rules"]}
    listed = client.get("/-/dashboard/exchanges.json?rule=chest_pain").json()["exchanges"]

    assert (overview["exchanges"], overview["emergencies"], overview["waiting"]) == (3, 1, 1)
    assert rules["chest_pain"] == 1
    assert [row["id"] for row in listed] == ["id000001"]
