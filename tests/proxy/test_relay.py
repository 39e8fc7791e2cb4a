"""Whatever the chunks, the patient sees the reviewed text, all of it, nothing else, and a proper ending."""

from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.engine.reply import Known
from guardrail.proxy.dialects.chat_completions import ChatCompletions
from guardrail.proxy.dialects.dialect import Request, Stamp
from guardrail.proxy.relay import DocumentRelay, MakeGuard, StreamRelay, review_text
from guardrail.proxy.sse import SseSplitter
from tests.proxy.reply_guards import EDITED, FORBIDDEN, WordGuard, expected

DIALECT = ChatCompletions()
STAMP = Stamp("test", 1)
DONE = b"data: [DONE]\n\n"


def request(**changes: Any) -> Request:
    return Request(messages=(), stream=True, model="m", **changes)


def guards(preface: str = "", ending: str = "") -> MakeGuard:
    """Prefaces and endings on what the patient reads; tool arguments and the like get none, as with the real guard."""

    def make(channel: str, structured: bool) -> WordGuard:
        plain = channel == "content" and not structured
        return WordGuard(channel, preface if plain else "", ending if plain else "")

    return make


def relay(make: MakeGuard | None = None, **changes: Any) -> StreamRelay:
    return StreamRelay(DIALECT, request(**changes), STAMP, make or guards(), 1_000_000)


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return (
        b"data: "
        + orjson.dumps({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more})
        + b"\n\n"
    )


def text_chunks(*texts: str, index: int = 0) -> bytes:
    return b"".join(chunk({"content": text}, index=index) for text in texts)


def documents(out: bytes) -> list[Any]:
    splitter = SseSplitter(10_000_000)
    return [orjson.loads(f.data) for f in splitter.feed(out) + splitter.finish() if f.data and f.data != b"[DONE]"]


def shown(out: bytes, index: int = 0, field: str = "content") -> str:
    return "".join(
        choice["delta"].get(field) or ""
        for document in documents(out)
        for choice in document.get("choices", ())
        if choice["index"] == index
    )


def finishes(out: bytes, index: int = 0) -> list[str]:
    return [c["finish_reason"] for d in documents(out) for c in d.get("choices", ()) if c["index"] == index and c["finish_reason"]]


def test_unchanged_frames_go_out_as_they_came() -> None:
    stream = chunk({"role": "assistant", "content": ""}) + text_chunks("Drink ", "water.") + chunk(finish="stop") + DONE
    one = relay()

    assert one.feed(stream) == stream
    assert one.done
    assert not one.cut


def test_text_goes_out_as_soon_as_it_is_released() -> None:
    one = relay()

    assert shown(one.feed(text_chunks("Drink "))) == "Drink "
    assert one.feed(text_chunks("FORBID")) == b""
    assert shown(one.feed(text_chunks("S nothing."))) == "FORBIDS nothing."


def test_an_edit_over_several_frames() -> None:
    one = relay()
    out = one.feed(text_chunks("a co", "lo", "ur b") + chunk(finish="stop") + DONE)

    assert shown(out) == "a color b"


def test_a_cut_shows_what_was_reviewed_then_the_replacement_and_a_normal_ending() -> None:
    one = relay()
    out = one.feed(text_chunks("Fine. ", "Now FORB")) + one.feed(text_chunks("IDDEN dose"))

    assert shown(out) == "Fine. Now [replaced]"
    assert finishes(out) == ["stop"]
    assert out.endswith(DONE)
    assert (one.done, one.cut) == (True, True)
    assert one.feed(text_chunks("more")) == b""


def test_the_ending_goes_before_the_terminal_frame_once() -> None:
    one = relay(guards(ending=" Ask a doctor."))
    out = one.feed(text_chunks("Rest.") + chunk(finish="stop") + chunk(usage={"total_tokens": 3}) + DONE)
    contents = [c["delta"].get("content") for d in documents(out) for c in d["choices"]]

    assert contents == ["Rest.", " Ask a doctor.", None, None]
    assert out.endswith(DONE)


def test_the_ending_joins_text_of_the_terminal_frame() -> None:
    one = relay(guards(ending=" Ask a doctor."))
    out = one.feed(chunk({"content": "Rest."}, finish="stop") + DONE)

    assert [c["delta"]["content"] for d in documents(out) for c in d["choices"]] == ["Rest. Ask a doctor."]


