"""What is served beside the proxy: health, readiness, checks, packs and their reload."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from guardrail import config
from guardrail.app import create_app, from_environment, load_guard
from guardrail.config import Settings
from guardrail.engine.guard import Guard
from guardrail.errors import ConfigError
from tests.conftest import SMALL_RULES
from tests.test_cli import run


def client(guard: Guard | None = None, headers: dict[str, str] | None = None, address: str = "127.0.0.1", **given: Any) -> TestClient:
    apart = ("routes", "ready", "recorders")
    settings = {k: v for k, v in given.items() if k not in apart}
    more = {k: v for k, v in given.items() if k in apart}
    app = create_app(Settings(**{"upstream": "http://127.0.0.1:9", **settings}), guard=guard, **more)
    return TestClient(app, headers=headers, client=(address, 1))


def test_health_and_readiness(small_guard: Guard) -> None:
    parts = {"audit": True}
    one = client(small_guard, ready=lambda: parts)

    assert one.get("/-/health").json()["packs"] == small_guard.knowledge.revision
    ready = one.get("/-/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "parts": {"packs": True, "upstream": None, "audit": True}})
    parts["audit"] = False
    assert (one.get("/-/ready").status_code, one.get("/-/ready").json()["status"]) == (503, "degraded")
    assert one.get("/-/health").status_code == 200


def test_check_speaks_the_contract_of_the_command(small_guard: Guard) -> None:
    one = client(small_guard)
    item = {"id": "a", "text": "I have chest pain", "response": "Rest.", "country": "GB"}
    answer = one.post("/-/check", json=item)

    assert answer.status_code == 200
    line = run("check", "--jsonl", "-", "--rules", str(SMALL_RULES), given=orjson.dumps(item)).output
    assert answer.content.decode() == line.strip()


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b"[]", 400), (b'{"id": 1}', 400), (b'{"text": "' + b"x" * 2000 + b'"}', 413)])
def test_check_refuses_what_it_cannot_use(small_guard: Guard, body: bytes, status: int) -> None:
    answer = client(small_guard, max_body_bytes=1000).post("/-/check", content=body)

    assert answer.status_code == status
    assert answer.json()["error"]


def test_check_asks_for_a_key_where_there_are_tenants(small_guard: Guard) -> None:
    one = client(small_guard, tenants={"a": {"api_key": "k"}})

    assert one.post("/-/check", json={"text": "x"}).status_code == 401
    assert one.post("/-/check", json={"text": "x"}, headers={"x-api-key": "k"}).status_code == 200


def test_packs_are_listed(small_guard: Guard) -> None:
    packs = client(small_guard).get("/-/packs").json()

    assert packs["revision"] == small_guard.knowledge.revision
    assert packs["packs"] == [{"name": "small", "title": "Small", "version": "1.0.0", "reviewed": None, "rules": 3}]


def test_reload_swaps_whole_and_bad_packs_change_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "rules"
    shutil.copytree(SMALL_RULES, folder)
    one = client(rules=folder)
    before = one.get("/-/packs").json()["revision"]
    path = folder / "small" / "concepts" / "small.yaml"
    good = path.read_text()

    path.write_text(good.replace('phrases: ["a rash"]', "phrases: rash"))
    refused = one.post("/-/reload")
    assert refused.status_code == 422
    assert refused.json()["problems"][0].startswith("rules/small/concepts/small.yaml:9:")
    assert one.get("/-/packs").json()["revision"] == before
    assert one.post("/-/check", json={"text": "I have chest pain"}).json()["urgency"] == "emergency"

    path.write_text(good.replace('["a rash"]', '["a rash", "red spots"]'))
    assert one.post("/-/check", json={"text": "red spots"}).json()["urgency"] == "none"
    reloaded = one.post("/-/reload").json()
    assert (reloaded["before"], reloaded["revision"] != before) == (before, True)
    assert one.post("/-/check", json={"text": "red spots"}).json()["urgency"] == "urgent"


def test_who_may_reload(small_guard: Guard) -> None:
    def status(one: TestClient, **headers: str) -> int:
        return int(one.post("/-/reload", headers={k.replace("_", "-"): v for k, v in headers.items()}).status_code)

    rules: dict[str, Any] = {"rules": SMALL_RULES}
    assert status(client(small_guard, **rules)) == 200
    assert status(client(small_guard, **rules), x_forwarded_for="10.0.0.1") == 403
    assert status(client(small_guard, address="10.0.0.1", **rules)) == 403
    with_token = client(small_guard, admin_token="t", address="10.0.0.1", **rules)
    assert status(with_token) == 403
    assert status(with_token, authorization="Bearer x") == 403
    assert status(with_token, authorization="Bearer t") == 200
    assert client(small_guard).get("/-/reload").status_code == 404


def test_routes_of_others_are_mounted_before_the_proxy(small_guard: Guard) -> None:
    one = client(small_guard, routes=[Route("/-/other", lambda request: PlainTextResponse("other"))])

    assert one.get("/-/other").text == "other"
    assert one.get("/-/nothing").status_code == 404


def test_cors_for_the_origins_that_are_named(small_guard: Guard) -> None:
    one = client(small_guard, cors_origins=["https://app.example"])
    asked = {"origin": "https://app.example", "access-control-request-method": "POST", "access-control-request-headers": "authorization"}

    assert one.options("/v1/chat/completions", headers=asked).headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in one.get("/-/health", headers={"origin": "https://evil.example"}).headers
    assert "access-control-allow-origin" not in client(small_guard).get("/-/health", headers={"origin": "https://app.example"}).headers


def test_texts_that_are_needed_when_things_fail_must_be_there(tmp_path: Path) -> None:
    folder = tmp_path / "rules"
    shutil.copytree(SMALL_RULES, folder)
    path = folder / "languages" / "en" / "answers.yaml"
    path.write_text(path.read_text().replace("guard_failed:", "other:"))

    with pytest.raises(ConfigError, match='needs the answer "guard_failed"'):
        load_guard(folder)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"upstream": None}, "no upstream; give one with --upstream"),
        ({"trusted_proxies": ["somewhere"]}, "trusted_proxies: 'somewhere' does not appear to be"),
        ({"pass_paths": ["/v1/models"]}, 'pass_paths: "/v1/models" is not a method and a path'),
    ],
)
def test_settings_that_cannot_work_together(small_guard: Guard, given: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        client(small_guard, **given)


def test_the_application_can_be_made_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDRAIL_UPSTREAM", "http://127.0.0.1:9")
    monkeypatch.setenv("GUARDRAIL_RULES", str(SMALL_RULES))

    assert config.load().rules == SMALL_RULES
    assert TestClient(from_environment()).get("/-/health").status_code == 200


@pytest.mark.parametrize(("setting", "named"), [("name", True), ("pseudonym", False)])
def test_the_record_names_callers_as_it_is_told(small_guard: Guard, tmp_path: Path, setting: str, named: bool) -> None:
    path = tmp_path / "audit.db"
    settings = Settings(
        upstream="http://127.0.0.1:9",
        audit=f"sqlite:///{path}",
        audit_tenants=setting,
        tenants={"clinic": {"api_key": "k"}},
    )
    with TestClient(create_app(settings, guard=small_guard), headers={"authorization": "Bearer k"}) as one:
        one.post("/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": "crushing chest pain"}]})

    with sqlite3.connect(path) as database:
        ((tenant,),) = database.execute("SELECT tenant FROM entries WHERE kind = 'exchange'").fetchall()
    database.close()
    assert (tenant == "clinic") is named
    assert tenant
