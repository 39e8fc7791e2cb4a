"""A stand-in for a health chatbot, as an ASGI app that speaks OpenAI's chat completions, JSON and stream.

It looks for a word and says a fixed reply. Some replies are what no chatbot should say (a dose, a diagnosis, false reassurance,
an invented chart), so that the reply guard can be seen at work. It knows nothing, and it is no example of advice.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

MODEL: Final = "stand-in"

# Word -> reply; the first that occurs in the last message. The replies marked so are wrong on purpose.
REPLIES: Final = (
    # a dose
    (
        "headache",
        "Headaches after a long day at a screen are common, and rest, water and fresh air often help. "
        "You should take 800 mg of ibuprofen every 4 hours until it stops. Tell me if it comes back tomorrow.",
    ),
    # a diagnosis
    (
        "elbow",
        "Thank you for describing it. You have psoriasis. It is a long-lasting skin condition that comes and goes.",
    ),
    # false reassurance
    ("mole", "Moles change all the time as we get older. It is nothing to worry about, and there is no need to see a doctor about it."),
    # an invented chart
    ("blood test", "I have reviewed your chart and your latest results, and everything in your blood test looks normal."),
    (
        "sleep",
        "Going to bed and getting up at the same time every day helps most people. Keep the room dark and cool, leave screens outside, "
        "and avoid coffee after lunch. If poor sleep goes on for weeks, a clinician can look for a cause.",
    ),
    (
        "cold",
        "Colds usually get better on their own within one to two weeks. Rest and enough to drink make them easier to bear. "
        "Ask a pharmacist or a clinician if you feel worse instead of better.",
    ),
    ("hello", "Hello! I can talk about general health topics: sleep, colds, food, exercise. What would you like to know?"),
)
OTHERWISE: Final = (
    "I can share general information about health. Eating a varied diet, moving every day, sleeping enough and not smoking help most "
    "people stay well. For anything about you in particular, a clinician who knows you is the right person to ask."
)


def reply_to(text: str) -> str:
    """What the stand-in says to a message."""
    lowered = text.lower()
    return next((reply for word, reply in REPLIES if word in lowered), OTHERWISE)


def create_chatbot(pause_seconds: float = 0.02) -> Starlette:
    """The app; it pauses before each word of a stream, as models do."""

    async def completions(request: Request) -> Response:
        asked = orjson.loads(await request.body())
        said = [m["content"] for m in asked["messages"] if m.get("role") == "user" and isinstance(m.get("content"), str)]
        reply = reply_to(said[-1] if said else "")
        if asked.get("stream"):
            return StreamingResponse(_stream(reply, pause_seconds), media_type="text/event-stream")
        message = {"role": "assistant", "content": reply}
        return Response(orjson.dumps(_frame("chat.completion", message=message, finish="stop")), media_type="application/json")

    async def models(request: Request) -> Response:
        listed = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "guardrail"}]}
        return Response(orjson.dumps(listed), media_type="application/json")

    return Starlette(routes=[Route("/v1/chat/completions", completions, methods=["POST"]), Route("/v1/models", models)])


async def _stream(reply: str, pause_seconds: float) -> AsyncIterator[bytes]:
    yield _event(_frame("chat.completion.chunk", delta={"role": "assistant", "content": ""}))
    for word in reply.split(" "):
        await asyncio.sleep(pause_seconds)
        yield _event(_frame("chat.completion.chunk", delta={"content": f"{word} "}))
    yield _event(_frame("chat.completion.chunk", delta={}, finish="stop"))
    yield b"data: [DONE]\n\n"


def _event(frame: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(frame) + b"\n\n"


def _frame(kind: str, finish: str | None = None, **part: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, **part, "finish_reason": finish}
    return {"id": "chatcmpl-stand-in", "object": kind, "created": int(time.time()), "model": MODEL, "choices": [choice]}
