"""Stores for the tests: SQLite and, where one runs, PostgreSQL."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardrail.audit.database import open_database
from guardrail.errors import ConfigError, StoreError

POSTGRES = "postgresql://postgres@127.0.0.1:5432/test"


def postgres_runs() -> bool:
    try:
        open_database(POSTGRES, migrate=False).close()
    except (StoreError, ConfigError):
        return False
    return True


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind, empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/audit.db"
    found: str = request.getfixturevalue("postgres")
    return found


@pytest.fixture
def postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty schema of a real PostgreSQL; spools go to the test's folder."""
    monkeypatch.chdir(tmp_path)
    if not postgres_runs():
        pytest.skip("no PostgreSQL with a database named test on 127.0.0.1:5432")
    schema = f"guardrail_{uuid.uuid4().hex[:12]}"
    admin = open_database(POSTGRES, migrate=False)
    admin.execute(f"CREATE SCHEMA {schema}")
    yield f"{POSTGRES}?options=-csearch_path%3D{schema}"
    admin.execute(f"DROP SCHEMA {schema} CASCADE")
    admin.close()
