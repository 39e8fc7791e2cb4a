"""Frames do not depend on how bytes were cut up, and carry nothing that nobody reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import UpstreamLost
from guardrail.proxy.sse import Frame, LineSplitter, Splitter, SseSplitter, write_event


def frames(splitter: Splitter, *chunks: bytes) -> list[tuple[bytes, bytes]]:
    found = [frame for chunk in chunks for frame in splitter.feed(chunk)] + splitter.finish()
    return [(f.event, f.data) for f in found]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_lines_end_on_lf_crlf_and_cr(end: bytes) -> None:
    stream = end.join([b"event: note", b"data: one", b"data: two", b"", b"data: three", b"", b""])

    assert frames(SseSplitter(1000), stream) == [(b"note", b"one\ntwo"), (b"", b"three")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_bytes_may_be_cut_anywhere(end: bytes) -> None:
    stream = end.join([b"\xef\xbb\xbfdata: a", b"", b": comment", b"", b"event: x", b"data: b", b"", b"data: c", b"", b""])
    whole = frames(SseSplitter(1000), stream)

    for at in range(len(stream)):
        assert frames(SseSplitter(1000), stream[:at], stream[at:]) == whole
    assert frames(SseSplitter(1000), *(stream[i : i + 1] for i in range(len(stream)))) == whole
    assert whole == [(b"", b"a"), (b"", b""), (b"x", b"b"), (b"", b"c")]


def test_separators_inside_json_do_not_split() -> None:
    data = '{"a":"\u2028\u2029\x85\x0b"}'.encode()

    assert frames(SseSplitter(1000), b"data: " + data + b"\n\n") == [(b"", data)]


def test_a_plain_frame_is_passed_on_byte_for_byte() -> None:
    assert SseSplitter(1000).feed(b"event: x\ndata: 1\n\n") == [Frame(b"event: x\ndata: 1\n\n", b"x", b"1")]


def test_what_nobody_reads_is_left_out_of_the_frame() -> None:
    frame = SseSplitter(1000).feed(b": take two tablets\nid: 4\nretry: 10\nmade-up: x\ndata: 1\n\n")[0]

    assert frame.raw == b"data: 1\n\n"


def test_a_comment_becomes_an_empty_one() -> None:
    frame = SseSplitter(1000).feed(b": take two tablets\n\n")[0]

    assert (frame.raw, frame.data) == (b":\n\n", b"")


def test_the_last_frame_may_lack_its_blank_line() -> None:
    splitter = SseSplitter(1000)

    assert splitter.feed(b"data: [DONE]\n") == []
    assert [f.data for f in splitter.finish()] == [b"[DONE]"]


def test_a_frame_without_end_is_refused() -> None:
    with pytest.raises(UpstreamLost, match="larger than 10 bytes"):
        SseSplitter(10).feed(b"data: 0123456789")
    with pytest.raises(UpstreamLost, match="larger than 10 bytes"):
        LineSplitter(10).feed(b'{"a": "0123456789')


def test_json_lines() -> None:
    stream = b'{"a":1}\n\r\n{"b":2}\r\n{"c":3}'

    for at in range(len(stream)):
        assert frames(LineSplitter(100), stream[:at], stream[at:]) == [(b"", b'{"a":1}'), (b"", b'{"b":2}'), (b"", b'{"c":3}')]


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_give_the_same_frames_however_they_are_cut(stream: bytes, at: int) -> None:
    assert frames(SseSplitter(1000), stream) == frames(SseSplitter(1000), stream[:at], stream[at:])
    assert frames(LineSplitter(1000), stream) == frames(LineSplitter(1000), stream[:at], stream[at:])


def test_writing_an_event_is_read_back() -> None:
    for event in (b"", b"message_start"):
        assert frames(SseSplitter(1000), write_event(event, b'{"a": 1}')) == [(event, b'{"a": 1}')]
