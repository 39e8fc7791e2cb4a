"""`guardrail serve` with several workers, as processes: each keeps a chain of its own, and the parent keeps none."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from guardrail.audit.keys import SigningKey
from guardrail.audit.reader import AuditReader
from guardrail.audit.verify import verify
from guardrail.cli import main
from tests.conftest import SMALL_RULES

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
BODY = {"model": "m", "messages": [{"role": "user", "content": "I have chest pain"}]}


def open_files(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.path.basename(os.readlink(entry)))
        except OSError:  # closed meanwhile
            continue
    return found


def test_workers_keep_a_chain_each_and_the_parent_holds_no_store(tmp_path: Path) -> None:
    SigningKey.new().write(tmp_path / "seal.pem")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    url = f"sqlite:///{tmp_path}/audit.db"
    config = {
        "upstream": "http://127.0.0.1:9",
        "rules": str(SMALL_RULES),
        "audit": url,
        "audit_signing_key": str(tmp_path / "seal.pem"),
        "workers": 2,
        "port": port,
    }
    (tmp_path / "settings.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "guardrail", "serve", "--config", str(tmp_path / "settings.yaml")]
    with (tmp_path / "log").open("wb") as log:
        parent = subprocess.Popen(command, stdout=log, stderr=log)
    ids: list[str] = []
    try:
        end = time.monotonic() + 30
        while len(ids) < 20 and time.monotonic() < end:
            try:
                # A connection each: the kernel deals them out among the workers.
                ids.append(httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=BODY).headers["guardrail-exchange"])
            except httpx.TransportError:
                time.sleep(0.05)  # it is starting
        of_parent = open_files(parent.pid)
        children = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
        of_children = [open_files(pid) for pid in children]
    finally:
        parent.send_signal(signal.SIGTERM)
        parent.wait(20)

    assert not any(name.startswith("audit.db") for name in of_parent)
    assert sum(any(name.startswith("audit.db") for name in files) for files in of_children) == 2
    reader = AuditReader(url)
    found = verify(reader.chains(), seals=reader.seals())
    kept = {row.id for row in reader.chains() if row.kind == "exchange"}
    reader.close()
    assert kept == set(ids)
    assert len(ids) == 20
    assert (found.problems, found.open) == ([], set())
    assert 1 <= len(found.heads) <= 2


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"audit_text": "encrypted"}, "audit_text: encrypted needs audit_text_keys"),
        ({"audit_text": "encrypted", "audit_text_keys": "none"}, "none: cannot be read"),
        ({"audit_signing_key": "none"}, "none: cannot be read"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_keys_that_are_missing_are_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], complaint: str, workers: int
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"upstream": "http://127.0.0.1:9", "rules": str(SMALL_RULES), "audit": "sqlite:///audit.db", "workers": workers, "port": 0}
    (tmp_path / "settings.yaml").write_text(json.dumps({**config, **settings}))

    result = CliRunner().invoke(main, ["serve", "--config", "settings.yaml"])

    assert (result.exit_code, complaint in result.output) == (2, True)
