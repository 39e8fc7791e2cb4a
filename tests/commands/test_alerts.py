"""`guardrail alerts`: try the receivers, list what is on its way."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from guardrail.alerts.alert import Due
from guardrail.alerts.outbox import Outbox
from guardrail.cli import main
from tests.alerts.receiving import alert, hook, receiving


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["alerts", *arguments])


def config(folder: Path, receivers: dict[str, Any]) -> str:
    path = folder / "guardrail.yaml"
    rules = {"emergencies": {"when": "escalation", "send": list(receivers)}}
    path.write_bytes(orjson.dumps({"alerts": {"timeout_seconds": 2, "receivers": receivers, "rules": rules}}))
    return str(path)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_every_receiver_is_tried_and_what_happened_is_said(tmp_path: Path) -> None:
    with receiving(204) as good, receiving(201) as clinical, receiving(403) as refusing, receiving(up=False) as down:
        fhir = {"kind": "fhir", "url": clinical.url}
        path = config(tmp_path, {"good": hook(good), "ehr": fhir, "refusing": hook(refusing), "down": hook(down)})
        result = run("test", "--config", path)
        got, resources = good.next(), clinical.next()

    assert result.exit_code == 1
    lines = {line.split(":")[0]: line for line in result.output.splitlines()}
    assert lines["good (webhook)"].startswith("good (webhook): sent in ")
    assert lines["good (webhook)"].endswith(" ms: 204")
    assert lines["ehr (fhir)"].endswith(" ms: 201")
    assert lines["refusing (webhook)"].endswith(" ms: status 403")
    assert "ConnectError" in lines["down (webhook)"]
    assert (got.json["type"], got.json["data"]["severity"]) == ("guardrail.test", "info")
    assert {entry["resource"]["meta"]["tag"][0]["code"] for entry in resources.json["entry"]} == {"HTEST"}


def test_one_receiver_may_be_named(tmp_path: Path) -> None:
    with receiving() as good, receiving(up=False) as down:
        path = config(tmp_path, {"good": hook(good), "down": hook(down)})
        result = run("test", "--config", path, "--receiver", "good")
        wrong = run("test", "--config", path, "--receiver", "goood")

    assert (result.exit_code, len(result.output.splitlines())) == (0, 1)
    assert wrong.exit_code == 2
    assert wrong.output == '--receiver: there is no receiver "goood"; there are: good, down\n'


def test_without_alerts_it_says_where_to_begin(tmp_path: Path) -> None:
    path = tmp_path / "guardrail.yaml"
    path.write_text("port: 1\n")
    result = run("test", "--config", str(path))

    assert result.exit_code == 2
    assert "there is no section alerts: in the settings file; deploy/alerts.example.yaml shows one" in result.output


def test_what_is_on_its_way_and_what_was_given_up_is_listed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/audit.db"
    outbox = Outbox(url)
    for number, name in enumerate(("sent", "given_up", "pending")):
        outbox.add([Due(alert(name), ("a",))], 1_700_000_000.0 + number)
    sent, given_up, _ = outbox.claim("a", 1_700_000_100.0, 1.0, 10)
    outbox.sent(sent, 0.0)
    outbox.given_up(given_up, 0.0, "status 400")
    outbox.close()

    assert run("list", "--audit", url).output.splitlines() == [
        "2023-11-14T22:13:22Z  a  pending  attempts 1  escalation:emergencies:pending",
        "2023-11-14T22:13:21Z  a  given_up  attempts 1  escalation:emergencies:given_up  status 400",
        "2 alerts",
    ]
    assert run("list", "--audit", url, "--all").output.splitlines()[-1] == "3 alerts"
    assert run("list", "--audit", f"sqlite:///{tmp_path}/none.db").exit_code == 2
