"""Alerts on their way, on SQLite and, where one runs, PostgreSQL."""

import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from guardrail.alerts.alert import Alert, Due
from guardrail.alerts.outbox import Delivery, Outbox, rows_of
from guardrail.audit.database import open_database
from guardrail.audit.store import AuditStore
from guardrail.errors import StoreError
from tests.alerts.receiving import alert
from tests.audit.records import exchange

NOW = 1000.0
LEASE = 30.0


def due(told: Alert, receivers: list[str], repeat_seconds: float | None = None) -> Due:
    return Due(told, tuple(receivers), repeat_seconds)


def claim(outbox: Outbox, receiver: str = "a", now: float = NOW) -> list[Delivery]:
    return outbox.claim(receiver, now, LEASE, 10)


def test_what_is_put_in_comes_out_once_for_each_receiver(url: str) -> None:
    outbox = Outbox(url)
    outbox.add([due(alert(), ["a", "b"])], NOW)

    (first,) = claim(outbox)
    assert (first.receiver, first.made_at, first.attempts, first.alert) == ("a", NOW, 1, alert())
    assert claim(outbox) == []
    assert outbox.pending() == {"a": 1, "b": 1}
    outbox.sent(first, NOW)
    assert outbox.pending() == {"b": 1}
    (second,) = claim(outbox, "b")
    assert second.id != first.id
    outbox.close()


def condition(*, over: bool = False) -> Due:
    told = Alert(key="silence:r", rule="r", kind="silence", severity="warning", at=NOW, title="No exchange has arrived", over=over)
    return due(told, ["a"], 60.0 if over else 3600.0)


def test_what_is_over_is_told_once_by_all_replicas_and_can_be_told_anew(url: str) -> None:
    outbox = Outbox(url)
    told = []
    for second, over in ((0, False), (1, False), (300, True), (301, True), (400, False), (401, False), (700, True)):
        outbox.add([condition(over=over)], NOW + second)
        for delivery in claim(outbox, now=NOW + second):
            outbox.sent(delivery, NOW + second)
            told.append((second, delivery.alert.over, delivery.id))

    assert [(second, over) for second, over, _ in told] == [(0, False), (300, True), (400, False), (700, True)]
    assert len({id for *_, id in told}) == 4
    outbox.close()


def test_what_is_over_is_not_told_after_that_to_who_had_not_got_it_yet(url: str) -> None:
    outbox = Outbox(url)
    outbox.add([condition()], NOW)
    (late,) = claim(outbox)
    outbox.add([condition(over=True)], NOW + 1)
    outbox.failed(late, NOW + 2, "status 500")

    assert [delivery.alert.over for delivery in claim(outbox, now=NOW + 3)] == [True]
    outbox.close()


def test_the_same_matter_is_told_once_by_all_replicas(url: str) -> None:
    first, second = Outbox(url), Outbox(url)
    first.add([due(alert(), ["a"])], NOW)
    second.add([due(alert(at=5.0), ["a"])], NOW + 1)

    (delivery,) = claim(second)
    second.sent(delivery, NOW + 2)
    first.add([due(alert(), ["a"])], NOW + 1e9)

    assert claim(first, now=NOW + 2e9) == []
    first.close()
    second.close()


def test_a_matter_that_may_repeat_is_told_anew_when_its_time_has_come(url: str) -> None:
    outbox = Outbox(url)
    outbox.add([due(alert(), ["a"], 60)], NOW)
    (first,) = claim(outbox)
    outbox.given_up(first, NOW, "status 400")
    outbox.add([due(alert(), ["a"], 60)], NOW + 59)
    assert claim(outbox, now=NOW + 59) == []

    outbox.add([due(alert(at=7.0), ["a"], 60)], NOW + 60)
    (again,) = claim(outbox, now=NOW + 60)

    assert (again.attempts, again.alert.at) == (1, 7.0)
    assert again.id != first.id
    outbox.close()


def test_what_failed_comes_back_at_its_time_with_the_same_id(url: str) -> None:
    outbox = Outbox(url)
    outbox.add([due(alert(), ["a"])], NOW)
    (first,) = claim(outbox)
    outbox.failed(first, NOW + 5, "status 500")
    assert claim(outbox, now=NOW + 4.9) == []

    (second,) = claim(outbox, now=NOW + 5)

    assert (second.id, second.attempts) == (first.id, 2)
    assert rows_of(url)[0]["error"] == "status 500"
    outbox.close()


