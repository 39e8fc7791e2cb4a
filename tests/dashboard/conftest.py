"""Stores of both kinds, as those of the audit store's tests, and a clock that tests turn."""

from dataclasses import dataclass

import pytest

from tests.audit.conftest import postgres, url

__all__ = ["Clock", "postgres", "url"]


@dataclass(slots=True)
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()
