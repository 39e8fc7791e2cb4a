"""Code blocks: where one is open at the end, and what closes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.engine.markdown import Fences


def read(*pieces: str) -> Fences:
    fences = Fences()
    for piece in pieces:
        fences.read(piece)
    return fences


@pytest.mark.parametrize(
    ("text", "closing"),
    [
        ("Rest.", ""),
        ("```\ncode\n", "```"),
        ("```\ncode", "\n```"),
        ("```python\ncode\n```\nRest.", ""),
        ("````\n```\n", "````"),
        ("~~~\n```\n", "~~~"),
        ("~~~ a`b\ncode\n", "~~~"),
        ("Write ```x``` here", ""),
        ("```x```\nRest", ""),
        ("- do this:\n  ```\n  code\n", "  ```"),
        ("- do this:\n  ```\n  code\n  ```\n", ""),
        ("```\n```not the end\n", "```"),
    ],
)
def test_an_open_block_is_closed_as_it_was_opened(text: str, closing: str) -> None:
    assert read(text).closing == closing


@pytest.mark.parametrize(
    ("text", "is_json"),
    [
        ('```json\n{"a": 1}\n```\n', True),
        ("```\n[1, 2]\n```", True),
        ('```json\n{"a": 1,', True),
        ('Here it is:\n```json\n{"a": 1}\n```', False),
        ('```json\n{"a": 1}\n```\nThat is all.', False),
        ("```\nRest and drink.\n```", False),
        ("Rest.", False),
        ("", False),
    ],
)
def test_a_reply_that_is_one_block_of_json_is_known(text: str, is_json: bool) -> None:
    assert read(text).is_json is is_json


@given(st.lists(st.sampled_from(["```\n", "~~~\n", "word", " ", "\n", "{", "  ````\n"]), max_size=12))
def test_how_the_lines_were_given_does_not_matter(pieces: list[str]) -> None:
    lines = "".join(pieces).splitlines(keepends=True)

    whole, by_line = read("".join(pieces)), read(*lines)

    assert (whole.closing, whole.is_json) == (by_line.closing, by_line.is_json)
