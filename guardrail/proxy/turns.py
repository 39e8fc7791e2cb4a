"""Runs a review on the event loop without keeping others waiting, and within its time."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from guardrail.errors import CallerError, GuardFailed, UpstreamError

# A pause this long is not felt by the other streams of the loop.
_TURN_SECONDS = 0.005
# A review that takes longer than most leaves the loop as much time as it takes, up to this much at once: an exchange of somebody
# else needs several turns of the loop, and would wait for a piece of the long review in each.
_LONG_SECONDS = 0.02
_REST_SECONDS = 0.01


async def in_turns(steps: Iterator[None], seconds: float) -> Any:
    """Run a reviewing generator to its end and return what it returns; whatever it raises is the guard's failure.

    Time is taken from the clock: uvloop's own time stands still while a callback runs.
    """
    began = turn = time.perf_counter()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value
        except (CallerError, UpstreamError):
            raise
        except Exception as error:  # the one broad catch: whatever the engine raises, the patient gets the safe answer
            raise GuardFailed(type(error).__name__) from error
        now = time.perf_counter()
        if now > began + seconds:
            raise GuardFailed("deadline")
        if now > turn + _TURN_SECONDS:
            await asyncio.sleep(min(now - turn, _REST_SECONDS) if now > began + _LONG_SECONDS else 0)
            turn = time.perf_counter()
