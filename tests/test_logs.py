"""One line per exchange, and never a patient's words in it."""

import asyncio
import io
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import structlog

from guardrail import logs
from guardrail.app import create_app
from guardrail.config import Settings
from guardrail.engine.guard import Guard
from tests.proxy.test_failures import Raising, failing_reply
from tests.proxy.test_openai_client import word_guard
from tests.serving import STREAM_HEAD, Call, chat_chunk, chunked, saying, serving, upstream

CANARY = "zephyrcanary"


@pytest.fixture
def written() -> io.BytesIO:
    stream = io.BytesIO()
    logs.configure(stream)
    return stream


def lines(stream: io.BytesIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def post(url: str, text: str, **more: Any) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "user": CANARY, **more}
    httpx.post(url + "/v1/chat/completions", json=body, timeout=10, headers={"authorization": f"Bearer {CANARY}"})


def test_an_exchange_is_one_line(written: io.BytesIO, small_guard: Guard) -> None:
    with upstream(saying("Rest.")) as up, serving(create_app(Settings(upstream=up.url), guard=small_guard)) as url:
        post(url, "I have chest pain")
        post(url, "hello")

    first, second = (line for line in lines(written) if line["event"] == "exchange")
    assert first["level"] == "info"
    assert first["timestamp"].endswith("Z")
    assert {
        k: first[k] for k in ("dialect", "outcome", "urgency", "destination", "action", "rules", "packs", "status", "stream", "model")
    } == {
        "dialect": "openai_chat",
        "outcome": "answered",
        "urgency": "emergency",
        "destination": "ambulance",
        "action": "answer",
        "rules": ["chest_pain"],
        "packs": small_guard.knowledge.revision,
        "status": 200,
        "stream": False,
        "model": "m",
    }
    assert second["outcome"] == "forwarded"
    assert second["total_ms"] >= second["upstream_ms"] >= 0


def test_no_words_of_a_patient_in_any_line(written: io.BytesIO, small_guard: Guard, capfd: pytest.CaptureFixture[str]) -> None:
    """Every outcome, with the canary wherever a patient's words or a credential can stand."""

    async def broken(call: Call, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunked(chat_chunk({"content": CANARY}) + b"data: {" + CANARY.encode() + b"\n\n"))
        writer.close()

    text = f"I have chest pain {CANARY}"
    for handler, guard, reply_guard in (
        (saying(f"{CANARY} FORBIDDEN"), small_guard, word_guard),
        (saying(f"two {CANARY}"), small_guard, failing_reply),
        (broken, small_guard, word_guard),
        (saying("x"), Raising(small_guard.knowledge), word_guard),
    ):
        with upstream(handler) as up, serving(create_app(Settings(upstream=up.url), guard=guard, reply_guard=reply_guard)) as url:
            for words in (text, CANARY):
                for stream in (False, True):
                    post(url, words, stream=stream)
            post(url, CANARY, messages=f"{CANARY}")
            post(url, CANARY, messages=[{"role": CANARY, "content": CANARY, CANARY: CANARY}])
            post(url, CANARY, messages=[{"role": "user", "content": [{"type": CANARY, "text": CANARY}]}])

    out = written.getvalue().decode() + "".join(capfd.readouterr())
    outcomes = {line["outcome"] for line in lines(written) if line["event"] == "exchange"}
    assert CANARY not in out
    assert {"answered", "cut", "guard_failed", "upstream_lost", "rejected"} <= outcomes
    assert any(line["event"] == "guard_failed" and line["alarm"] for line in lines(written))


def test_without_a_bytes_logger_the_line_goes_through_structlog(small_guard: Guard) -> None:
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as captured:
        with upstream(saying("Rest.")) as up, serving(create_app(Settings(upstream=up.url), guard=small_guard)) as url:
            post(url, "hello")

    assert [entry["outcome"] for entry in captured if entry["event"] == "exchange"] == ["forwarded"]


def test_lines_go_to_standard_error(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    logs.configure()
    structlog.get_logger("guardrail").info("ready")

    assert orjson.loads(capfdbinary.readouterr().err)["event"] == "ready"


def test_packs_that_do_not_load_are_an_alarm(written: io.BytesIO, small_guard: Guard, tmp_path: Path) -> None:
    with serving(create_app(Settings(upstream="http://127.0.0.1:9", rules=tmp_path), guard=small_guard)) as url:
        assert httpx.post(url + "/-/reload").status_code == 422

    assert [line["alarm"] for line in lines(written) if line["event"] == "packs_refused"] == [True]
