"""A client in a process of its own that takes one JSON question a line and gives one JSON answer a line."""

import contextlib
import select
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

ANSWERS_WITHIN = 60.0
"""Seconds: the first answer waits for the client's own imports."""


@dataclass
class Answer:
    """What the app was given: the text, why it ended, what went wrong."""

    text: str
    finish: str | None
    error: dict[str, Any] | None


class Client:
    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(orjson.dumps(question) + b"\n")
        self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], ANSWERS_WITHIN)[0], "the client does not answer"
        line = self._process.stdout.readline()
        assert line, "the client ended"
        answer: dict[str, Any] = orjson.loads(line)
        return answer


@contextlib.contextmanager
def running(command: Sequence[str | Path], folder: Path) -> Iterator[Client]:
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Client(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(20) == 0
        finally:
            process.kill()
