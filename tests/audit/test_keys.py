"""Keys: files that are safe and clear about what is wrong with them; words that are encrypted, rotated and erased."""

import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from guardrail.audit.chain import Chain
from guardrail.audit.database import open_database
from guardrail.audit.keys import PublicKey, SigningKey, TextKeys, add_text_key
from guardrail.audit.reader import AuditReader
from guardrail.audit.store import AuditStore
from guardrail.audit.verify import verify
from guardrail.errors import ConfigError
from tests.audit.records import exchange

REPLY = ({"channel": "content", "action": "cut", "issues": [{"issue": "dose", "rule": "dose", "text": "take two tablets"}]},)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "text-keys"
    add_text_key(path)
    return path


def keep(url: str, keys: TextKeys, count: int = 3) -> None:
    store = AuditStore(url, "encrypted", keys=keys)
    for number in range(count):
        store.record(replace(exchange(number), turns=(0,), reply=REPLY))
    store.close()


def stored(url: str) -> str:
    """Everything that the store holds, as one text."""
    database = open_database(url)
    rows = [
        bytes(v) if isinstance(v, memoryview) else v
        for table in ("entries", "hits", "waiting", "tallies", "rule_tallies")
        for row in database.execute(f"SELECT * FROM {table}")
        for v in row
    ]
    database.close()
    return repr(rows)


def test_words_come_back_in_their_places_for_who_may_read(url: str, key_file: Path) -> None:
    keys = TextKeys.read(key_file)
    keep(url, keys)

    reader = AuditReader(url, keys)
    entry = reader.entry("id000001", words=True)
    reader.close()

    assert entry is not None
    assert (entry["encrypted"], entry["texts"]) == ("open", ["my chest is tight"])
    assert entry["decision"]["rules"][0]["evidence"][0]["text"] == "chest is tight"
    assert entry["reply"][0]["issues"][0]["text"] == "take two tablets"


def test_nothing_of_them_can_be_read_without_the_keys(url: str, key_file: Path) -> None:
    keep(url, TextKeys.read(key_file))

    reader = AuditReader(url)
    hidden, lost = reader.entry("id000001"), reader.entry("id000001", words=True)
    reader.close()

    assert "tight" not in stored(url)
    assert "tablets" not in stored(url)
    assert (hidden or {})["encrypted"] == "hidden"
    assert (lost or {})["encrypted"] == "lost"
    assert "tight" not in json.dumps([hidden, lost])


def test_a_new_key_takes_over_and_the_old_one_may_go(url: str, key_file: Path) -> None:
    keep(url, TextKeys.read(key_file))
    new = add_text_key(key_file)
    both = TextKeys.read(key_file)
    reader = AuditReader(url)

    assert reader.rotate(both) == (3, 0)
    assert reader.rotate(both) == (0, 0)
    reader.close()

    only_new = TextKeys((new,), {new: both.keys[new]})
    reader = AuditReader(url, only_new)
    entry = reader.entry("id000002", words=True)
    assert (entry or {})["texts"] == ["my chest is tight"]
    assert verify(reader.chains()).problems == []
    reader.close()


def test_rotating_without_the_old_key_says_how_many_are_lost_and_changes_nothing(url: str, key_file: Path, tmp_path: Path) -> None:
    keys = TextKeys.read(key_file)
    keep(url, keys)
    add_text_key(tmp_path / "others")

    reader = AuditReader(url, keys)
    assert reader.rotate(TextKeys.read(tmp_path / "others")) == (0, 3)
    assert (reader.entry("id000000", words=True) or {})["encrypted"] == "open"
    reader.close()


def test_words_that_were_moved_to_another_exchange_do_not_open_there(url: str, key_file: Path) -> None:
    keys = TextKeys.read(key_file)
    keep(url, keys)
    database = open_database(url)
    words = database.execute("SELECT words FROM entries WHERE id = 'id000000'")[0][0]
    database.write([("UPDATE entries SET words = ? WHERE id = 'id000001'", [(bytes(words),)])])
    database.close()

    reader = AuditReader(url, keys)
    entry = reader.entry("id000001", words=True)
    reader.close()

    assert (entry or {})["encrypted"] == "lost"


def test_words_that_were_removed_are_missed(url: str, key_file: Path) -> None:
    keep(url, TextKeys.read(key_file))
    database = open_database(url)
    database.write([("UPDATE entries SET words = NULL, words_key = NULL WHERE seq = 2", [()])])
    database.close()

    reader = AuditReader(url)
    assert "entry 2 (id000001): lost its words" in verify(reader.chains()).problems[0]
    reader.close()


def test_erasing_takes_the_encrypted_words_too(url: str, key_file: Path) -> None:
    keep(url, TextKeys.read(key_file))
    reader = AuditReader(url)

    assert reader.purge(Chain(), "admin", exchange="id000001") == 1

    assert verify(reader.chains(), seals=reader.seals()).problems == []
    assert [row.words for row in reader.chains() if row.kind == "erased"] == [None]
    reader.close()


def test_a_patient_can_be_erased_by_pseudonym(url: str) -> None:
    store = AuditStore(url, key=b"key")
    for number, patient in enumerate(["a", "b", "a"]):
        store.record(replace(exchange(number), patient=patient))
    store.close()
    reader = AuditReader(url)
    pseudonym = (reader.entry("id000000") or {})["patient"]

    assert reader.purge(Chain(), "admin", patient=pseudonym) == 2

    assert [e["id"] for e in reader.list_entries()] == ["id000001"]
    reader.close()


def test_a_store_that_is_to_encrypt_needs_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="audit_text_keys"):
        AuditStore(f"sqlite:///{tmp_path}/audit.db", "encrypted")


def test_key_files_are_for_their_owner_only_and_never_overwritten(tmp_path: Path, key_file: Path) -> None:
    SigningKey.new().write(tmp_path / "seal.pem")

    assert stat.S_IMODE((tmp_path / "seal.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="never overwritten"):
        SigningKey.new().write(tmp_path / "seal.pem")


def test_what_one_half_of_a_key_signs_the_other_accepts(tmp_path: Path) -> None:
    public = PublicKey.read(SigningKey.new().write(tmp_path / "seal.pem"))
    signature = SigningKey.read(tmp_path / "seal.pem").sign(b"message")

    assert public.fits(signature, b"message")
    assert not public.fits(signature, b"another")
    assert not PublicKey.read(SigningKey.new().write(tmp_path / "other.pem")).fits(signature, b"message")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "has no key"),
        (b"a c2hvcnQ=\n", ":1: is not a name and a key of 32 bytes"),
        (b"# note\nname\n", ":2: is not a name and a key of 32 bytes"),
        (b"\xff\xfe", "is not a file of text keys"),
    ],
)
def test_a_file_of_text_keys_that_is_none_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "keys").write_bytes(content)

    with pytest.raises(ConfigError, match=f"keys.*{complaint}"):
        TextKeys.read(tmp_path / "keys")


@pytest.mark.parametrize("reader", [SigningKey.read, PublicKey.read, TextKeys.read])
def test_a_key_file_that_is_not_there_is_named(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    with pytest.raises(ConfigError, match=r"missing\.pem: cannot be read: No such file"):
        reader(tmp_path / "missing.pem")


@pytest.mark.parametrize("read", [SigningKey.read, PublicKey.read])
def test_a_key_of_another_kind_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "other.pem").write_text("not a key")

    with pytest.raises(ConfigError, match="guardrail audit signing-key"):
        read(tmp_path / "other.pem")
