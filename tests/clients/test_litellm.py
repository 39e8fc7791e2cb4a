"""LiteLLM's SDK, and the hook for its gateway (deploy/litellm), against a listening proxy.

It asks for an older `openai` than the newest, so it lives in an environment of its own. The gateway itself (600 MB) is asked where
`litellm[proxy]` is installed and `litellm` is on the PATH.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from guardrail.audit.record import Outcome
from guardrail.engine.guard import Guard
from tests.clients.conversing import Answer, Client, running
from tests.clients.environments import python_packages
from tests.proxy import standins
from tests.proxy.test_failures import proxy, wait_until
from tests.serving import saying

HELLO, EMERGENCY, RASH = "hello", "I have chest pain", "I have a rash"
NOTICE = "Please have this checked by a clinician today. "
REDIRECT = "This could be an emergency: call 999 now."

SPEAKING = {"openai/m": saying, "anthropic/m": standins.messages, "ollama_chat/m": standins.ollama}
"""LiteLLM's name of a model -> a stand-in that speaks its dialect."""

each_model = pytest.mark.parametrize("model", SPEAKING)

KEY = "sk-" + "0123456789abcdef" * 4
HOOK = Path(__file__).parents[2] / "deploy" / "litellm"


@pytest.fixture(scope="module")
def sdk() -> Iterator[Client]:
    with running([python_packages("litellm", "litellm>=1.80,<2"), "ask.py"], Path(__file__).parent / "litellm_sdk") as client:
        yield client


def ask(sdk: Client, model: str, url: str, text: str, stream: bool) -> Answer:
    return Answer(**sdk.ask(model=model, api_base=url + "/v1" if model.startswith("openai/") else url, text=text, stream=stream))


@each_model
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_forwarded_annotated_redirected(small_guard: Guard, sdk: Client, model: str, stream: bool) -> None:
    with proxy(SPEAKING[model]("Drink some water."), small_guard) as one:
        forwarded, annotated = (ask(sdk, model, one.url, text, stream) for text in (HELLO, RASH))
        redirected = ask(sdk, model, one.url, EMERGENCY, stream)
        asked = [call.line for call in one.up.calls if "/api/show" not in call.line]  # it looks Ollama's models up

    said = "Drink some water. Ask a doctor." if stream and model == "openai/m" else "Drink some water.Ask a doctor."
    assert forwarded == Answer(said, "stop", None)
    assert annotated == Answer(NOTICE + said, "stop", None)
    assert redirected == Answer(REDIRECT, "stop", None)
    assert len(asked) == 2


@each_model
def test_reply_cut(small_guard: Guard, sdk: Client, model: str) -> None:
    with proxy(SPEAKING[model]("Fine so FORBIDDEN far"), small_guard) as one:
        for stream in (False, True):
            assert ask(sdk, model, one.url, HELLO, stream) == Answer("Fine so [replaced]", "stop", None)
            assert one.records.last().outcome is Outcome.CUT


@each_model
def test_upstream_gone(small_guard: Guard, sdk: Client, model: str) -> None:
    with proxy(saying("x"), small_guard, upstream="http://127.0.0.1:9") as one:
        for stream in (False, True):
            answer = ask(sdk, model, one.url, RASH, stream)

            assert answer.error is not None
            assert NOTICE.strip() in answer.error["message"]
            assert ask(sdk, model, one.url, EMERGENCY, stream) == Answer(REDIRECT, "stop", None)


@each_model
def test_upstream_lost_in_mid_stream(small_guard: Guard, sdk: Client, model: str) -> None:
    with proxy(standins.dying(SPEAKING[model]("Drink some water."), after=b"Drink"), small_guard) as one:
        answer = ask(sdk, model, one.url, HELLO, stream=True)

        assert answer.text.startswith("Drink")
        assert answer.text.endswith("(This reply was interrupted.)")
        assert answer.error is not None
        assert one.records.last().outcome is Outcome.UPSTREAM_LOST


# The hook

PASSTHROUGH = "ModifyResponseException"
"""LiteLLM turns it into a normal reply."""


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_the_hook_answers_an_emergency_and_lets_the_rest_go_on(small_guard: Guard, sdk: Client) -> None:
    with proxy(saying("x"), small_guard, country=None) as one:
        assert sdk.ask(hook=one.url, messages=said(EMERGENCY), texts=[]) == {"instead": REDIRECT, "by": PASSTHROUGH}
        assert sdk.ask(hook=one.url, messages=said(HELLO), texts=[]) == {"texts": [HELLO]}
        assert not one.up.calls


def test_the_hook_reviews_replies_within_their_conversation(small_guard: Guard, sdk: Client) -> None:
    with proxy(saying("x"), small_guard) as one:
        annotated = sdk.ask(hook=one.url, messages=said(RASH), texts=["Drink some water."])

    assert annotated["texts"][0].startswith(NOTICE.strip())
    assert "Drink some water." in annotated["texts"][0]


def test_the_hook_lets_nothing_through_when_the_guard_is_gone(sdk: Client) -> None:
    for texts in ([], ["Drink some water."]):
        answer = sdk.ask(hook="http://127.0.0.1:9", messages=said(HELLO), texts=texts)

        assert "could not be checked" in answer["instead"]
        assert answer["by"] == PASSTHROUGH


@pytest.fixture(scope="module")
def gateway_command() -> str:
    command = shutil.which("litellm")
    if command is None:
        pytest.skip("litellm[proxy] is not installed: no gateway to ask")
    return command


def test_the_hook_in_a_running_gateway(small_guard: Guard, gateway_command: str, tmp_path: Path) -> None:
    shutil.copy(HOOK / "guardrail_hook.py", tmp_path)
    with proxy(saying("Drink some water."), small_guard) as one:
        config = (HOOK / "config.example.yaml").read_text()
        config = config.replace("http://127.0.0.1:8000", one.up.url).replace("http://127.0.0.1:8080", one.url)
        (tmp_path / "config.yaml").write_text(config)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "MODEL_API_KEY": "k", "LITELLM_MASTER_KEY": KEY}
        command = [gateway_command, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
        with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as gateway:
            try:
                wait_until(lambda: gateway.poll() is not None or is_up(port), seconds=120)
                assert gateway.poll() is None
                calls = len(one.up.calls)
                redirected = chat(port, EMERGENCY)
                assert len(one.up.calls) == calls
                forwarded = chat(port, RASH)
            finally:
                gateway.terminate()

    assert redirected == REDIRECT
    assert forwarded.startswith(NOTICE.strip())
    assert "Drink some water." in forwarded


def is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/liveliness", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def chat(port: int, text: str) -> str:
    body: dict[str, Any] = {"model": "health-chat", "messages": said(text)}
    reply = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=60)
    assert reply.status_code == 200, reply.text
    content: str = reply.json()["choices"][0]["message"]["content"]
    return content
