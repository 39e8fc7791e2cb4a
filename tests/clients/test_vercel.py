"""The Vercel AI SDK from npm against a listening proxy, with each of its providers that speaks a dialect of ours."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from guardrail.audit.record import Outcome
from guardrail.engine.guard import Guard
from tests.clients.environments import node_packages
from tests.proxy import standins
from tests.proxy.test_failures import Proxy, proxy
from tests.serving import Call, response, saying

HELLO, EMERGENCY, RASH = "hello", "I have chest pain", "I have a rash"
NOTICE = "Please have this checked by a clinician today. "
REDIRECT = "This could be an emergency: call 999 now."
SAID = "Drink some water.Ask a doctor."

SPEAKING = {"compatible": saying, "chat": saying, "responses": standins.responses, "anthropic": standins.messages}
"""Provider -> a stand-in model that speaks its dialect."""

each_provider = pytest.mark.parametrize("provider", SPEAKING)


@dataclass
class Answer:
    """What the app was given: the text, why it ended, what went wrong."""

    text: str
    finish: str | None
    error: dict[str, Any] | None


class Sdk:
    """A running Node process that asks for us."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def ask(self, provider: str, one: Proxy, text: str, stream: bool) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        question = {"provider": provider, "url": one.url, "text": text, "stream": stream}
        self._process.stdin.write(orjson.dumps(question) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the client ended"
        return Answer(**orjson.loads(line))


@pytest.fixture(scope="module")
def sdk() -> Iterator[Sdk]:
    folder = node_packages(Path(__file__).parent / "vercel")
    node = shutil.which("node")
    assert node is not None, "node_packages has looked for it"
    with subprocess.Popen([node, "ask.mjs"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Sdk(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


def without_gap(text: str) -> str:
    """The plain stand-in for chat puts a blank behind each word of a stream."""
    return text.replace(". Ask", ".Ask")


@each_provider
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_forwarded_annotated_redirected(small_guard: Guard, sdk: Sdk, provider: str, stream: bool) -> None:
    with proxy(SPEAKING[provider]("Drink some water."), small_guard) as one:
        forwarded, annotated = (sdk.ask(provider, one, text, stream) for text in (HELLO, RASH))
        assert len(one.up.calls) == 2
        redirected = sdk.ask(provider, one, EMERGENCY, stream)
        assert len(one.up.calls) == 2

    said = SAID if provider in ("responses", "anthropic") or not stream else SAID.replace(".Ask", ". Ask")
    assert forwarded == Answer(said, "stop", None)
    assert annotated == Answer(NOTICE + said, "stop", None)
    assert redirected == Answer(REDIRECT, "stop", None)


@each_provider
def test_reply_cut(small_guard: Guard, sdk: Sdk, provider: str) -> None:
    with proxy(SPEAKING[provider]("Fine so FORBIDDEN far"), small_guard) as one:
        for stream in (False, True):
            assert sdk.ask(provider, one, HELLO, stream) == Answer("Fine so [replaced]", "stop", None)
            assert one.records.last().outcome is Outcome.CUT


async def refusing(call: Call, writer: asyncio.StreamWriter) -> None:
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down", "param": None, "code": None}}
    writer.write(response(orjson.dumps(body), "429 Too Many Requests"))


@each_provider
def test_upstream_error(small_guard: Guard, sdk: Sdk, provider: str) -> None:
    with proxy(refusing, small_guard) as one:
        for stream in (False, True):
            answer = sdk.ask(provider, one, HELLO, stream)

            assert (answer.text, answer.error) == ("", {"message": "slow down", "status": 429})
            assert one.records.last().outcome is Outcome.UPSTREAM_REFUSED


@each_provider
def test_upstream_gone(small_guard: Guard, sdk: Sdk, provider: str) -> None:
    with proxy(saying("x"), small_guard, upstream="http://127.0.0.1:9") as one:
        for stream in (False, True):
            answer = sdk.ask(provider, one, RASH, stream)

            assert answer.error is not None
            assert answer.error["status"] == 502
            assert answer.error["message"].startswith(NOTICE.strip())
            assert sdk.ask(provider, one, EMERGENCY, stream) == Answer(REDIRECT, "stop", None)


@each_provider
def test_upstream_lost_in_mid_stream(small_guard: Guard, sdk: Sdk, provider: str) -> None:
    with proxy(standins.dying(SPEAKING[provider]("Drink some water."), after=b"Drink"), small_guard) as one:
        answer = sdk.ask(provider, one, HELLO, stream=True)

        assert answer.text.replace("Drink(", "Drink (") == "Drink (This reply was interrupted.)"
        assert answer.error is not None
        assert "closed the connection in mid-answer" in answer.error["message"]
        assert one.records.last().outcome is Outcome.UPSTREAM_LOST
