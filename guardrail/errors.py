"""Everything Guardrail raises on purpose, divided by who must act.

GuardrailError
├── CallerError            the app that called us sent something unusable (4xx in its dialect)
│   ├── MalformedRequest
│   └── RequestTooLarge
├── UpstreamError          the model behind us did not answer properly
│   ├── UpstreamUnreachable
│   ├── UpstreamTimeout
│   └── UpstreamLost       it died in mid-answer
├── PackError              the author of a rule pack; carries every problem with its place
├── ConfigError            the operator: settings, files, flags
├── StoreError             the operator: the audit store is away or refuses
└── GuardFailed            ours: the engine raised or ran out of time; the patient gets the safe answer
"""

from collections.abc import Sequence
from dataclasses import dataclass


class GuardrailError(Exception):
    """Base of all errors that Guardrail raises on purpose."""


class CallerError(GuardrailError):
    """The request cannot be used; the message says what, where and the remedy."""

    status = 400


class MalformedRequest(CallerError):
    """Not JSON, not the dialect's shape, or text that cannot be read."""


class RequestTooLarge(CallerError):
    """Body, message or conversation over its limit."""

    status = 413


class UpstreamError(GuardrailError):
    """The model behind us did not answer properly."""

    status = 502


class UpstreamUnreachable(UpstreamError):
    """No connection, or none that lasted until the response head."""


class UpstreamTimeout(UpstreamError):
    """A named timeout ran out: connect, first byte, read or pool."""

    status = 504


class UpstreamLost(UpstreamError):
    """The connection died, or the framing broke, after the response had begun."""


class ConfigError(GuardrailError):
    """A setting, file or flag is wrong; the message names it and the remedy."""


class StoreError(GuardrailError):
    """The audit store is away or refuses."""


class GuardFailed(GuardrailError):
    """The engine raised or exceeded its deadline."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in a pack: `file:line:col: message; remedy`."""

    file: str
    line: int
    column: int
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.message}"
        return f"{text}; {self.remedy}" if self.remedy else text


class PackError(GuardrailError):
    """Packs do not load. `problems` holds all of them, sorted by place."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))
