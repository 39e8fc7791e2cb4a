"""One module per provider's way of writing conversations, behind the protocol in `dialect`."""

from guardrail.proxy.dialects.chat_completions import ChatCompletions
from guardrail.proxy.dialects.completions import Completions
from guardrail.proxy.dialects.dialect import Dialect
from guardrail.proxy.dialects.messages import Messages
from guardrail.proxy.dialects.ollama import OllamaChat, OllamaGenerate
from guardrail.proxy.dialects.responses import Responses

DIALECTS: tuple[Dialect, ...] = (ChatCompletions(), Responses(), Completions(), Messages(), OllamaChat(), OllamaGenerate())
