"""Packs are replaced while the service runs: by request, by SIGHUP, by a change of their folder, in all workers or in none."""

import os
import shutil
import signal
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from guardrail.app import create_app
from guardrail.config import Settings
from tests.conftest import SMALL_RULES
from tests.processes import Server, guardrail_serve, needs_linux, wait_for

GOOD = 'phrases: ["a rash"]'
NEW = 'phrases: ["a rash", "red spots"]'
BROKEN = "phrases: rash"
"""Five problems, as rules and cases use what it takes away."""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SMALL_RULES, tmp_path / "rules"))


def write(rules: Path, old: str, new: str) -> None:
    """As an editor saves: a new file in place of the old one."""
    path = rules / "small" / "concepts" / "small.yaml"
    text = path.read_text()
    assert old in text
    path.with_suffix(".tmp").write_text(text.replace(old, new))
    os.replace(path.with_suffix(".tmp"), path)


def understands_red_spots(server: Server) -> set[bool]:
    """What the workers say; a connection each, as the kernel deals them out."""
    answers = (httpx.post(server.url + "/-/check", json={"text": "red spots"}).json() for _ in range(20))
    return {answer["urgency"] == "urgent" for answer in answers}


@needs_linux
def test_overrides_of_shipped_packs_are_followed_and_shown(tmp_path: Path, rules: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir()
    with guardrail_serve(tmp_path, workers=1, rules=str(rules), overrides=str(ours), rules_watch_seconds=0.2) as server:
        first = server.health()["packs"]
        override = 'concept: rash, change: {add: [red spots]}, reason: Said here, owner: Dr Example, expires: "2999-01-01"'
        (ours / "site.tmp").write_text(f"- {{{override}}}\n")
        os.replace(ours / "site.tmp", ours / "site.yaml")
        wait_for(lambda: server.health()["packs"] != first, server)

        assert understands_red_spots(server) == {True}
        assert httpx.get(server.url + "/-/packs").json()["overrides"] == [
            {
                "file": "ours/site.yaml",
                "subject": "concept rash",
                "change": 'add "red spots"',
                "reason": "Said here",
                "owner": "Dr Example",
                "expires": "2999-01-01",
                "state": "in force",
            }
        ]


@needs_linux
def test_all_workers_follow_the_folder_and_a_broken_pack_changes_nothing(tmp_path: Path, rules: Path) -> None:
    with guardrail_serve(tmp_path, workers=2, rules=str(rules), rules_watch_seconds=0.2) as server:
        first = server.health()
        assert (first["workers"], first["pack_problems"]) == ({first["packs"]: 2}, 0)

        write(rules, GOOD, NEW)
        wait_for(lambda: set(server.health()["workers"]) == {server.health()["packs"]} != {first["packs"]}, server)
        second = server.health()
        assert second["workers"] == {second["packs"]: 2}
        assert understands_red_spots(server) == {True}

        write(rules, NEW, BROKEN)
        wait_for(lambda: len(server.lines("packs_refused")) >= 2, server)
        assert {line["alarm"] for line in server.lines("packs_refused")} == {True}
        assert server.lines("packs_refused")[0]["first"].startswith("rules/small/concepts/small.yaml:9:")
        assert server.health() == {**second, "pack_problems": 5}
        assert understands_red_spots(server) == {True}
        ready = httpx.get(server.url + "/-/ready")
        assert (ready.status_code, ready.json()["parts"]["packs"]) == (503, False)
        problems = httpx.get(server.url + "/-/packs").json()["problems"]
        assert len(problems) == 5

        write(rules, BROKEN, GOOD)
        wait_for(lambda: server.health()["workers"] == first["workers"] and httpx.get(server.url + "/-/ready").is_success, server)
        assert understands_red_spots(server) == {False}


@needs_linux
@pytest.mark.parametrize("workers", [1, 2])
def test_hangup_reloads_every_worker_and_stops_none(tmp_path: Path, rules: Path, workers: int) -> None:
    with guardrail_serve(tmp_path, workers=workers, rules=str(rules), rules_watch_seconds=0) as server:
        before, pids = server.health(), server.workers()

        write(rules, GOOD, BROKEN)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(server.lines("packs_refused")) == workers, server)
        assert server.health() == {**before, "pack_problems": 5}

        write(rules, BROKEN, NEW)
        assert server.health()["workers"] == before["workers"]
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(server.lines("packs_reloaded")) == workers, server)
        assert list(server.health()["workers"].values()) == [workers]
        assert understands_red_spots(server) == {True}
        assert server.workers() == pids


@needs_linux
def test_a_reload_by_request_is_answered_when_all_workers_have_it(tmp_path: Path, rules: Path) -> None:
    with guardrail_serve(tmp_path, workers=2, rules=str(rules), rules_watch_seconds=0) as server:
        before = server.health()["packs"]
        write(rules, GOOD, BROKEN)
        refused = httpx.post(server.url + "/-/reload")
        assert refused.status_code == 422
        assert refused.json()["problems"][0].startswith("rules/small/concepts/small.yaml:9:")
        assert understands_red_spots(server) == {False}

        write(rules, BROKEN, NEW)
        answer = httpx.post(server.url + "/-/reload", timeout=60).json()
        assert answer["before"] == before
        assert answer["workers"] == {answer["revision"]: 2}
        assert understands_red_spots(server) == {True}


@needs_linux
def test_the_board_forgets_a_worker_that_was_killed(tmp_path: Path) -> None:
    with guardrail_serve(tmp_path, workers=2) as server:
        before = server.workers()
        os.kill(before[0], signal.SIGKILL)

        wait_for(lambda: set(server.workers()) - set(before) != set(), server)
        wait_for(lambda: list(server.health()["workers"].values()) == [2], server)
        # Those who live are counted; the one that was killed is not.
        wait_for(lambda: 'guardrail_workers{revision="' + server.health()["packs"] + '"} 2.0' in page(server), server)
        assert before[0] not in server.workers()


def page(server: Server) -> str:
    return httpx.get(server.url + "/-/metrics").text


def test_the_dashboard_shows_why_newer_packs_are_not_in_force(tmp_path: Path, rules: Path) -> None:
    settings = Settings(upstream="http://127.0.0.1:9", rules=rules, audit=f"sqlite:///{tmp_path}/audit.db")
    with TestClient(create_app(settings, open_dashboard=True), base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
        before = client.get("/-/dashboard/packs.json").json()
        write(rules, GOOD, BROKEN)
        assert client.post("/-/reload").status_code == 422
        page, after = client.get("/-/dashboard/packs").text, client.get("/-/dashboard/packs.json").json()

    assert (before["workers"], before["problems"]) == ({before["revision"]: 1}, [])
    assert (after["revision"], after["workers"]) == (before["revision"], before["workers"])
    assert len(after["problems"]) == 5
    assert "Newer packs do not load; these stay in force." in page
    assert "rules/small/concepts/small.yaml:9:" in page


def test_a_folder_that_went_away_changes_nothing(tmp_path: Path, rules: Path) -> None:
    with TestClient(create_app(Settings(upstream="http://127.0.0.1:9", rules=rules)), client=("127.0.0.1", 1)) as client:
        shutil.rmtree(rules)
        answer = client.post("/-/reload")

        assert answer.status_code == 422
        assert "no policy.yaml" in answer.json()["problems"][0]
        assert client.post("/-/check", json={"text": "I have chest pain"}).json()["urgency"] == "emergency"
