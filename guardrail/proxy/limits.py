"""How much of anything one request may bring."""

from dataclasses import dataclass

from guardrail.errors import RequestTooLarge
from guardrail.proxy.dialects.dialect import Request


@dataclass(frozen=True, slots=True)
class ExchangeLimits:
    """`review_seconds` bounds the review of one request or JSON reply; after that the patient gets the safe answer.

    Texts are counted in characters. The default body holds a few photographs; the default conversation is far longer than
    any that models accept.
    """

    body_bytes: int = 20_000_000
    messages: int = 2000
    message_chars: int = 2_000_000
    conversation_chars: int = 4_000_000
    reply_bytes: int = 32_000_000
    frame_bytes: int = 4_000_000
    review_seconds: float = 2.0
    concurrent: int = 1000

    def check(self, request: Request) -> None:
        if len(request.messages) > self.messages:
            raise RequestTooLarge(f"the conversation has {len(request.messages)} messages; {self.messages} are allowed")
        total = 0
        for position, message in enumerate(request.messages):
            length = len(message.text)
            if length > self.message_chars:
                raise RequestTooLarge(f"message {position} has {length} characters; {self.message_chars} are allowed")
            total += length
        if total > self.conversation_chars:
            raise RequestTooLarge(f"the conversation has {total} characters; {self.conversation_chars} are allowed")
