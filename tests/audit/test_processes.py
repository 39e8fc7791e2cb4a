"""Several processes at one store, and processes that are killed: real ones, with real signals."""

import subprocess
import sys
from pathlib import Path

import pytest

from guardrail.audit.reader import AuditReader
from guardrail.audit.store import AuditStore
from guardrail.audit.verify import Verification, verify
from tests.audit.records import exchange

ROOT = Path(__file__).parents[2]
NEVER = 1_000_000


def start(url: str, name: str, count: int, spool: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.audit.writing", url, name, str(count), str(spool)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def acknowledged(process: subprocess.Popen[str], least: int) -> int:
    """The number of the last exchange that the process says is safe, once it is at least so many."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().isdigit() and int(line) >= least:
            return int(line)
    raise AssertionError("the process ended too early")


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def kept(url: str) -> tuple[dict[str, list[str]], Verification, int]:
    """Ids by process, in the order of their chains; whether the chains hold; and how many exchanges the figures count."""
    reader = AuditReader(url)
    found: dict[str, list[str]] = {}
    for row in reader.chains():
        if row.kind == "exchange":
            found.setdefault(row.id.partition("-")[0], []).append(row.id)
    verification = verify(reader.chains(), seals=reader.seals())
    counted = sum(count for *_, count in reader.counts(0.0, 300))
    reader.close()
    return found, verification, counted


def test_replicas_write_at_once_and_nothing_is_lost(url: str, tmp_path: Path) -> None:
    count = 400
    replicas = [start(url, f"replica{n}", count, tmp_path / "spool") for n in range(4)]

    assert [replica.wait(60) for replica in replicas] == [0] * 4

    for replica in replicas:
        assert replica.stdout is not None
        replica.stdout.close()
    found, verification, counted = kept(url)
    assert found == {f"replica{n}": [f"replica{n}-{number:06}" for number in range(count)] for n in range(4)}
    assert (verification.problems, verification.open, counted) == ([], set(), 4 * count)
    assert list(tmp_path.glob("spool-*")) == []


def test_a_process_that_is_killed_loses_nothing_that_was_acknowledged(url: str, tmp_path: Path) -> None:
    process = start(url, "killed", NEVER, tmp_path / "spool")
    safe = acknowledged(process, 300)
    kill(process)

    AuditStore(url, spool=tmp_path / "spool").close()  # whoever comes next adopts what was left

    found, verification, counted = kept(url)
    assert found["killed"] == [f"killed-{number:06}" for number in range(len(found["killed"]))]
    assert len(found["killed"]) > safe
    assert counted == len(found["killed"])
    assert verification.problems == []
    assert list(tmp_path.glob("spool-*")) == []


def test_what_waited_in_the_spool_of_a_killed_process_is_brought_in_by_another(tmp_path: Path) -> None:
    folder = tmp_path / "away"
    folder.write_text("in the way of the store's folder")
    url = f"sqlite:///{folder}/audit.db"
    process = start(url, "killed", NEVER, tmp_path / "spool")
    safe = acknowledged(process, 100)
    kill(process)
    folder.unlink()

    store = AuditStore(url, spool=tmp_path / "spool")
    store.record(exchange(1))
    store.close()

    found, verification, _ = kept(url)
    assert len(found["killed"]) > safe
    assert verification.problems == []
    assert list(tmp_path.glob("spool-*")) == []


def test_the_spool_of_a_process_that_lives_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "away"
    folder.write_text("in the way of the store's folder")
    url = f"sqlite:///{folder}/audit.db"
    process = start(url, "living", NEVER, tmp_path / "spool")
    acknowledged(process, 40)
    (spool,) = tmp_path.glob("spool-*")

    AuditStore(f"sqlite:///{tmp_path}/other.db", spool=tmp_path / "spool").close()

    assert spool.exists()
    kill(process)


@pytest.mark.parametrize("torn", [b'["half a li', b"\xff\xfe", b""])
def test_a_line_torn_by_a_kill_is_left_out(tmp_path: Path, torn: bytes) -> None:
    folder = tmp_path / "away"
    folder.write_text("in the way of the store's folder")
    url = f"sqlite:///{folder}/audit.db"
    process = start(url, "killed", NEVER, tmp_path / "spool")
    safe = acknowledged(process, 40)
    kill(process)
    folder.unlink()
    (spool,) = tmp_path.glob("spool-*")
    with spool.open("ab") as file:
        file.write(torn)

    AuditStore(url, spool=tmp_path / "spool").close()

    found, verification, _ = kept(url)
    assert len(found["killed"]) > safe
    assert verification.problems == []


def test_a_spool_that_is_shipped_twice_is_kept_once(tmp_path: Path) -> None:
    """A process killed between the store's commit and the spool's end leaves what the store has already."""
    folder = tmp_path / "away"
    folder.write_text("in the way of the store's folder")
    url = f"sqlite:///{folder}/audit.db"
    process = start(url, "killed", NEVER, tmp_path / "spool")
    acknowledged(process, 40)
    kill(process)
    folder.unlink()
    (spool,) = tmp_path.glob("spool-*")
    content = spool.read_bytes()
    AuditStore(url, spool=tmp_path / "spool").close()
    before = kept(url)

    spool.write_bytes(content)
    AuditStore(url, spool=tmp_path / "spool").close()

    assert kept(url) == before