def test_what_was_claimed_by_one_that_died_comes_back_when_the_lease_ends(url: str) -> None:
    outbox = Outbox(url)
    outbox.add([due(alert(), ["a"])], NOW)
    (dead,) = claim(outbox)
    assert claim(outbox, now=NOW + LEASE - 1) == []

    (mine,) = claim(outbox, now=NOW + LEASE)
    outbox.failed(dead, NOW, "it was not dead, only slow")

    assert claim(outbox, now=NOW + LEASE + 1) == []  # the slow one's word no longer counts
    outbox.sent(mine, NOW)
    assert [row["state"] for row in rows_of(url)] == ["sent"]
    outbox.close()


def test_what_is_settled_no_longer_holds_what_it_said(url: str) -> None:
    outbox = Outbox(url)
    outbox.add([due(alert("one"), ["a"])], NOW)
    outbox.add([due(alert("two"), ["a"])], NOW)
    one, two = claim(outbox)
    outbox.sent(one, NOW)
    outbox.given_up(two, NOW, "status 400")
    outbox.close()

    database = open_database(url)
    rows = database.execute("SELECT state, body FROM alert_outbox ORDER BY state")
    database.close()

    assert rows == [("given_up", None), ("sent", None)]


def test_old_ones_that_are_done_are_forgotten(url: str) -> None:
    outbox = Outbox(url)
    outbox.add([due(alert("old"), ["a", "b"])], NOW)
    (done,) = claim(outbox)
    outbox.sent(done, NOW)
    outbox.add([due(alert("new"), ["a"])], NOW + 10)
    outbox.forget(NOW + 10)

    assert [(r["key"][-3:], r["receiver"]) for r in rows_of(url)] == [("new", "a"), ("old", "b")]
    outbox.close()


def test_the_newest_exchange_of_all_replicas(url: str) -> None:
    outbox = Outbox(url)
    assert outbox.newest_exchange() is None
    store = AuditStore(url)
    store.record(exchange(3))
    store.close()

    assert outbox.newest_exchange() == 1003.0
    outbox.close()


def test_many_replicas_share_the_work(url: str) -> None:
    """Four put in the same forty alerts and take them out at the same time: each comes out once."""
    taken: list[str] = []
    begin = threading.Barrier(4)

    def replica() -> None:
        outbox = Outbox(url)
        begin.wait()
        for number in range(40):
            outbox.add([due(alert(f"id{number}"), ["a"])], NOW)
        while claimed := outbox.claim("a", NOW, LEASE, 3):
            taken.extend(d.alert.key for d in claimed)
        outbox.close()

    threads = [threading.Thread(target=replica) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(taken) == sorted(alert(f"id{number}").key for number in range(40))


def test_a_replica_does_not_wait_for_what_another_is_claiming(postgres: str) -> None:
    outbox = Outbox(postgres)
    for number in range(3):
        outbox.add([due(alert(f"id{number}"), ["a"])], NOW + number)
    other = open_database(postgres)
    with other.transaction():
        other.execute("SELECT key FROM alert_outbox ORDER BY due_at LIMIT 1 FOR UPDATE")
        found = claim(outbox, now=NOW + 10)
    other.close()

    assert [d.alert.key[-3:] for d in found] == ["id1", "id2"]
    outbox.close()


def test_one_that_is_killed_after_writing_has_lost_nothing(url: str) -> None:
    root = Path(__file__).parents[2]
    script = f"""
import os
from guardrail.alerts.alert import Due
from guardrail.alerts.outbox import Outbox
from tests.alerts.receiving import alert
Outbox({url!r}).add([Due(alert(), ("a",))], {NOW})
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(root)})

    assert killed.returncode == -signal.SIGKILL
    outbox = Outbox(url)
    assert [d.alert for d in claim(outbox)] == [alert()]
    outbox.close()


def test_an_outbox_opens_its_store_again_by_itself(postgres: str) -> None:
    mine = f"outbox-{uuid.uuid4().hex[:12]}"
    outbox = Outbox(f"{postgres}&application_name={mine}")
    outbox.add([due(alert(), ["a"])], NOW)
    admin = open_database(postgres)
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ?", [mine])
    admin.close()

    with pytest.raises(StoreError):
        outbox.pending()
    assert outbox.pending() == {"a": 1}
    outbox.close()


def test_an_alert_of_a_newer_version_is_left_to_newer_replicas(url: str) -> None:
    outbox = Outbox(url)
    outbox.add([due(alert(), ["a"])], NOW)
    database = open_database(url)
    database.write([("UPDATE alert_outbox SET body = ?", [('{"kind": "unheard_of"}',)])])
    database.close()

    assert claim(outbox) == []
    assert outbox.pending() == {"a": 1}
    outbox.close()