def test_without_a_finish_reason_the_ending_goes_before_done() -> None:
    one = relay(guards(ending=" Ask a doctor."))
    out = one.feed(text_chunks("Rest.") + DONE)

    assert shown(out) == "Rest. Ask a doctor."
    assert out.endswith(DONE)


def test_an_empty_reply_still_gets_its_ending() -> None:
    one = relay(guards(preface="See a doctor. ", ending="Ask."))
    out = one.feed(chunk({"role": "assistant", "content": ""}) + chunk(finish="stop") + DONE)

    assert shown(out) == "See a doctor. Ask."


def test_the_preface_comes_before_the_first_words_once() -> None:
    one = relay(guards(preface="See a doctor. "))
    out = one.feed(chunk({"role": "assistant", "content": ""}) + text_chunks("Rest", " well.") + chunk(finish="stop") + DONE)

    assert shown(out) == "See a doctor. Rest well."


def tool_call(arguments: str, index: int = 0, **more: Any) -> bytes:
    return chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments}, **more}]})


def test_a_tool_call_goes_out_whole_and_unchanged() -> None:
    stream = tool_call("", id="a", type="function") + tool_call('{"q":') + tool_call('"x"}')
    one = relay(guards(ending="never"))

    assert one.feed(stream) == b""
    end = chunk(finish="tool_calls") + DONE
    assert one.feed(end) == stream + end


def test_a_cut_tool_call_is_never_seen() -> None:
    one = relay()
    out = one.feed(
        text_chunks("Let me see.")
        + tool_call("", id="a", type="function")
        + tool_call('{"q": "FORBIDDEN"}')
        + chunk(finish="tool_calls")
        + DONE
    )

    assert shown(out) == "Let me see.[replaced]"
    assert b"tool_calls" not in out
    assert finishes(out) == ["stop"]


def test_parallel_tool_calls_are_separate_channels() -> None:
    stream = tool_call("FORB", 0, id="a") + tool_call("IDDEN", 1, id="b") + chunk(finish="tool_calls") + DONE

    assert relay().feed(stream) == stream


def test_cut_reasoning_is_left_out_and_the_answer_goes_on() -> None:
    one = relay()
    out = one.feed(chunk({"reasoning_content": "I examined FORBIDDEN you"}) + text_chunks("Rest.") + chunk(finish="stop") + DONE)

    assert shown(out, field="reasoning_content") == "I examined "
    assert shown(out) == "Rest."
    assert one.reports()[0][1].action == "cut"


def test_reasoning_that_is_held_does_not_hold_the_answer() -> None:
    one = relay()
    one.feed(chunk({"reasoning": "the FORBID"}))
    out = one.feed(text_chunks("Rest."))

    assert shown(out, field="reasoning") == "the FORBID"
    assert shown(out) == "Rest."


def test_one_cut_choice_leaves_the_others() -> None:
    one = relay(guards(ending="!"), choices=2)
    out = one.feed(
        text_chunks("good", index=0) + text_chunks("bad FORBIDDEN", index=1) + text_chunks(" more", index=0) + text_chunks("x", index=1)
    )
    out += one.feed(chunk(finish="stop", index=1) + chunk(finish="stop", index=0) + DONE)

    assert shown(out, 0) == "good more!"
    assert shown(out, 1) == "bad [replaced]"
    assert (finishes(out, 0), finishes(out, 1)) == (["stop"], ["stop"])
    assert out.count(DONE) == 1
    assert one.done


def test_all_choices_cut_ends_the_stream() -> None:
    one = relay(choices=2)
    out = one.feed(text_chunks(FORBIDDEN, index=0) + text_chunks(FORBIDDEN, index=1))

    assert (shown(out, 0), shown(out, 1)) == ("[replaced]", "[replaced]")
    assert out.endswith(DONE)
    assert one.done


def test_an_unknown_field_is_reviewed_and_never_called_clean() -> None:
    one = relay()
    out = one.feed(chunk({"content": "ok", "novel": {"deep": ["take "]}}) + chunk({"novel": {"deep": ["FORBIDDEN"]}}))

    assert list(one.not_evaluated) == ["reply:choices.delta.novel"]
    assert shown(out) == "ok[replaced]"
    assert b"FORBIDDEN" not in out
    assert out.endswith(DONE)


def test_a_frame_that_is_not_json_is_left_out_and_recorded() -> None:
    one = relay()

    assert one.feed(b"data: hello\n\n") == b""
    assert list(one.not_evaluated) == ["reply:frame"]


