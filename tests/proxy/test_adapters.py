"""Libraries on top of the vendors' clients: LangChain and LiteLLM's SDK. Heavy, so an extra: `pip install .[clients]`."""

from collections.abc import Iterator
from typing import Any

import pytest

from guardrail.app import create_app
from guardrail.config import Settings
from guardrail.engine.guard import Guard
from tests.proxy.test_openai_client import word_guard
from tests.serving import saying, serving, upstream

REDIRECT = "This could be an emergency: call 999 now."

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours


@pytest.fixture
def base_url(small_guard: Guard) -> Iterator[str]:
    with upstream(saying("Drink some water.")) as up:
        with serving(create_app(Settings(upstream=up.url, country="GB"), guard=small_guard, reply_guard=word_guard)) as url:
            yield url + "/v1"


def test_langchain(base_url: str) -> None:
    langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed (extra: clients)")
    model = langchain.ChatOpenAI(model="m", base_url=base_url, api_key="k", max_retries=0, timeout=10)

    assert model.invoke("hello").content == "Drink some water.Ask a doctor."
    assert "".join(chunk.content for chunk in model.stream("hello")) == "Drink some water. Ask a doctor."
    assert model.invoke("I have chest pain").content == REDIRECT
    assert "".join(chunk.content for chunk in model.stream("I have chest pain")) == REDIRECT


def test_litellm(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = pytest.importorskip("litellm", reason="litellm is not installed (extra: clients)")
    litellm.telemetry = False

    def ask(text: str, stream: bool = False) -> Any:
        message = [{"role": "user", "content": text}]
        return litellm.completion(
            model="openai/m", api_base=base_url, api_key="k", messages=message, stream=stream, num_retries=0, timeout=10
        )

    assert ask("hello").choices[0].message.content == "Drink some water.Ask a doctor."
    assert "".join(chunk.choices[0].delta.content or "" for chunk in ask("hello", stream=True)) == "Drink some water. Ask a doctor."
    assert ask("I have chest pain").choices[0].message.content == REDIRECT
    assert "".join(chunk.choices[0].delta.content or "" for chunk in ask("I have chest pain", stream=True)) == REDIRECT
