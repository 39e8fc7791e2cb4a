"""When an alert is due, and what it says."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from guardrail.alerts.settings import AlertSettings
from guardrail.alerts.watch import Watch
from guardrail.audit.record import ExchangeRecord, Outcome
from guardrail.engine.model import Assertion, Finding, Urgency
from tests.alerts.receiving import SECRET
from tests.audit.records import exchange

NOW = 10_000.0


def watch(rule: dict[str, Any], **more: Any) -> Watch:
    settings = AlertSettings.model_validate(
        {
            "receivers": {"a": {"kind": "webhook", "url": "https://a.example", "secret": SECRET}},
            "rules": {"r": {"send": ["a"], **rule}},
            **more,
        }
    )
    return Watch(settings, b"key", NOW, "https://guard.example")


def plain(at: float, outcome: Outcome = Outcome.FORWARDED) -> ExchangeRecord:
    return ExchangeRecord("id", at, "chat_completions", outcome)


def test_an_escalation_says_ids_urgency_destination_topics_and_titles_and_no_words() -> None:
    (due,) = watch({"when": "escalation"}).on_exchange(exchange(7))

    alert = due.alert
    assert (due.send, due.repeat_seconds) == (("a",), None)
    assert (alert.key, alert.kind, alert.severity) == ("escalation:r:id000007", "escalation", "critical")
    assert alert.title == "Emergency, ambulance: Chest pain"
    assert alert.link == "https://guard.example/-/dashboard/exchanges/id000007"
    assert alert.lines() == {
        "Rule": "r",
        "Time": "1970-01-01T00:16:47Z",
        "Exchange": "id000007",
        "Urgency": "emergency",
        "Destination": "ambulance",
        "Topics": "acute",
        "Held": "Chest pain",
        "Patient (pseudonym)": alert.escalation.patient if alert.escalation else "",
    }
    assert "tight" not in alert.model_dump_json()


def test_words_are_in_it_only_if_a_setting_says_so_and_redacted() -> None:
    record = exchange(1)
    assert record.decision is not None
    hit = record.decision.hits[0]
    evidence = (*hit.evidence, Finding("reach", 0, 0, 20, "write to a@b.example", Assertion()))
    record.decision = replace(record.decision, hits=(msgspec.structs.replace(hit, evidence=evidence),))
    (due,) = watch({"when": "escalation"}, include_words=True).on_exchange(record)

    assert due.alert.escalation is not None
    assert due.alert.escalation.words == ("chest is tight", "write to [mail]")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"urgency": "emergency"}, 1),
        ({"urgency": "routine"}, 2),
        ({"urgency": "routine", "destinations": ["ambulance"]}, 1),
        ({"urgency": "routine", "destinations": ["crisis_line"]}, 0),
        ({"topics": ["acute", "crisis"]}, 1),
        ({"topics": ["crisis"]}, 0),
        ({"tenants": ["clinic"]}, 0),
    ],
)
def test_a_rule_concerns_what_it_names(rule: dict[str, Any], expected: int) -> None:
    one = watch({"when": "escalation", **rule})
    records = (exchange(1), exchange(2, Urgency.ROUTINE), exchange(3, Urgency.NONE), plain(NOW))

    assert sum(len(one.on_exchange(record)) for record in records) == expected


def test_repeats_of_the_same_patient_have_one_key_unless_it_gets_worse() -> None:
    one = watch({"when": "escalation", "urgency": "routine", "repeat_seconds": 600})
    keys = [one.on_exchange(record)[0].alert.key for record in (exchange(1, Urgency.ROUTINE), exchange(2, Urgency.ROUTINE), exchange(3))]

    assert keys[0] == keys[1] != keys[2]


def test_without_a_patient_every_exchange_is_told() -> None:
    record = exchange(1)
    record.patient = None
    (due,) = watch({"when": "escalation", "repeat_seconds": 600}).on_exchange(record)

    assert (due.alert.key, due.repeat_seconds) == ("escalation:r:id000001", None)


def test_a_failure_of_the_engine_is_told_at_once_and_not_again_for_a_while() -> None:
    one = watch({"when": "engine_failure", "repeat_seconds": 300})
    found = [len(one.on_exchange(plain(NOW + s, Outcome.GUARD_FAILED))) for s in (0, 1, 299, 300)]

    assert found == [1, 0, 0, 1]


def test_the_error_rate_counts_a_window_and_needs_enough() -> None:
    one = watch({"when": "error_rate", "above": 0.25, "at_least": 8, "window_seconds": 60})
    for second in range(6):
        one.on_exchange(plain(NOW + second))
    one.on_exchange(plain(NOW + 6, Outcome.UPSTREAM_LOST))
    assert one.on_time(NOW + 6, store_works=True) == []  # seven are too few
    one.on_exchange(plain(NOW + 7, Outcome.UPSTREAM_REFUSED))
    assert one.on_time(NOW + 7, store_works=True) == []  # two of eight are not above a quarter
    one.on_exchange(plain(NOW + 8, Outcome.GUARD_FAILED))

    (due,) = one.on_time(NOW + 8, store_works=True)

    assert due.alert.title == "33% of exchanges ended badly"
    assert due.alert.facts["Exchanges"] == "3 of 9 in 60 s"
    assert one.on_time(NOW + 9, store_works=True) == []  # told
    assert one.on_time(NOW + 1000, store_works=True) == []  # over


def test_a_store_that_is_away_is_told_after_a_while_and_again_while_it_lasts() -> None:
    one = watch({"when": "store_down", "after_seconds": 60, "repeat_seconds": 900})
    states = [(0, False), (59, False), (60, False), (61, True), (62, False), (121, False), (960, False)]
    found = [len(one.on_time(NOW + second, store_works=works)) for second, works in states]

    assert found == [0, 0, 1, 0, 0, 0, 1]


def states(one: Watch, *given: tuple[float, bool]) -> list[tuple[float, bool]]:
    """When it was told that the store is away, and when that it is back."""
    return [(second, due.alert.over) for second, works in given for due in one.on_time(NOW + second, store_works=works)]


def test_that_a_store_is_back_is_told_once_after_a_minute_of_calm() -> None:
    one = watch({"when": "store_down", "after_seconds": 60})

    told = states(one, (0, False), (60, False), (70, True), (129, True), (130, True), (200, True), (9000, True))

    assert told == [(60, False), (130, True)]


def test_what_comes_back_within_the_minute_is_not_over_and_after_it_is_told_at_once() -> None:
    one = watch({"when": "store_down", "after_seconds": 0, "repeat_seconds": 900})

    told = states(one, (0, False), (10, True), (69, True), (70, False), (80, True), (140, True), (150, False))

    assert told == [(0, False), (140, True), (150, False)]


def test_what_was_not_told_is_not_over() -> None:
    one = watch({"when": "store_down", "after_seconds": 60})

    assert states(one, (0, False), (59, False), (61, True), (200, True)) == []


def test_the_end_says_how_long_it_lasted_and_can_be_left_out() -> None:
    one, quiet = (watch({"when": "store_down", "after_seconds": 0, "tell_end": tell}) for tell in (True, False))
    states(one, (0, False), (300, True))
    (due,) = one.on_time(NOW + 360, store_works=True)

    assert (due.alert.key, due.alert.severity, due.alert.title[:32]) == ("store_down:r", "info", "Over: the audit store is back; w")
    assert due.alert.facts["Lasted since it was told"] == "300 s"
    assert states(quiet, (0, False), (300, True), (360, True)) == [(0, False)]


def test_silence_is_over_with_an_exchange_and_not_with_the_hours_of_traffic() -> None:
    one = watch({"when": "silence", "after_seconds": 900, "hours": "07:00-22:00", "timezone": "Europe/London"})
    july = [datetime(2026, 7, 1, hour, minute, tzinfo=UTC).timestamp() for hour, minute in ((6, 15), (21, 30), (23, 0))]
    found = [[due.alert.over for due in one.on_time(now, store_works=True)] for now in july]
    one.on_exchange(plain(july[2]))

    assert found == [[False], [], []]
    assert one.on_time(july[2] + 1, store_works=True) == []
    assert [due.alert.over for due in one.on_time(july[2] + 61, store_works=True)] == [True]


def test_errors_are_over_when_enough_exchanges_end_well_and_not_when_none_arrive() -> None:
    one = watch({"when": "error_rate", "above": 0.25, "at_least": 4, "window_seconds": 60})
    for second in range(4):
        one.on_exchange(plain(NOW + second, Outcome.UPSTREAM_LOST))
    assert [due.alert.over for due in one.on_time(NOW + 4, store_works=True)] == [False]
    assert [one.on_time(NOW + second, store_works=True) for second in (100, 200)] == [[], []]

    found = []
    for second in range(300, 380):
        one.on_exchange(plain(NOW + second))
        found += [(second, due.alert.over) for due in one.on_time(NOW + second, store_works=True)]

    assert found == [(363, True)]


def test_silence_is_that_of_all_replicas() -> None:
    one = watch({"when": "silence", "after_seconds": 900})
    assert not one.wants_newest(NOW + 899)
    assert one.wants_newest(NOW + 900)
    assert one.on_time(NOW + 900, store_works=True, newest=NOW + 500) == []

    (due,) = one.on_time(NOW + 1400, store_works=True, newest=NOW + 500)

    assert (due.alert.title, due.alert.severity) == ("No exchange has arrived", "warning")


def test_silence_counts_only_in_the_hours_of_traffic() -> None:
    """Open from 7 in London, which is 6 UTC in July."""
    one = watch({"when": "silence", "after_seconds": 900, "hours": "07:00-22:00", "timezone": "Europe/London"})
    july = [datetime(2026, 7, 1, hour, minute, tzinfo=UTC).timestamp() for hour, minute in ((5, 59), (6, 0), (6, 14), (6, 15), (21, 0))]

    assert [len(one.on_time(now, store_works=True)) for now in july] == [0, 0, 0, 1, 0]
