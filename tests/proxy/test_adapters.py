"""LangChain on top of the vendors' clients; others are in tests/clients."""

from collections.abc import Iterator

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
    langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    model = langchain.ChatOpenAI(model="m", base_url=base_url, api_key="k", max_retries=0, timeout=10)

    assert model.invoke("hello").content == "Drink some water.Ask a doctor."
    assert "".join(chunk.content for chunk in model.stream("hello")) == "Drink some water. Ask a doctor."
    assert model.invoke("I have chest pain").content == REDIRECT
    assert "".join(chunk.content for chunk in model.stream("I have chest pain")) == REDIRECT
