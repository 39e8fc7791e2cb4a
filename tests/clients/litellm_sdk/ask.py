"""LiteLLM's SDK as an app uses it, in its own environment: one question a line on standard input, one answer a line.

A question is {"model", "api_base", "text", "stream"}; or {"hook": api_base, "messages", "texts"}, which asks the guardrail hook of
deploy/litellm as LiteLLM's gateway would.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise it fetches one from the network

import litellm

sys.path.insert(0, str(Path(__file__).parents[3] / "deploy" / "litellm"))
import guardrail_hook  # type: ignore[import-not-found]  # found by the path above, at run time

litellm.telemetry = False
litellm.suppress_debug_info = True


def ask(model: str, api_base: str, text: str, stream: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"text": "", "finish": None, "error": None}
    try:
        reply = litellm.completion(
            model=model,
            api_base=api_base,
            api_key="k",
            messages=[{"role": "user", "content": text}],
            stream=stream,
            num_retries=0,
            max_retries=0,
            timeout=20,
        )
        for part in reply if stream else [reply]:
            choice = part.choices[0]
            answer["text"] += (choice.delta if stream else choice.message).content or ""
            answer["finish"] = choice.finish_reason or answer["finish"]
    except Exception as error:
        answer["error"] = {"message": str(error), "status": getattr(error, "status_code", None)}
    return answer


async def ask_hook(api_base: str, messages: list[Any], texts: list[str]) -> dict[str, Any]:
    """What the hook makes of a request, or of the texts of its reply."""
    hook = guardrail_hook.GuardrailHook(guardrail_name="guardrail", event_hook=["pre_call", "post_call"], api_base=api_base, country="GB")
    inputs = {"texts": texts or [str(m["content"]) for m in messages]}
    try:
        passed = await hook.apply_guardrail(inputs, {"model": "m", "messages": messages}, "response" if texts else "request")
    except Exception as error:  # the one with which LiteLLM's hooks give a normal reply of their own
        return {"instead": getattr(error, "message", None), "by": type(error).__name__}
    return {"texts": passed["texts"]}


for line in sys.stdin:
    question = json.loads(line)
    if "hook" in question:
        found = asyncio.run(ask_hook(question["hook"], question["messages"], question["texts"]))
    else:
        found = ask(**question)
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
