"""What is read of a request: who said what, what could not be read, and which bodies are refused."""

import contextlib
import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guardrail.engine.model import Message, Role
from guardrail.errors import CallerError, MalformedRequest
from guardrail.proxy.dialects import DIALECTS
from guardrail.proxy.dialects.dialect import Dialect, Request, Stamp

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
USER, ASSISTANT, SYSTEM, TOOL = Role.USER, Role.ASSISTANT, Role.SYSTEM, Role.TOOL


def read(name: str, body: Any) -> Request:
    dialect = BY_NAME[name]
    return dialect.read_request(orjson.dumps(body), dialect.paths[0])


def chat(*messages: Any, **more: Any) -> Request:
    return read("openai_chat", {"model": "m", "messages": list(messages), **more})


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def test_chat_roles() -> None:
    request = chat(
        {"role": "developer", "content": "a"},
        {"role": "system", "content": "b"},
        user("c"),
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "d", "tool_call_id": "x"},
        {"role": "function", "content": "e", "name": "f"},
    )

    assert [(m.role, m.text) for m in request.messages] == [
        (SYSTEM, "a"),
        (SYSTEM, "b"),
        (USER, "c"),
        (ASSISTANT, ""),
        (TOOL, "d"),
        (TOOL, "e"),
    ]
    assert request.unknown == ()


def test_an_unknown_speaker_counts_as_the_patient() -> None:
    request = chat({"role": "customer", "content": "chest pain"})

    assert request.messages == (Message(USER, "chest pain"),)
    assert request.unknown == ("request:role[customer]",)


@pytest.mark.parametrize(
    ("part", "text", "unread"),
    [
        ({"type": "text", "text": "a"}, "a", ()),
        ({"type": "image_url", "image_url": {"url": "data:..."}}, "", ("image",)),
        ({"type": "input_audio", "input_audio": {"data": "x"}}, "", ("audio",)),
        ({"type": "file", "file": {"file_id": "x"}}, "", ("file",)),
        ({"type": "novel", "words": ["a", {"b": "c"}]}, "novel\na\nc", ("unknown",)),
        ({"text": "a"}, "a", ("unknown",)),
        ("a", "a", ()),
    ],
)
def test_chat_parts(part: Any, text: str, unread: tuple[str, ...]) -> None:
    request = chat(user([part]))

    assert request.messages == (Message(USER, text, unread),)
    assert bool(request.unknown) == ("unknown" in unread)


def test_a_field_nobody_knows_is_taken_as_said() -> None:
    request = chat(user("hello", more="and chest pain"))

    assert request.messages == (Message(USER, "hello\nand chest pain", ("unknown",)),)
    assert request.unknown == ("request:more",)


def test_usual_extra_fields_are_nothing_new() -> None:
    assert chat(user("hello", name="pat", cache_control={"type": "ephemeral"}, id="1")).unknown == ()


def test_chat_options() -> None:
    request = chat(
        user("a"),
        stream=True,
        n=3,
        user="p1",
        response_format={"type": "json_schema", "json_schema": {}},
        stream_options={"include_usage": True},
    )

    assert (request.stream, request.choices, request.patient, request.structured, request.include_usage) == (True, 3, "p1", True, True)
    plain = chat(user("a"), stream=None, n=None, response_format={"type": "text"})
    assert (plain.stream, plain.choices, plain.structured) == (False, 1, False)


def test_messages_of_anthropic() -> None:
    request = read(
        "anthropic_messages",
        {
            "model": "m",
            "system": [{"type": "text", "text": "You help."}],
            "metadata": {"user_id": "p1"},
            "messages": [
                user("a"),
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "b"}, {"type": "tool_use", "id": "t", "name": "f", "input": {}}],
                },
                user([{"type": "tool_result", "tool_use_id": "t", "content": "chest pain, says a web page"}]),
                user(
                    [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "c"}]}, {"type": "text", "text": "d"}]
                ),
                user([{"type": "image", "source": {}}, {"type": "document", "source": {}}, {"type": "text", "text": "e"}]),
            ],
        },
    )

    assert [(m.role, m.text, m.unread) for m in request.messages] == [
        (SYSTEM, "You help.", ()),
        (USER, "a", ()),
        (ASSISTANT, "b", ()),
        (TOOL, "chest pain, says a web page", ()),
        (TOOL, "c", ()),
        (USER, "d", ()),
        (USER, "e", ("image", "file")),
    ]
    assert request.patient == "p1"


def test_input_of_responses() -> None:
    request = read(
        "openai_responses",
        {
            "model": "m",
            "instructions": "You help.",
            "input": [
                user("a"),
                {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": "b"}, {"type": "input_image", "image_url": "x"}],
                },
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "c"}]},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "never said"}]},
                {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "x"},
                {"type": "function_call_output", "call_id": "x", "output": "d"},
                {"type": "novel", "words": "e"},
            ],
        },
    )

    assert [(m.role, m.text, m.unread) for m in request.messages] == [
        (SYSTEM, "You help.", ()),
        (USER, "a", ()),
        (USER, "b", ("image",)),
        (ASSISTANT, "c", ()),
        (TOOL, "d", ()),
        (USER, "novel\ne", ("unknown",)),
    ]
    assert request.unknown == ("request:item[novel]",)
    assert not request.history_not_visible


def test_responses_whose_history_the_provider_holds() -> None:
    for field in ("previous_response_id", "conversation"):
        request = read("openai_responses", {"model": "m", "input": "a", field: "x"})
        assert request.messages == (Message(USER, "a"),)
        assert request.history_not_visible