def test_a_frame_that_is_not_json_may_pass_by_policy_and_is_reviewed_as_text() -> None:
    def passing() -> StreamRelay:
        return StreamRelay(DIALECT, request(), STAMP, guards(), 1_000_000, remove_unreadable=False)

    fine = passing()

    assert fine.feed(b"data: hello\n\n") == b"data: hello\n\n"
    assert list(fine.not_evaluated) == ["reply:frame"]
    assert b"FORBIDDEN" not in passing().feed(b"data: FORBIDDEN\n\n")


def test_names_of_what_was_not_evaluated_are_bounded() -> None:
    one = relay()
    one.feed(b"".join(chunk({f"novel{i}{'x' * 200}": "words"}) for i in range(100)))

    assert len(one.not_evaluated) == 50
    assert max(map(len, one.not_evaluated)) < 120


def test_what_cannot_be_read_is_taken_out_and_recorded() -> None:
    one = relay()
    out = one.feed(chunk({"audio": {"id": "a", "data": "UklGRg==", "transcript": "Rest."}}))

    assert list(one.not_evaluated) == ["reply:choices.delta.audio.data"]
    assert documents(out)[0]["choices"][0]["delta"]["audio"] == {"id": "a", "data": None, "transcript": "Rest."}


def test_what_cannot_be_read_may_pass_by_policy_and_is_recorded() -> None:
    one = StreamRelay(DIALECT, request(), STAMP, guards(), 1_000_000, remove_unreadable=False)
    stream = chunk({"audio": {"id": "a", "data": "UklGRg=="}})

    assert one.feed(stream) == stream
    assert list(one.not_evaluated) == ["reply:choices.delta.audio.data"]


def test_a_stream_that_stops_before_its_end_is_not_done() -> None:
    one = relay(guards(ending="never"))
    one.feed(text_chunks("Take FORB"))

    assert one.finish() == b""
    assert not one.done
    out = one.lose("(Interrupted.)", "lost")
    assert shown(out) == "(Interrupted.)"
    assert documents(out)[-1]["error"]["message"] == "lost"
    assert DONE not in out


def test_when_the_guard_fails_the_safe_answer_ends_the_stream() -> None:
    one = relay()
    sent = one.feed(text_chunks("Rest. FORB"))
    out = sent + one.stop("I cannot check this.")

    assert shown(out) == "I cannot check this."
    assert finishes(out) == ["stop"]
    assert out.endswith(DONE)


def test_nothing_after_the_end_is_passed_on() -> None:
    one = relay()
    out = one.feed(chunk(finish="stop") + DONE + text_chunks("FORBIDDEN by nobody"))

    assert out.endswith(DONE)


def test_keep_alive_comments_pass_without_their_words() -> None:
    assert relay().feed(b": OPENROUTER PROCESSING\n\n") == b":\n\n"


words = st.sampled_from(["FORB", "IDDEN", "FORBIDDEN", "col", "our", "colour", " ", "a", "é", "you have ", "\n", "🙂"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, bytes]:
    texts = draw(st.lists(st.lists(words, min_size=1, max_size=3).map("".join), max_size=12))
    end = draw(st.sampled_from([chunk(finish="stop") + DONE, DONE, chunk({"content": ""}, finish="length") + DONE]))
    return "".join(texts), chunk({"role": "assistant", "content": ""}) + text_chunks(*texts) + end


@given(streams(), st.lists(st.integers(0, 4000), max_size=6), st.sampled_from(["", "See a doctor. "]), st.sampled_from(["", " Ask."]))
def test_any_chunking_shows_the_same_and_nothing_unreviewed(
    given_stream: tuple[str, bytes], cuts: list[int], preface: str, ending: str
) -> None:
    text, stream = given_stream
    one = relay(guards(preface, ending))
    wanted = expected(text, preface, ending)
    out, last = b"", 0
    for at in [*sorted(min(c, len(stream)) for c in cuts), len(stream)]:
        out += one.feed(stream[last:at])
        last = at
        assert wanted.startswith(shown(out))
    whole = relay(guards(preface, ending))

    assert shown(out) == shown(whole.feed(stream)) == wanted
    assert one.done
    assert out.endswith(DONE)
    assert out.count(DONE) == 1
    assert one.cut == (FORBIDDEN in text)
    assert [r.action for _, r in one.reports()] == [r.action for _, r in whole.reports()]


def reply(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    choices = [{"index": i, "message": {"role": "assistant", **m}, "finish_reason": "stop"} for i, m in enumerate(messages)]
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, **more}


def review(document: Any, make: MakeGuard | None = None, **changes: Any) -> tuple[Any, DocumentRelay]:
    one = DocumentRelay(DIALECT, request(**changes), make or guards())
    steps = one.review(document)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value, one


def test_a_document_without_changes_is_left_alone() -> None:
    assert review(reply({"content": "Rest."}))[0] is None


@given(st.lists(words, max_size=10).map("".join), st.sampled_from(["", "See a doctor. "]), st.sampled_from(["", " Ask."]))
def test_a_document_shows_what_a_stream_shows(text: str, preface: str, ending: str) -> None:
    changed, _ = review(reply({"content": text}), guards(preface, ending))

    content = text if changed is None else changed["choices"][0]["message"]["content"]
    assert content == expected(text, preface, ending)


def test_every_choice_of_a_document_is_reviewed() -> None:
    changed, one = review(reply({"content": "a FORBIDDEN"}, {"content": "a colour"}, {"content": None}), guards(ending="!"), choices=3)

    assert [c["message"]["content"] for c in changed["choices"]] == ["a [replaced]", "a color!", "!"]
    assert one.cut


def test_a_cut_document_loses_its_tool_calls() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"q": "FORBIDDEN"}'}}
    changed, _ = review(reply({"content": "See.", "tool_calls": [call]}))

    assert changed["choices"][0]["message"] == {"role": "assistant", "content": "See.[replaced]"}


