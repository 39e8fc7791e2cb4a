"""What the endpoint needs of tracing, and the tracing that does nothing.

One trace per exchange with a span for each of its parts. `guardrail.tracing` makes them with OpenTelemetry where the settings ask for
it; nothing here imports that.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from guardrail.audit.record import ExchangeRecord
from guardrail.proxy.upstream import Headers


class Trace(Protocol):
    """The trace of one exchange."""

    def part(self, name: str) -> AbstractContextManager[object]:
        """A span within the exchange: review, upstream, reply."""

    def headers(self, headers: Headers) -> Headers:
        """The same headers with the context of the running part, for the upstream to go on with."""

    def end(self, record: ExchangeRecord) -> None:
        """The exchange is over, and this is how it went."""


class Tracing(Protocol):
    def begin(self, dialect: str, headers: Headers) -> Trace:
        """An exchange begins; the caller's headers may say which trace it is part of."""

    def close(self) -> None:
        """No more exchanges: what waits is sent."""


class _Nothing:
    """Traces nothing, and costs as much."""

    def begin(self, dialect: str, headers: Headers) -> "_Nothing":
        return self

    def part(self, name: str) -> AbstractContextManager[object]:
        return _NO_PART

    def headers(self, headers: Headers) -> Headers:
        return headers

    def end(self, record: ExchangeRecord) -> None:
        """Nobody looks."""

    def close(self) -> None:
        """Nothing waits."""


_NO_PART: Final[AbstractContextManager[object]] = nullcontext()
UNTRACED: Final[Tracing] = _Nothing()
