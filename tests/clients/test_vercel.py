"""The Vercel AI SDK from npm against a listening proxy, with each of its providers that speaks a dialect of ours."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from guardrail.audit.record import Outcome
from guardrail.engine.guard import Guard
from tests.clients.conversing import Answer, Client, running
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


@pytest.fixture(scope="module")
def sdk() -> Iterator[Client]:
    folder = node_packages(Path(__file__).parent / "vercel")
    with running(["node", "ask.mjs"], folder) as client:
        yield client


def ask(sdk: Client, provider: str, one: Proxy, text: str, stream: bool) -> Answer:
    return Answer(**sdk.ask(provider=provider, url=one.url, text=text, stream=stream))


@each_provider
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_forwarded_annotated_redirected(small_guard: Guard, sdk: Client, provider: str, stream: bool) -> None:
    with proxy(SPEAKING[provider]("Drink some water."), small_guard) as one:
        forwarded, annotated = (ask(sdk, provider, one, text, stream) for text in (HELLO, RASH))
        assert len(one.up.calls) == 2
        redirected = ask(sdk, provider, one, EMERGENCY, stream)
        assert len(one.up.calls) == 2

    said = SAID if provider in ("responses", "anthropic") or not stream else SAID.replace(".Ask", ". Ask")
    assert forwarded == Answer(said, "stop", None)
    assert annotated == Answer(NOTICE + said, "stop", None)
    assert redirected == Answer(REDIRECT, "stop", None)


@each_provider
def test_reply_cut(small_guard: Guard, sdk: Client, provider: str) -> None:
    with proxy(SPEAKING[provider]("Fine so FORBIDDEN far"), small_guard) as one:
        for stream in (False, True):
            assert ask(sdk, provider, one, HELLO, stream) == Answer("Fine so [replaced]", "stop", None)
            assert one.records.last().outcome is Outcome.CUT


async def refusing(call: Call, writer: asyncio.StreamWriter) -> None:
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down", "param": None, "code": None}}
    writer.write(response(orjson.dumps(body), "429 Too Many Requests"))


@each_provider
def test_upstream_error(small_guard: Guard, sdk: Client, provider: str) -> None:
    with proxy(refusing, small_guard) as one:
        for stream in (False, True):
            answer = ask(sdk, provider, one, HELLO, stream)

            assert (answer.text, answer.error) == ("", {"message": "slow down", "status": 429})
            assert one.records.last().outcome is Outcome.UPSTREAM_REFUSED


@each_provider
def test_upstream_gone(small_guard: Guard, sdk: Client, provider: str) -> None:
    with proxy(saying("x"), small_guard, upstream="http://127.0.0.1:9") as one:
        for stream in (False, True):
            answer = ask(sdk, provider, one, RASH, stream)

            assert answer.error is not None
            assert answer.error["status"] == 502
            assert answer.error["message"].startswith(NOTICE.strip())
            assert ask(sdk, provider, one, EMERGENCY, stream) == Answer(REDIRECT, "stop", None)


@each_provider
def test_upstream_lost_in_mid_stream(small_guard: Guard, sdk: Client, provider: str) -> None:
    with proxy(standins.dying(SPEAKING[provider]("Drink some water."), after=b"Drink"), small_guard) as one:
        answer = ask(sdk, provider, one, HELLO, stream=True)

        assert answer.text.replace(" \n\n", " ").replace("\n\n", " ") == "Drink (This reply was interrupted.)"
        assert answer.error is not None
        assert "closed the connection in mid-answer" in answer.error["message"]
        assert one.records.last().outcome is Outcome.UPSTREAM_LOST