def test_a_document_with_a_tool_call_gets_no_ending() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    assert review(reply({"content": "See.", "tool_calls": [call]}), guards(ending="!"))[0] is None


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (
            {"content": [{"type": "text", "text": "a FORBIDDEN"}, {"type": "text", "text": "b"}]},
            [{"type": "text", "text": "a "}, {"type": "text", "text": "[replaced]"}],
        ),
        ({"content": None, "refusal": "no FORBIDDEN"}, "[replaced]"),
        ({"content": "ok", "audio": {"id": "a", "data": "x", "transcript": "FORBIDDEN"}}, "ok"),
        ({"content": "ok", "function_call": {"name": "f", "arguments": "FORBIDDEN"}}, "ok[replaced]"),
        ({"content": "ok", "novel": "FORBIDDEN"}, "ok[replaced]"),
    ],
)
def test_every_text_bearing_field_of_a_message_is_reviewed(message: dict[str, Any], wanted: Any) -> None:
    changed, _ = review(reply(message))

    assert changed["choices"][0]["message"]["content"] == wanted
    assert b"FORBIDDEN" not in orjson.dumps(changed)


def test_a_plain_text_is_reviewed_alike() -> None:
    assert review_text(WordGuard(preface="See. ", ending=" Ask."), f"a {EDITED}") == "See. a color Ask."
    assert review_text(WordGuard(), f"a {FORBIDDEN} b") == "a [replaced]"


def test_very_deep_unknown_fields_are_taken_out() -> None:
    deep: Any = "FORBIDDEN"
    for _ in range(200):
        deep = {"a": deep}
    changed, one = review(reply({"content": "ok", "novel": deep}))

    assert b"FORBIDDEN" not in orjson.dumps(changed)
    assert one.not_evaluated


class Recalling(WordGuard):
    """Reviews a whole reply once; a second review of the same text fails."""

    known: ClassVar[dict[str, Known]] = {}

    def recall(self, text: str) -> Known | None:
        return self.known.get(text)

    def remember(self, text: str, shown: str, cut: bool) -> None:
        assert text not in self.known
        self.known[text] = Known(shown, cut, self.report)


@pytest.mark.parametrize("text", ["all is well", f"a {EDITED} and more", f"a {FORBIDDEN} and more"])
def test_a_document_said_before_is_shown_as_before(text: str) -> None:
    first, one = review(reply({"content": text}), lambda channel, structured: Recalling())
    second, other = review(reply({"content": text}), lambda channel, structured: Recalling())

    assert first == second
    assert one.cut == other.cut


@given(st.lists(words, max_size=12))
def test_frames_held_and_shown_unchanged_are_the_bytes_that_came(texts: list[str]) -> None:
    one = relay()
    came = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts), chunk({}, "stop")]

    out = b"".join(one.feed(frame) for frame in (*came, DONE))

    if not one.cut and EDITED not in shown(b"".join(came)):
        assert out == b"".join((*came, DONE))
