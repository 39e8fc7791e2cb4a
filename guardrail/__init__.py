"""A safety guard between patients and health chatbots.

As a library: `load_guard()` gives a `Guard`, whose `review` turns a `Conversation` into a `Decision`; `ReplyGuard` reviews
a reply. As part of an ASGI app: `GuardrailMiddleware`. As a service: `guardrail serve`.
"""

from typing import TYPE_CHECKING, Any

from guardrail.engine.guard import Guard
from guardrail.engine.model import Action, Conversation, Decision, Destination, Message, Role, Urgency
from guardrail.engine.reply import ReplyGuard

if TYPE_CHECKING:
    from guardrail.app import load_guard
    from guardrail.config import Settings
    from guardrail.middleware import GuardrailMiddleware

__version__ = "0.1.0"

__all__ = [
    "Action",
    "Conversation",
    "Decision",
    "Destination",
    "Guard",
    "GuardrailMiddleware",
    "Message",
    "ReplyGuard",
    "Role",
    "Settings",
    "Urgency",
    "__version__",
    "load_guard",
]

# What needs a web framework is imported when it is asked for: the engine alone needs none.
_LATER = {"GuardrailMiddleware": "guardrail.middleware", "Settings": "guardrail.config", "load_guard": "guardrail.app"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)
