"""`guardrail tokens`: shown once, listed without what lets in, revoked at once."""

import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from guardrail.audit.store import AuditStore
from guardrail.cli import main
from guardrail.dashboard.passwords import is_password
from guardrail.dashboard.people import Role
from guardrail.dashboard.tables import Tables
from guardrail.dashboard.tokens import PREFIX, Tokens


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/audit.db"
    AuditStore(url).close()
    with closing(Tables(url)) as tables:
        Tokens(tables, time.time).all()
    return url


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["tokens", *arguments])


def test_a_token_is_shown_once_and_listed_by_its_id(url: str) -> None:
    made = run("create", "grafana", "--role", "viewer", "--days", "30", "--audit", url)
    shown = made.stdout.strip()

    with closing(Tables(url)) as tables:
        found = Tokens(tables, time.time).find(shown)
    assert found is not None
    assert (found.name, found.role, round((found.expires_at - found.made_at) / 86_400)) == ("grafana", Role.VIEWER, 30)
    assert shown.startswith(f"{PREFIX}{found.id}_")
    listed = run("list", "--audit", url).output
    assert listed.startswith(f"{found.id}  grafana  viewer  valid  until ")
    assert "last used" in listed
    assert shown not in listed


def test_a_revoked_token_is_listed_only_where_all_are_asked_for(url: str) -> None:
    id = run("create", "old", "--audit", url).stderr[:8]

    assert run("revoke", id, "--audit", url).output == f"{id} revoked\n"
    assert run("list", "--audit", url).output == "no tokens\n"
    assert "  old  viewer  revoked  " in run("list", "--all", "--audit", url).output
    again = run("revoke", id, "--audit", url)
    assert (again.exit_code, again.stderr) == (1, f"there is no token {id} to revoke; guardrail tokens list shows them\n")


def test_a_record_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = run("create", "x", "--audit", f"sqlite:///{tmp_path}/no.db")

    assert (result.exit_code, result.stderr) == (2, f"--audit: there is no record at {tmp_path}/no.db\n")


@pytest.mark.parametrize("wrong", [["--role", "root"], ["--days", "0"], ["--days", "4000"]])
def test_wrong_usage_is_2(url: str, wrong: list[str]) -> None:
    assert run("create", "x", "--audit", url, *wrong).exit_code == 2


def test_the_password_command_makes_what_the_settings_hold() -> None:
    result = CliRunner().invoke(main, ["password"], input="a long enough one\na long enough one\n")

    assert is_password("a long enough one", result.output.splitlines()[-1])
    assert CliRunner().invoke(main, ["password", "--password", "short"]).exit_code == 2
