"""Stores for the tests, as those of the audit store; and no proxy between a test and its receiver."""

import pytest

from tests.audit.conftest import postgres, url

__all__ = ["postgres", "url"]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
