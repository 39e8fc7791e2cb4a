"""Replies of every dialect with all that may hold words in them; WORDS marks a text that a patient or an app might read."""

from typing import Any

import orjson

from guardrail.proxy.dialects.dialect import Dialect
from guardrail.proxy.sse import write_event

WORDS = "wörds"
TOOL = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": f'{{"q": "{WORDS}"}}'}}


def is_free_form(path: tuple[str | int, ...]) -> bool:
    """Objects whose fields are the model's own (tool arguments) or hold no words (usage): a new field is no news."""
    return any(step in ("input", "arguments", "usage", "action", "queries", "results", "outputs", "metadata", "format") for step in path)


def write(dialect: Dialect, frames: Any) -> bytes:
    if dialect.framing == "lines":
        return b"".join(orjson.dumps(document) + b"\n" for _, document in frames)
    return b"".join(write_event(event.encode(), d if isinstance(d, bytes) else orjson.dumps(d)) for event, d in frames)


def chat(**message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "logprobs": None, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": {"total_tokens": 1}}


def chat_chunks(*deltas: dict[str, Any], finish: str = "stop") -> list[tuple[str, Any]]:
    def chunk(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}

    return [("", chunk(d, None)) for d in ({"role": "assistant", "content": ""}, *deltas)] + [("", chunk({}, finish)), ("", b"[DONE]")]


CITATION = {
    "type": "char_location",
    "cited_text": WORDS,
    "document_title": WORDS,
    "document_index": 0,
    "start_char_index": 0,
    "end_char_index": 1,
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": WORDS, "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
        {"type": "text", "text": f"One {WORDS}.", "citations": [CITATION]},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": WORDS}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "s",
            "content": [{"type": "web_search_result", "url": "https://example.org", "title": WORDS, "encrypted_content": "eA=="}],
        },
        {"type": "text", "text": f"Two {WORDS}."},
        {"type": "tool_use", "id": "t", "name": "find", "input": {"q": {"deep": [WORDS]}}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


def message_frames() -> list[tuple[str, Any]]:
    start: dict[str, Any] = {**MESSAGE, "content": [], "stop_reason": None}
    frames: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": WORDS}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": WORDS}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": f"One {WORDS}."}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": CITATION}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": f"Two {WORDS}."}},
        {"type": "content_block_stop", "index": 2},
        {"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "id": "t", "name": "find", "input": {}}},
        {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": ""}},
        {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": f'{{"q": "{WORDS}"}}'}},
        {"type": "content_block_stop", "index": 3},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    return [(f["type"], f) for f in frames]


TEXT_PART: dict[str, Any] = {"type": "output_text", "text": f"One {WORDS}.", "annotations": []}
ANNOTATION = {"type": "url_citation", "url": "https://example.org", "title": WORDS, "start_index": 0, "end_index": 1}
REASONING = {
    "id": "rs",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": f"Sum {WORDS}"}],
    "content": [{"type": "reasoning_text", "text": f"Think {WORDS}"}],
    "encrypted_content": "eA==",
}
ITEM: dict[str, Any] = {"id": "m1", "type": "message", "status": "completed", "role": "assistant", "content": [TEXT_PART]}
CALL = {"id": "f", "type": "function_call", "status": "completed", "call_id": "c", "name": "find", "arguments": f'{{"q": "{WORDS}"}}'}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "error": None,
    "instructions": "You help.",
    "model": "m",
    "output": [],
    "metadata": {},
    "usage": {"total_tokens": 1},
}


def response(*items: dict[str, Any]) -> dict[str, Any]:
    return {**RESPONSE, "output": list(items)}


def response_frames() -> list[tuple[str, Any]]:
    place = {"item_id": "m1", "output_index": 1, "content_index": 0}
    empty: dict[str, Any] = {**TEXT_PART, "text": ""}
    begun = {**RESPONSE, "status": "in_progress", "usage": None}
    frames: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {"id": "rs", "type": "reasoning", "summary": []}},
        {
            "type": "response.reasoning_summary_part.added",
            "item_id": "rs",
            "output_index": 0,
            "summary_index": 0,
            "part": {"type": "summary_text", "text": ""},
        },
        {"type": "response.reasoning_summary_text.delta", "item_id": "rs", "output_index": 0, "summary_index": 0, "delta": f"Sum {WORDS}"},
        {"type": "response.reasoning_summary_text.done", "item_id": "rs", "output_index": 0, "summary_index": 0, "text": f"Sum {WORDS}"},
        {
            "type": "response.reasoning_summary_part.done",
            "item_id": "rs",
            "output_index": 0,
            "summary_index": 0,
            "part": REASONING["summary"][0],
        },
        {"type": "response.reasoning_text.delta", "item_id": "rs", "output_index": 0, "content_index": 0, "delta": f"Think {WORDS}"},
        {"type": "response.reasoning_text.done", "item_id": "rs", "output_index": 0, "content_index": 0, "text": f"Think {WORDS}"},
        {"type": "response.output_item.done", "output_index": 0, "item": REASONING},
        {"type": "response.output_item.added", "output_index": 1, "item": {**ITEM, "status": "in_progress", "content": []}},
        {"type": "response.content_part.added", **place, "part": empty},
        {"type": "response.output_text.delta", **place, "delta": "One ", "obfuscation": "x"},
        {"type": "response.output_text.delta", **place, "delta": f"{WORDS}."},
        {"type": "response.output_text.annotation.added", **place, "annotation_index": 0, "annotation": ANNOTATION},
        {"type": "response.output_text.done", **place, "text": TEXT_PART["text"], "logprobs": []},
        {"type": "response.content_part.done", **place, "part": TEXT_PART},
        {"type": "response.output_item.done", "output_index": 1, "item": ITEM},
        {"type": "response.output_item.added", "output_index": 2, "item": {**CALL, "status": "in_progress", "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "item_id": "f", "output_index": 2, "delta": '{"q": '},
        {"type": "response.function_call_arguments.delta", "item_id": "f", "output_index": 2, "delta": f'"{WORDS}"}}'},
        {
            "type": "response.function_call_arguments.done",
            "item_id": "f",
            "output_index": 2,
            "name": "find",
            "arguments": CALL["arguments"],
        },
        {"type": "response.output_item.done", "output_index": 2, "item": CALL},
        {"type": "response.completed", "response": response(REASONING, ITEM, CALL)},
    ]
    return [(f["type"], {**f, "sequence_number": i}) for i, f in enumerate(frames)]


OLLAMA_HEAD = {"model": "m", "created_at": "2026-01-01T00:00:00Z"}
OLLAMA_END = {"done": True, "done_reason": "stop", "total_duration": 1, "eval_count": 1}
OLLAMA_CALL = {"function": {"name": "find", "arguments": {"q": [WORDS]}}}

DOCUMENTS: dict[str, list[Any]] = {
    "openai_chat": [
        chat(content=WORDS, refusal=None, annotations=[]),
        chat(content=None, refusal=WORDS),
        chat(content=WORDS, reasoning_content=WORDS),
        chat(content=WORDS, reasoning=WORDS, reasoning_details=[{"type": "reasoning.text", "text": WORDS, "format": "x", "index": 0}]),
        chat(content=WORDS, tool_calls=[TOOL, {"id": "b", "type": "custom", "custom": {"name": "x", "input": WORDS}}]),
        chat(content=None, function_call={"name": "f", "arguments": WORDS}),
        chat(content=[{"type": "thinking", "thinking": [{"type": "text", "text": WORDS}]}, {"type": "text", "text": WORDS}]),
        chat(content=WORDS, annotations=[{"type": "url_citation", "url_citation": {"url": "https://example.org", "title": WORDS}}]),
        chat(content=None, audio={"id": "a", "expires_at": 1, "transcript": WORDS}),
    ],
    "openai_responses": [
        response(REASONING, {**ITEM, "content": [{**TEXT_PART, "annotations": [ANNOTATION]}]}, CALL),
        response({**ITEM, "content": [{"type": "refusal", "refusal": WORDS}]}),
        response(
            {"id": "w", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": WORDS}},
            {"id": "x", "type": "file_search_call", "status": "completed", "queries": [WORDS], "results": [{"text": WORDS}]},
            {
                "id": "y",
                "type": "code_interpreter_call",
                "status": "completed",
                "code": WORDS,
                "container_id": "c",
                "outputs": [{"logs": WORDS}],
            },
            {"id": "z", "type": "custom_tool_call", "call_id": "c", "name": "t", "input": WORDS},
            {"id": "v", "type": "mcp_call", "name": "t", "server_label": "s", "arguments": WORDS, "output": WORDS},
            ITEM,
        ),
    ],
    "openai_completions": [
        {
            "id": "c",
            "object": "text_completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "text": WORDS, "reasoning": WORDS, "logprobs": None, "finish_reason": "stop"}],
            "usage": {"total_tokens": 1},
        }
    ],
    "anthropic_messages": [MESSAGE],
    "ollama_chat": [
        {**OLLAMA_HEAD, "message": {"role": "assistant", "content": WORDS, "thinking": WORDS, "tool_calls": [OLLAMA_CALL]}, **OLLAMA_END},
    ],
    "ollama_generate": [{**OLLAMA_HEAD, "response": WORDS, "thinking": WORDS, **OLLAMA_END, "context": [1, 2]}],
}

STREAMS: dict[str, list[list[tuple[str, Any]]]] = {
    "openai_chat": [
        chat_chunks({"content": f"One {WORDS}"}, {"content": f" two {WORDS}."}),
        chat_chunks({"reasoning_content": WORDS}, {"content": WORDS}),
        chat_chunks({"reasoning": WORDS}, {"content": None, "refusal": WORDS}),
        chat_chunks(
            {"content": "See."},
            {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": WORDS}}]},
            {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "f", "arguments": WORDS}}]},
            finish="tool_calls",
        ),
        chat_chunks({"audio": {"id": "a", "transcript": WORDS}}),
    ],
    "openai_responses": [response_frames()],
    "openai_completions": [
        [
            (
                "",
                {
                    "id": "c",
                    "object": "text_completion",
                    "created": 1,
                    "model": "m",
                    "choices": [{"index": 0, "text": WORDS, "finish_reason": None}],
                },
            ),
            (
                "",
                {
                    "id": "c",
                    "object": "text_completion",
                    "created": 1,
                    "model": "m",
                    "choices": [{"index": 0, "text": WORDS, "finish_reason": "stop"}],
                },
            ),
            ("", b"[DONE]"),
        ]
    ],
    "anthropic_messages": [message_frames()],
    "ollama_chat": [
        [
            ("", {**OLLAMA_HEAD, "message": {"role": "assistant", "content": "", "thinking": WORDS}, "done": False}),
            ("", {**OLLAMA_HEAD, "message": {"role": "assistant", "content": WORDS}, "done": False}),
            ("", {**OLLAMA_HEAD, "message": {"role": "assistant", "content": "", "tool_calls": [OLLAMA_CALL]}, "done": False}),
            ("", {**OLLAMA_HEAD, "message": {"role": "assistant", "content": WORDS}, **OLLAMA_END}),
        ]
    ],
    "ollama_generate": [
        [
            ("", {**OLLAMA_HEAD, "response": "", "thinking": WORDS, "done": False}),
            ("", {**OLLAMA_HEAD, "response": WORDS, "done": False}),
            ("", {**OLLAMA_HEAD, "response": "", **OLLAMA_END, "context": [1]}),
        ]
    ],
}
