"""A LiteLLM guardrail that asks Guardrail's `POST /-/check`: for gateways that stay where they are.

Put this file beside LiteLLM's config.yaml; config.example.yaml shows the entries. Settings of the guardrail: `api_base` (where
Guardrail listens), `api_key` (where it asks for one), `country` (whose numbers patients are given).

    pre_call    the conversation is reviewed; what Guardrail answers itself becomes a normal reply, the model is not called
    post_call   the reply is reviewed; what may not be shown is replaced, notice and disclaimer are added

What it cannot do, and the proxy can: hold a stream's text until it is reviewed, and keep records. If Guardrail does not answer, the patient
is told so in a normal reply: nothing goes on unreviewed.
"""

from collections.abc import Mapping
from typing import Any

import httpx
from litellm.integrations.custom_guardrail import CustomGuardrail

SECONDS = 5.0
UNCHECKED = (
    "This message could not be checked. If it may be an emergency, call your local emergency number now. "
    "If you are thinking of harming yourself, call your local crisis line or emergency number now."
)


class GuardrailHook(CustomGuardrail):
    def __init__(
        self,
        api_base: str = "http://127.0.0.1:8080",
        api_key: str | None = None,
        country: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._country = country
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.AsyncClient(base_url=api_base, headers=headers, timeout=SECONDS, transport=transport)

    async def apply_guardrail(self, inputs: Any, request_data: dict[str, Any], input_type: str, logging_obj: Any = None) -> Any:
        """LiteLLM calls this with the texts of a request or of a reply, whatever dialect they came in."""
        messages = conversation(request_data) or [{"role": "user", "content": text} for text in inputs.get("texts", ())]
        if input_type == "request":
            checked = await self._check({"messages": messages}, request_data)
            if checked["action"] == "answer":
                self.raise_passthrough_exception(violation_message=checked["answer"], request_data=request_data)
            return inputs
        said = inputs.get("texts", ())
        return {**inputs, "texts": [await self._reviewed(messages, text, request_data) for text in said]}

    async def _reviewed(self, messages: list[dict[str, Any]], text: str, request_data: dict[str, Any]) -> str:
        checked = await self._check({"messages": messages, "response": text}, request_data)
        return str(checked["reply"]["text"])

    async def _check(self, item: dict[str, Any], request_data: dict[str, Any]) -> Mapping[str, Any]:
        if self._country:
            item["country"] = self._country
        try:
            answer = await self._client.post("/-/check", json=item)
            answer.raise_for_status()
            checked: Mapping[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError):
            self.raise_passthrough_exception(violation_message=UNCHECKED, request_data=request_data)
            raise AssertionError from None  # the line above raises
        return checked


def conversation(request_data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of a request, with the system prompt where it stands apart; other dialects' inputs as messages."""
    messages = request_data.get("messages")
    if messages is None:
        messages = request_data.get("input", request_data.get("prompt"))
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list):
        return []
    return [dict(m) for m in messages if isinstance(m, Mapping) and isinstance(m.get("role"), str)]
