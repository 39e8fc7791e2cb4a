"""Shared by all tests: the small rules, and no settings from the environment of whoever runs them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from guardrail.app import load_guard
from guardrail.engine.guard import Guard

SMALL_RULES = Path(__file__).parent / "small_rules"


@pytest.fixture(scope="session")
def small_guard() -> Guard:
    return load_guard(SMALL_RULES)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GUARDRAIL_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)