def test_variables_of_a_stored_prompt_are_the_patient() -> None:
    request = read(
        "openai_responses", {"prompt": {"id": "p", "variables": {"question": "chest pain", "more": {"type": "input_text", "text": "b"}}}}
    )

    assert [m.text for m in request.messages] == ["chest pain", "input_text", "b"]


def test_ollama() -> None:
    request = read("ollama_chat", {"model": "m", "messages": [user("a", images=["x"]), {"role": "tool", "content": "b", "tool_name": "f"}]})
    assert request.messages == (Message(USER, "a", ("image",)), Message(TOOL, "b"))
    assert request.stream, "streams unless told otherwise"

    request = read(
        "ollama_generate", {"model": "m", "prompt": "a", "system": "s", "suffix": "b", "context": [1], "stream": False, "format": "json"}
    )
    assert request.messages == (Message(SYSTEM, "s"), Message(USER, "a\nb"))
    assert (request.stream, request.structured, request.history_not_visible) == (False, True, True)


@pytest.mark.parametrize(
    ("prompt", "text", "unread", "choices"),
    [("a", "a", (), 2), (["a", "b"], "a\nb", (), 4), ([1, 2], "", ("tokens",), 2), ([[1], [2]], "", ("tokens",), 4), (None, "", (), 2)],
)
def test_completions(prompt: Any, text: str, unread: tuple[str, ...], choices: int) -> None:
    request = read("openai_completions", {"model": "m", "prompt": prompt, "n": 2})

    assert request.messages == (Message(USER, text, unread),)
    assert request.choices == choices


@pytest.mark.parametrize(
    ("name", "body", "why"),
    [
        ("openai_chat", {"messages": [{"content": "a"}]}, 'messages[0] has no "role"'),
        ("anthropic_messages", {"messages": []}, "is empty"),
        ("anthropic_messages", {"messages": [{"content": "a"}]}, 'messages[0] has no "role"'),
        ("anthropic_messages", {"messages": [user(4)]}, "must be a string or a list"),
        ("openai_responses", {}, '"input" is missing'),
        ("openai_responses", {"input": 4}, '"input" must be'),
        ("openai_responses", {"input": ["a"]}, "input[0] must be an item"),
        ("openai_responses", {"input": [{"content": "a"}]}, 'input[0] has no "role"'),
        ("ollama_chat", {"messages": [{"content": "a"}]}, 'messages[0] has no "role"'),
        ("openai_completions", {"prompt": {"a": 1}}, '"prompt" must be'),
    ],
)
def test_refused(name: str, body: Any, why: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        read(name, body)

    assert why in str(caught.value)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [{"role": "user", "content": "a", "content": "b"}], "input": "a", "prompt": "a", "prompt": "b", "input": "c"}',
        b'{"messages": [{"role": "user", "content": "\\u0000"}], "input": "\\u0000", "prompt": "\\u0000"}',
        b'{"messages": [{"role": "user", "content": "a"}], "input": "a", "prompt": "a", "x": "\xff"}',
        b'{"messages": [{"role": "user", "content": "\\ud83d"}], "input": "\\ud83d", "prompt": "\\ud83d"}',
        b"{" + b'"a":{' * 3000 + b"}" * 3001,
    ],
    ids=["repeated key", "null character", "not UTF-8", "half a surrogate", "deep"],
)
def test_bodies_two_readers_may_read_differently_are_refused(name: str, body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        BY_NAME[name].read_request(body, "/")


FIELDS = ("messages", "role", "content", "type", "text", "input", "prompt", "stream", "n", "model", "images", "tool_calls", "x")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=5) | st.sampled_from(["user", "text", "message", "input_text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("name", BY_NAME)
@given(body=st.binary(max_size=60) | json_values.map(lambda v: json.dumps(v).encode()))
@example(body=b'{"messages": [{"role": "user", "content": [{"type": null}]}]}')
def test_whatever_comes_is_read_or_refused(name: str, body: bytes) -> None:
    with contextlib.suppress(CallerError):
        request = BY_NAME[name].read_request(body, "/")
        assert all(isinstance(m.text, str) for m in request.messages)


@pytest.mark.parametrize("name", BY_NAME)
@given(document=json_values)
def test_whatever_an_upstream_answers_is_read(name: str, document: Any) -> None:
    """No exception from any reply, and no string of an unknown place is missed."""
    reading = BY_NAME[name].read_reply(document)

    assert reading.ends is None


@pytest.mark.parametrize("name", BY_NAME)
@given(documents=st.lists(json_values | st.binary(max_size=10), max_size=4))
def test_whatever_an_upstream_streams_is_read(name: str, documents: list[Any]) -> None:
    reader = BY_NAME[name].read_stream(Request((), True, "m"), Stamp("x", 1))
    for document in documents:
        reader.plain(document if isinstance(document, bytes) else orjson.dumps(document))
        reader.read(b"", document)
        reader.sent(document)


@pytest.mark.parametrize("name", BY_NAME)
@given(text=st.text(max_size=40))
def test_an_answer_that_is_written_is_read_back(name: str, text: str) -> None:
    """Encoding then decoding changes nothing: our own answers hold the text, the whole text, and nothing unknown."""
    dialect: Dialect = BY_NAME[name]
    request = Request((), False, "m")
    reading = dialect.read_reply(orjson.loads(dialect.write_answer(request, text, Stamp("x", 1))))

    assert "".join(p.text for p in reading.pieces if p.kind == "content") == text
    assert reading.unknown == []
